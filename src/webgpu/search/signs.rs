//! Packs the signs of rotated rows.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::memory::{View, ViewMut};
use crate::ops::Signs;
use crate::webgpu::launch::{MOST_STEPS_OF_ROW, THREADS, check_width};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;

const NAME: &str = "pack_signs";

/// Rows and words of a workgroup: shaders/search/pack_signs.wgsl.
const GROUP: [usize; 2] = [8, 2];

params! {
    /// Twin of the struct in shaders/search/pack_signs.wgsl.
    struct PackSignsParams {
        rows: u32,
        width: u32,
        bits: u32,
        words: u32,
        rows_base: u32,
        rotations_base: u32,
        out_base: u32,
    }
}

fn signs_kernel(rows: Format) -> Kernel {
    Kernel {
        name: "search/pack_signs",
        params: &PackSignsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/search/pack_signs.wgsl")],
        constants: vec![],
        slots: vec![Slot::read("rows", rows), Slot::plain("rotations", "f32"), Slot::write("out", "u32")],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    Format::ALL.map(signs_kernel).to_vec()
}

pub(super) fn pack_signs<T: Element>(
    gpu: &Wgpu,
    op: &Signs,
    rows: View<'_, WgpuMemory, T>,
    rotations: View<'_, WgpuMemory, f32>,
    out: &ViewMut<'_, WgpuMemory, u32>,
) -> Result<()> {
    let count = op.check(rows.len(), rotations.len())?;
    op.check_output(count, out.len())?;
    check_width(NAME, op.width, 4 * MOST_STEPS_OF_ROW)?;
    let (rows, rotations, words) = (Region::of(rows), Region::of(rotations), op.words());
    let out = gpu.output(NAME, "out", out, count * words, &[rows.buffer, rotations.buffer], &[])?;
    let rotations = gpu.bind(NAME, "rotations", &rotations)?;
    // Where not even one row fits a binding, the binding of one is the error.
    let window = gpu.rows_per_binding::<T>(op.width).max(1);
    for first in (0..count).step_by(window) {
        let part = window.min(count - first);
        let rows = gpu.bind(NAME, "rows", &rows.rows(first, part, op.width))?;
        fit(NAME, "out", (first + part) * words)?;
        let params = PackSignsParams {
            rows: part as u32,
            width: op.width as u32,
            bits: op.bits as u32,
            words: words as u32,
            rows_base: rows.base,
            rotations_base: rotations.base,
            out_base: out.binding.base + (first * words) as u32,
        };
        let kernel = signs_kernel(rows.format_of_rows::<T>(op.width));
        let groups = part.div_ceil(GROUP[0]) as u64 * words.div_ceil(GROUP[1]) as u64;
        gpu.dispatch(NAME, &kernel, &params, &[&rows, &rotations, &out.binding], groups)?;
    }
    gpu.finish(out)
}
