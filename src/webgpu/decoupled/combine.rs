//! Combines the lists of the pieces of a history into the selection.

use crate::error::Result;
use crate::webgpu::batch::DevicePlan;
use crate::webgpu::binding::Binding;
use crate::webgpu::decoupled::keys::{EACH_TOP_K, lists_of};
use crate::webgpu::launch::THREADS;
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
            Slot::write("positions", "u32"),
            Slot::write("scores", "u32"),
            Slot::write("counts", "u32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    EACH_TOP_K.map(combine_kernel).to_vec()
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
    };
    let bindings = [&plan.tiles, lists, &positions.binding, &scores.binding, &counts.binding];
    let groups = (plan.plan.tiles.len() * piece_lists) as u64;
    gpu.dispatch(operation, &combine_kernel(top_k), &params, &bindings, groups)
}
