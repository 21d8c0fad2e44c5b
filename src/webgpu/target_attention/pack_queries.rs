//! Packs queries as target_attention/score_dot.wgsl reads them.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::webgpu::batch::DevicePlan;
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::memory::Region;
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;

params! {
    /// Twin of the struct in shaders/target_attention/pack_queries.wgsl.
    struct PackQueriesParams {
        threads: u32,
        kv_heads: u32,
        group_heads: u32,
        width: u32,
        queries_base: u32,
        scale: f32,
        tile: u32,
    }
}

fn pack_kernel(queries: Format) -> Kernel {
    Kernel {
        name: "target_attention/pack_queries",
        params: &PackQueriesParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/target_attention/pack_queries.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("tiles", "vec4<u32>"),
            Slot::read("queries", queries),
            Slot::write("packed", "vec4<f32>"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    Format::ALL.map(pack_kernel).to_vec()
}

/// The packed queries. The sizes are heads, key/value heads, width, and rows of a tile.
pub(super) fn pack_queries<Q: Element>(
    gpu: &Wgpu,
    operation: &'static str,
    plan: &DevicePlan,
    sizes: [usize; 4],
    scale: f32,
    queries: Region<'_, Q>,
) -> Result<Binding> {
    let tiles = (&plan.tiles, plan.plan.tiles.len());
    let packed = gpu.scratch(operation, packed_vec4s(tiles.1, sizes) as u64 * 4)?;
    pack_rows(gpu, (operation, "queries"), tiles, sizes, scale, queries, &packed)?;
    Ok(packed)
}

/// The vec4s of the packed rows of so many tiles.
pub(super) fn packed_vec4s(tiles: usize, [_, kv_heads, width, tile]: [usize; 4]) -> usize {
    tiles * kv_heads * width.div_ceil(4) * tile
}

/// Packs the rows of an argument of an operation, times `scale`, into `packed`.
pub(super) fn pack_rows<Q: Element>(
    gpu: &Wgpu,
    (operation, argument): (&'static str, &'static str),
    (tiles, count): (&Binding, usize),
    sizes: [usize; 4],
    scale: f32,
    rows: Region<'_, Q>,
    packed: &Binding,
) -> Result<()> {
    let [heads, kv_heads, width, tile] = sizes;
    let rows = gpu.bind(operation, argument, &rows)?;
    let threads = packed_vec4s(count, sizes);
    let params = PackQueriesParams {
        threads: fit(operation, argument, threads)?,
        kv_heads: kv_heads as u32,
        group_heads: (heads / kv_heads) as u32,
        width: width as u32,
        queries_base: rows.base,
        scale,
        tile: tile as u32,
    };
    let kernel = pack_kernel(rows.format_of_rows::<Q>(width));
    gpu.dispatch(operation, &kernel, &params, &[tiles, &rows, packed], groups_of(threads))
}
