//! Combines the lists of the pieces of a history into the selection.

use crate::error::Result;
use crate::plan::Tile;
use crate::webgpu::batch::DevicePlan;
use crate::webgpu::binding::Binding;
use crate::webgpu::decoupled::keys::{EACH_TOP_K, lists_of};
use crate::webgpu::launch::{MOST_ITERATIONS, THREADS};
use crate::webgpu::output::Output;
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Kernel, Slot};
use crate::webgpu::state::Wgpu;

params! {
    /// Twin of the struct in shaders/decoupled/combine_selection.wgsl.
    struct CombineSelectionParams {
        positions_base: u32,
        scores_base: u32,
        counts_base: u32,
        piece_lists: u32,
        top_k: u32,
        first_whole: u32,
        has_ranges: u32,
        is_round: u32,
    }
}

fn combine_kernel(top_k: usize) -> Kernel {
    Kernel {
        name: "decoupled/combine_selection",
        params: &CombineSelectionParams::BLOCK,
        threads: THREADS,
        sources: &[
            include_str!("../../../shaders/decoupled/select.wgsl"),
            include_str!("../../../shaders/decoupled/combine_selection.wgsl"),
        ],
        constants: vec![("LISTS", 1), ("CAPACITY", lists_of(top_k).0 as u32)],
        slots: vec![
            Slot::plain("tiles", "vec4<u32>"),
            Slot::plain("lists", "vec2<u32>"),
            Slot::plain("ranges", "vec4<u32>"),
            Slot::write("positions", "u32"),
            Slot::write("scores", "u32"),
            Slot::write("counts", "u32"),
            Slot::write("combined", "vec2<u32>"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    EACH_TOP_K.map(combine_kernel).to_vec()
}

/// Iterations that combining one list of `top_k` entries takes at most: offering its entries, and sorting the list of the
/// workgroup as often as it can fill up.
fn iterations_per_list(top_k: usize) -> usize {
    let capacity = lists_of(top_k).0;
    let sorts = top_k.div_ceil(capacity - top_k) + 1;
    2 * top_k.div_ceil(64) + sorts * iterations_per_sort(capacity, 1)
}

/// Iterations that sorting so many full lists takes.
pub(super) fn iterations_per_sort(capacity: usize, lists: usize) -> usize {
    let pairs = capacity.next_power_of_two() / 2;
    let levels = pairs.ilog2() as usize + 1;
    let walks = (lists * pairs).div_ceil(64) + 1;
    levels * (levels + 1) / 2 * walks + 2 * levels + lists * (capacity.div_ceil(64) + 2)
}

/// The ranges of slots of each tile, at most so many slots each; `[tile, first slot, end, 0]`.
fn cut_ranges(ranges: &[[usize; 3]], most: usize) -> Vec<[usize; 3]> {
    let cut = |&[tile, first, end]: &[usize; 3]| {
        (first..end).step_by(most).map(move |start| [tile, start, end.min(start + most)])
    };
    ranges.iter().flat_map(cut).collect()
}

/// The ranges of slots of each tile after a round that made one slot of each range.
fn joined_ranges(made: &[[usize; 3]]) -> Vec<[usize; 3]> {
    let mut joined: Vec<[usize; 3]> = Vec::new();
    for (slot, &[tile, ..]) in made.iter().enumerate() {
        match joined.last_mut() {
            Some(last) if last[0] == tile => last[2] = slot + 1,
            _ => joined.push([tile, slot, slot + 1]),
        }
    }
    joined
}

/// Combines `lists` (so many per piece) into positions, scores and counts.
pub(super) fn combine(
    gpu: &Wgpu,
    operation: &'static str,
    top_k: usize,
    plan: &DevicePlan,
    (lists, piece_lists): (&Binding, usize),
    [positions, scores, counts]: [&Output; 3],
) -> Result<()> {
    let params = CombineSelectionParams {
        positions_base: positions.binding.base,
        scores_base: scores.binding.base,
        counts_base: counts.binding.base,
        piece_lists: piece_lists as u32,
        top_k: top_k as u32,
        first_whole: plan.plan.slots as u32,
        has_ranges: 0,
        is_round: 0,
    };
    let kernel = combine_kernel(top_k);
    let most = (MOST_ITERATIONS / iterations_per_list(top_k)).max(2);
    let whole = |(index, tile): (usize, &Tile)| match tile.slots {
        0 => [index, plan.plan.slots + index, plan.plan.slots + index + 1],
        slots => [index, tile.first_slot, tile.first_slot + slots],
    };
    let mut ranges: Vec<[usize; 3]> = plan.plan.tiles.iter().enumerate().map(whole).collect();
    let mut lists = lists.clone();
    let mut list = gpu.nothing();
    let words = |ranges: &[[usize; 3]]| -> Vec<u32> {
        ranges.iter().flat_map(|&[tile, first, end]| [tile, first, end, 0].map(|word| word as u32)).collect()
    };
    let mut rounds = 0;
    while ranges.iter().any(|[_, first, end]| end - first > most) {
        let made = cut_ranges(&ranges, most);
        list = gpu.list(operation, &words(&made))?;
        let combined = gpu.scratch(operation, (made.len() * piece_lists * top_k * 2) as u64)?;
        let none = [(); 3].map(|()| gpu.no_output(operation));
        let [positions, scores, counts] = none;
        let (positions, scores, counts) = (positions?, scores?, counts?);
        let params = CombineSelectionParams { has_ranges: 1, is_round: 1, ..params };
        let bindings = [&plan.tiles, &lists, &list, &positions, &scores, &counts, &combined];
        gpu.dispatch(operation, &kernel, &params, &bindings, (made.len() * piece_lists) as u64)?;
        (ranges, lists, rounds) = (joined_ranges(&made), combined, rounds + 1);
    }
    if rounds > 0 {
        list = gpu.list(operation, &words(&ranges))?;
    }
    let params = CombineSelectionParams { has_ranges: u32::from(rounds > 0), ..params };
    let combined = gpu.no_output(operation)?;
    let bindings =
        [&plan.tiles, &lists, &list, &positions.binding, &scores.binding, &counts.binding, &combined];
    let groups = (plan.plan.tiles.len() * piece_lists) as u64;
    gpu.dispatch(operation, &kernel, &params, &bindings, groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_keep_every_list_once() {
        let ranges = vec![[0, 0, 100], [1, 100, 101], [2, 101, 120]];
        let made = cut_ranges(&ranges, 8);
        let covered: Vec<usize> = made.iter().flat_map(|&[_, first, end]| first..end).collect();
        assert_eq!(covered, (0..120).collect::<Vec<_>>());
        assert_eq!(joined_ranges(&made), [[0, 0, 13], [1, 13, 14], [2, 14, 17]]);
    }

    #[test]
    fn a_round_fits_the_iterations_of_a_thread() {
        for top_k in [1, 20, 32, 64, 128, 256, 512, 577, 1024] {
            assert!(2 * iterations_per_list(top_k) <= MOST_ITERATIONS, "{top_k}");
        }
    }
}
