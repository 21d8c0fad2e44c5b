//! The kernels of gradients from a selection, and of both ways.

use crate::webgpu::launch::THREADS;
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::tables::table_formats;

params! {
    /// Twin of the struct in shaders/decoupled/kept_numbers.wgsl.
    pub(super) struct KeptNumbersParams {
        slots: u32,
        numbers_base: u32,
    }
}

params! {
    /// Twin of the struct in shaders/decoupled/kept_ids.wgsl.
    pub(super) struct KeptIdsParams {
        threads: u32,
        features: u32,
        ids_base: u32,
    }
}

params! {
    /// Twin of the struct in shaders/decoupled/kept_candidates.wgsl.
    pub(super) struct KeptCandidatesParams {
        candidates: u32,
        top_k: u32,
        features: u32,
        target_ids_base: u32,
    }
}

params! {
    /// Twin of the struct in shaders/decoupled/kept_bags.wgsl.
    pub(super) struct KeptBagsParams {
        threads: u32,
        candidates: u32,
        top_k: u32,
        factor: f32,
    }
}

params! {
    /// Twin of the struct in shaders/decoupled/kept_dots.wgsl.
    pub(super) struct KeptDotsParams {
        slots: u32,
        top_k: u32,
        ids_base: u32,
        features: u32,
        feature: u32,
        table_rows: u32,
        width: u32,
        table_base: u32,
        scale_base: u32,
        offset_base: u32,
        grad_base: u32,
        grad_width: u32,
        first_column: u32,
    }
}

params! {
    /// Twin of the struct in shaders/decoupled/score_gradients.wgsl.
    pub(super) struct ScoreGradientsParams {
        candidates: u32,
        top_k: u32,
        scores_base: u32,
        has_scores: u32,
    }
}

params! {
    /// Twin of the struct in shaders/decoupled/scale_rows.wgsl.
    pub(super) struct ScaleRowsParams {
        threads: u32,
        base: u32,
        row_width: u32,
        first_column: u32,
        width: u32,
        has_factors: u32,
        factors_base: u32,
        scale: f32,
    }
}

pub(super) fn numbers_kernel() -> Kernel {
    Kernel {
        name: "decoupled/kept_numbers",
        params: &KeptNumbersParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../../shaders/decoupled/kept_numbers.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("kept", "vec2<u32>"),
            Slot::plain("numbers", "u32"),
            Slot::write("numbered", "vec2<u32>"),
        ],
    }
}

pub(super) fn ids_kernel() -> Kernel {
    Kernel {
        name: "decoupled/kept_ids",
        params: &KeptIdsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../../shaders/decoupled/kept_ids.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("kept", "vec2<u32>"),
            Slot::plain("ids", "u32"),
            Slot::write("slot_ids", "u32"),
        ],
    }
}

pub(super) fn candidates_kernel() -> Kernel {
    Kernel {
        name: "decoupled/kept_candidates",
        params: &KeptCandidatesParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../../shaders/decoupled/kept_candidates.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("kept", "vec2<u32>"),
            Slot::plain("target_ids", "u32"),
            Slot::write("candidate_ids", "u32"),
        ],
    }
}

pub(super) fn bags_kernel() -> Kernel {
    Kernel {
        name: "decoupled/kept_bags",
        params: &KeptBagsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../../shaders/decoupled/kept_bags.wgsl")],
        constants: vec![],
        slots: vec![Slot::plain("kept", "vec2<u32>"), Slot::write("bags", "vec2<u32>")],
    }
}

pub(super) fn dots_kernel(table: Format, int8: bool, grad: Format) -> Kernel {
    Kernel {
        name: "decoupled/kept_dots",
        params: &KeptDotsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../../shaders/decoupled/kept_dots.wgsl")],
        constants: vec![("INT8", u32::from(int8))],
        slots: vec![
            Slot::plain("kept", "vec2<u32>"),
            Slot::plain("ids", "u32"),
            Slot::read("table_data", table),
            Slot::plain("scale", "f32"),
            Slot::plain("offset", "f32"),
            Slot::read("grad", grad),
            Slot::write("dots", "f32"),
        ],
    }
}

pub(super) fn scores_kernel() -> Kernel {
    Kernel {
        name: "decoupled/score_gradients",
        params: &ScoreGradientsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../../shaders/decoupled/score_gradients.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("kept", "vec2<u32>"),
            Slot::plain("dots", "f32"),
            Slot::write("numbered", "vec2<u32>"),
            Slot::write("scores", "f32"),
        ],
    }
}

pub(super) fn scale_kernel() -> Kernel {
    Kernel {
        name: "decoupled/scale_rows",
        params: &ScaleRowsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../../shaders/decoupled/scale_rows.wgsl")],
        constants: vec![],
        slots: vec![Slot::plain("factors", "f32"), Slot::write("rows", "f32")],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let dots = table_formats().flat_map(|(format, int8)| {
        [true, false].map(|vectors| dots_kernel(format, int8, Format::f32(vectors)))
    });
    let others =
        [numbers_kernel(), ids_kernel(), candidates_kernel(), bags_kernel(), scores_kernel(), scale_kernel()];
    dots.chain(others).collect()
}
