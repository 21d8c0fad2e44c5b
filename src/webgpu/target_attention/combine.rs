//! Combines the partial results of the pieces of a tile, for attention and for DIN.

use crate::error::Result;
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;

/// The most columns that one dispatch sums; wider values take several.
pub(in crate::webgpu) const MAX_COLUMNS: usize = 256;

/// vec4s of columns for values of `width`, as target_attention/attend.wgsl and din/attend.wgsl divide them: a power of two.
pub(in crate::webgpu) fn column_vec4s(width: usize) -> usize {
    width.div_ceil(4).next_power_of_two()
}

params! {
    /// Twin of the struct in shaders/target_attention/combine.wgsl.
    struct CombineParams {
        kv_heads: u32,
        group_heads: u32,
        value_width: u32,
        first_column: u32,
        value_columns: u32,
        out_base: u32,
        lse_base: u32,
        first_stats: u32,
        tile: u32,
        weighting: u32,
        has_lse: u32,
    }
}

/// For partial results of `columns` columns.
fn combine_kernel(columns: usize) -> Kernel {
    Kernel {
        name: "target_attention/combine",
        params: &CombineParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/target_attention/combine.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("split_tiles", "vec4<u32>"),
            Slot::read("partial", Format::f32(columns.is_multiple_of(4))),
            Slot::write("out", "f32"),
            Slot::write("lse_bits", "u32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    vec![combine_kernel(1), combine_kernel(4)]
}

/// Sizes of the results to be combined.
pub(in crate::webgpu) struct Combine {
    pub(in crate::webgpu) kv_heads: usize,
    pub(in crate::webgpu) group_heads: usize,
    pub(in crate::webgpu) value_width: usize,
    pub(in crate::webgpu) first_column: usize,
    pub(in crate::webgpu) value_columns: usize,
    /// The start of the softmax states in the partial results.
    pub(in crate::webgpu) first_stats: u32,
    pub(in crate::webgpu) tile_rows: usize,
    pub(in crate::webgpu) weighting: u32,
    pub(in crate::webgpu) has_lse: bool,
}

impl Combine {
    /// Combines the results of so many tiles, listed as those of a plan.
    pub(in crate::webgpu) fn run(
        &self,
        gpu: &Wgpu,
        operation: &'static str,
        (tiles, count): (&Binding, usize),
        partial: &Binding,
        out: &Binding,
        lse: &Binding,
    ) -> Result<()> {
        let params = CombineParams {
            kv_heads: self.kv_heads as u32,
            group_heads: self.group_heads as u32,
            value_width: self.value_width as u32,
            first_column: self.first_column as u32,
            value_columns: self.value_columns as u32,
            out_base: out.base,
            lse_base: lse.base,
            first_stats: self.first_stats,
            tile: self.tile_rows as u32,
            weighting: self.weighting,
            has_lse: u32::from(self.has_lse),
        };
        let rows = count * self.kv_heads * self.tile_rows;
        let groups = groups_of(rows * self.value_columns.div_ceil(4));
        let bindings = [tiles, partial, out, lse];
        gpu.dispatch(operation, &combine_kernel(self.value_columns), &params, &bindings, groups)
    }
}
