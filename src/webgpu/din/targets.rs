//! Prepares the candidates.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::webgpu::binding::Binding;
use crate::webgpu::din::layout::Layout;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::memory::Region;
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;

params! {
    /// Twin of the struct in shaders/din/targets.wgsl.
    struct DinTargetsParams {
        threads: u32,
        candidates: u32,
        width: u32,
        units4: u32,
        targets_base: u32,
        first_query_block: u32,
    }
}

fn targets_kernel(targets: Format) -> Kernel {
    Kernel {
        name: "din/targets",
        params: &DinTargetsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/din/targets.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::read("targets", targets),
            Slot::plain("blocks", "mat4x4<f32>"),
            Slot::plain("vectors", "vec4<f32>"),
            Slot::write("packed", "vec4<f32>"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    Format::ALL.map(targets_kernel).to_vec()
}

/// Widens the candidates, and computes their contributions to the first layer. `memory` is the folded network (blocks and
/// vectors) and the result.
pub(super) fn prepare_targets<T: Element>(
    gpu: &Wgpu,
    operation: &'static str,
    targets: Region<'_, T>,
    candidates: usize,
    layout: &Layout,
    memory: [&Binding; 3],
) -> Result<()> {
    let width = layout.inputs[0];
    let targets = gpu.bind(operation, "targets", &targets.rows(0, candidates, width))?;
    let threads = candidates * layout.target_vec4s();
    let params = DinTargetsParams {
        threads: fit(operation, "targets", threads)?,
        candidates: candidates as u32,
        width: width as u32,
        units4: layout.units4[0] as u32,
        targets_base: targets.base,
        first_query_block: layout.first_query_block as u32,
    };
    let [blocks, vectors, packed] = memory;
    let kernel = targets_kernel(targets.format_of_rows::<T>(width));
    gpu.dispatch(operation, &kernel, &params, &[&targets, blocks, vectors, packed], groups_of(threads))
}
