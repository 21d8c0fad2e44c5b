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
    [heads, kv_heads, width, tile]: [usize; 4],
    scale: f32,
    queries: Region<'_, Q>,
) -> Result<Binding> {
    let queries = gpu.bind(operation, "queries", &queries)?;
    let threads = plan.plan.tiles.len() * kv_heads * width.div_ceil(4) * tile;
    let packed = gpu.scratch(operation, threads as u64 * 4)?;
    let params = PackQueriesParams {
        threads: fit(operation, "queries", threads)?,
        kv_heads: kv_heads as u32,
        group_heads: (heads / kv_heads) as u32,
        width: width as u32,
        queries_base: queries.base,
        scale,
        tile: tile as u32,
    };
    let kernel = pack_kernel(queries.format_of_rows::<Q>(width));
    let bindings = [&plan.tiles, &queries, &packed];
    gpu.dispatch(operation, &kernel, &params, &bindings, groups_of(threads))?;
    Ok(packed)
}
