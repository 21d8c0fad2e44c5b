//! Packs the candidates' rows for the search.

use crate::webgpu::launch::THREADS;
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::tables::table_formats;

params! {
    /// Twin of the struct in shaders/decoupled/search_queries.wgsl.
    pub(super) struct SearchQueriesParams {
        threads: u32,
        ids_base: u32,
        features: u32,
        feature: u32,
        table_rows: u32,
        width: u32,
        table_base: u32,
        scale_base: u32,
        offset_base: u32,
        factor: f32,
        width4: u32,
        first4: u32,
        tile_rows: u32,
        check_ids: u32,
    }
}

pub(super) fn queries_kernel(table: Format, int8: bool) -> Kernel {
    Kernel {
        name: "decoupled/search_queries",
        params: &SearchQueriesParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/decoupled/search_queries.wgsl")],
        constants: vec![("INT8", u32::from(int8))],
        slots: vec![
            Slot::plain("tiles", "vec4<u32>"),
            Slot::plain("ids", "u32"),
            Slot::read("table_data", table),
            Slot::plain("scale", "f32"),
            Slot::plain("offset", "f32"),
            Slot::write("packed", "vec4<f32>"),
            Slot::write("report", "atomic<u32>"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    table_formats().map(|(format, int8)| queries_kernel(format, int8)).collect()
}
