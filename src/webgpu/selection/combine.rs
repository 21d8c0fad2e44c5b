//! Combines the lists of the pieces of a history into the selection.

use crate::error::Result;
use crate::plan::Tile;
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::THREADS;
use crate::webgpu::params::{Params, params};
use crate::webgpu::selection::pieces::Pieces;
use crate::webgpu::shader::{Kernel, Slot};
use crate::webgpu::state::Wgpu;

/// The most lists that are combined at a time: each entry is searched for in all of them.
const MEMBERS: usize = 16;

params! {
    /// Twin of the struct in shaders/selection/combine.wgsl.
    struct CombineSelectionParams {
        positions_base: u32,
        scores_base: u32,
        counts_base: u32,
        piece_lists: u32,
        rows: u32,
        channels: u32,
        top_k: u32,
        first_whole: u32,
        has_ranges: u32,
        is_round: u32,
        members: u32,
        reversed: u32,
    }
}

fn combine_kernel() -> Kernel {
    Kernel {
        name: "selection/combine",
        params: &CombineSelectionParams::BLOCK,
        threads: THREADS,
        sources: &[
            include_str!("../../../shaders/selection/order.wgsl"),
            include_str!("../../../shaders/selection/combine.wgsl"),
        ],
        constants: vec![],
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
    vec![combine_kernel()]
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

/// Where a selection goes.
pub(in crate::webgpu) struct Combined<'a> {
    pub(in crate::webgpu) positions: &'a Binding,
    pub(in crate::webgpu) scores: &'a Binding,
    pub(in crate::webgpu) counts: &'a Binding,
}

/// Combines the lists of the pieces into the selection. `reversed`: an entry holds the row as counted from the largest number down.
pub(in crate::webgpu) fn combine(
    gpu: &Wgpu,
    operation: &'static str,
    pieces: &Pieces,
    reversed: bool,
    out: &Combined<'_>,
) -> Result<()> {
    let (plan, top_k, piece_lists) = (&pieces.plan, pieces.top_k, pieces.lists.count);
    let whole = |(index, tile): (usize, &Tile)| match tile.slots {
        0 => [index, plan.plan.slots + index, plan.plan.slots + index + 1],
        slots => [index, tile.first_slot, tile.first_slot + slots],
    };
    let mut ranges: Vec<[usize; 3]> = plan.plan.tiles.iter().enumerate().map(whole).collect();
    let longest = |ranges: &[[usize; 3]]| ranges.iter().map(|[_, first, end]| end - first).max().unwrap_or(0);
    let params = CombineSelectionParams {
        positions_base: out.positions.base,
        scores_base: out.scores.base,
        counts_base: out.counts.base,
        piece_lists: piece_lists as u32,
        rows: pieces.rows as u32,
        channels: pieces.channels as u32,
        top_k: top_k as u32,
        first_whole: plan.plan.slots as u32,
        has_ranges: 0,
        is_round: 0,
        members: 0,
        reversed: u32::from(reversed),
    };
    // Lists of a dispatch, with one workgroup for 64 places of each.
    let groups = |ranges: &[[usize; 3]], members: usize| {
        (ranges.len() * piece_lists) as u64 * (members * top_k.div_ceil(64)) as u64
    };
    let kernel = combine_kernel();
    let mut lists = pieces.found.clone();
    let mut list = gpu.nothing();
    let words = |ranges: &[[usize; 3]]| -> Vec<u32> {
        ranges.iter().flat_map(|&[tile, first, end]| [tile, first, end, 0].map(|word| word as u32)).collect()
    };
    let mut rounds = 0;
    while longest(&ranges) > MEMBERS {
        let made = cut_ranges(&ranges, MEMBERS);
        list = gpu.list(operation, &words(&made))?;
        let combined = gpu.scratch(operation, (made.len() * piece_lists * top_k * 2) as u64)?;
        let none = [gpu.no_output(operation)?, gpu.no_output(operation)?, gpu.no_output(operation)?];
        let params = CombineSelectionParams { has_ranges: 1, is_round: 1, members: MEMBERS as u32, ..params };
        let bindings = [&plan.tiles, &lists, &list, &none[0], &none[1], &none[2], &combined];
        gpu.dispatch(operation, &kernel, &params, &bindings, groups(&made, MEMBERS))?;
        (ranges, lists, rounds) = (joined_ranges(&made), combined, rounds + 1);
    }
    if rounds > 0 {
        list = gpu.list(operation, &words(&ranges))?;
    }
    let members = longest(&ranges);
    let has_ranges = u32::from(rounds > 0);
    let params = CombineSelectionParams { has_ranges, members: members as u32, ..params };
    let combined = gpu.no_output(operation)?;
    let Combined { positions, scores, counts } = *out;
    let bindings = [&plan.tiles, &lists, &list, positions, scores, counts, &combined];
    gpu.dispatch(operation, &kernel, &params, &bindings, groups(&ranges, members))
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
}
