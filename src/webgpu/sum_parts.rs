//! Adds up the parts in which long sums are taken.

use crate::error::Result;
use crate::gpu::fit;
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Kernel, Slot};
use crate::webgpu::state::Wgpu;

params! {
    /// Twin of the struct in shaders/shared/sum_parts.wgsl.
    struct SumPartsParams {
        threads: u32,
        width: u32,
        out_base: u32,
        out_width: u32,
        first_column: u32,
        mode: u32,
    }
}

fn kernel() -> Kernel {
    Kernel {
        name: "shared/sum_parts",
        params: &SumPartsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../shaders/shared/sum_parts.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("ranges", "vec2<u32>"),
            Slot::plain("edges", "u32"),
            Slot::plain("parts", "f32"),
            Slot::write("out", "f32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    vec![kernel()]
}

/// What parts are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mode<'a> {
    /// Sums.
    Sum,
    /// Means of parts of a bag; where each part begins in the bags.
    Mean(&'a Binding),
    /// Halves of parts of a convex combination.
    Halves,
}

/// Where sums are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) out: &'a Binding,
    pub(super) rows: usize,
    pub(super) width: usize,
    /// The width of a row of the output, and the first column that is written.
    pub(super) out_width: usize,
    pub(super) first_column: usize,
}

impl Rows<'_> {
    /// Adds up `parts`, of which each row has a range.
    pub(super) fn sum_parts(
        &self,
        gpu: &Wgpu,
        operation: &'static str,
        ranges: &Binding,
        parts: &Binding,
        mode: Mode<'_>,
    ) -> Result<()> {
        let threads = self.rows * self.width;
        let nothing = gpu.nothing();
        let (mode, edges) = match mode {
            Mode::Sum => (0, &nothing),
            Mode::Mean(edges) => (1, edges),
            Mode::Halves => (2, &nothing),
        };
        let params = SumPartsParams {
            threads: fit(operation, "out", threads)?,
            width: self.width as u32,
            out_base: self.out.base,
            out_width: self.out_width as u32,
            first_column: self.first_column as u32,
            mode,
        };
        gpu.dispatch(operation, &kernel(), &params, &[ranges, edges, parts, self.out], groups_of(threads))
    }
}
