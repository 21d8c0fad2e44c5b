//! Merges attention over disjoint histories.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::ops::{PartialAttention, TargetAttention, TargetAttentionOutputs};
use crate::webgpu::launch::{MOST_STEPS_OF_ROW, THREADS, check_width, groups_of};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;

params! {
    /// Twin of the struct in shaders/target_attention/merge.wgsl.
    struct MergeParams {
        threads: u32,
        width: u32,
        first_base: u32,
        second_base: u32,
        first_lse_base: u32,
        second_lse_base: u32,
        out_base: u32,
        lse_base: u32,
        has_lse: u32,
    }
}

fn merge_kernel(values: Format) -> Kernel {
    Kernel {
        name: "target_attention/merge",
        params: &MergeParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/target_attention/merge.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::read("first", values),
            Slot::read("second", values),
            Slot::plain("first_lse", "u32"),
            Slot::plain("second_lse", "u32"),
            Slot::write("out", "u32"),
            Slot::write("lse_bits", "u32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    Format::ALL.into_iter().filter(|format| !format.vectors).map(merge_kernel).collect()
}

pub(super) fn merge<T: Element>(
    gpu: &Wgpu,
    op: &TargetAttention,
    first: PartialAttention<'_, WgpuMemory, T>,
    second: PartialAttention<'_, WgpuMemory, T>,
    outputs: TargetAttentionOutputs<'_, WgpuMemory, T>,
) -> Result<()> {
    const NAME: &str = "merge_attention";
    let rows = op.check_merge(&first, &second)?;
    op.check_merge_outputs(rows, &outputs)?;
    check_width(NAME, op.value_width, 4 * MOST_STEPS_OF_ROW)?;
    let inputs = [
        gpu.bind(NAME, "first.out", &Region::of(first.out))?,
        gpu.bind(NAME, "second.out", &Region::of(second.out))?,
        gpu.bind(NAME, "first.lse", &Region::of(first.lse))?,
        gpu.bind(NAME, "second.lse", &Region::of(second.lse))?,
    ];
    let [first, second, first_lse, second_lse] = &inputs;
    let read = inputs.each_ref().map(|input| &input.buffer);
    let out = gpu.output(NAME, "out", &outputs.out, outputs.out.len(), &read, &[])?;
    let lse = match &outputs.lse {
        Some(lse) => Some(gpu.output(NAME, "lse", lse, rows, &read, &[&out])?),
        None => None,
    };
    let no_lse = gpu.no_output(NAME)?;
    let lse_binding = lse.as_ref().map_or(&no_lse, |lse| &lse.binding);
    let params = MergeParams {
        threads: fit(NAME, "out", outputs.out.len())?,
        width: op.value_width as u32,
        first_base: first.base,
        second_base: second.base,
        first_lse_base: first_lse.base,
        second_lse_base: second_lse.base,
        out_base: out.binding.base,
        lse_base: lse_binding.base,
        has_lse: u32::from(lse.is_some()),
    };
    let kernel = merge_kernel(Format::of::<T>(false));
    let bindings = [first, second, first_lse, second_lse, &out.binding, lse_binding];
    gpu.dispatch(NAME, &kernel, &params, &bindings, groups_of(outputs.out.len()))?;
    gpu.finish(out)?;
    lse.map_or(Ok(()), |lse| gpu.finish(lse))
}
