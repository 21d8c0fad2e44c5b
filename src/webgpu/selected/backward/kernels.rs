//! The kernels of gradients of attention over a selection.

use crate::webgpu::launch::THREADS;
use crate::webgpu::params::{Params, params};
use crate::webgpu::selected::inputs::{PARTS, REDUCE, SCORES, formats};
use crate::webgpu::selected::parts::SLOTS;
use crate::webgpu::shader::{Format, Kernel, Slot};

params! {
    /// Twin of the struct in shaders/selected/backward_scores.wgsl.
    pub(super) struct SelectedScoresParams {
        heads: u32,
        kv_heads: u32,
        top_k: u32,
        parts: u32,
        part: u32,
        width: u32,
        key_lanes: u32,
        value_width: u32,
        value_lanes: u32,
        queries_base: u32,
        keys_base: u32,
        values_base: u32,
        bias_base: u32,
        gammas_base: u32,
        grad_out_base: u32,
        has_bias: u32,
        has_gammas: u32,
        wants_scores: u32,
        wants_products: u32,
        scale: f32,
    }
}

params! {
    /// Twin of the struct in shaders/selected/backward_weights.wgsl.
    pub(super) struct SelectedWeightsParams {
        heads: u32,
        top_k: u32,
        gammas_base: u32,
        grad_lse_base: u32,
        first_weight: u32,
        first_grad: u32,
        first_similarity: u32,
        first_gamma_part: u32,
        has_gammas: u32,
        has_grad_lse: u32,
        wants_similarities: u32,
        wants_gammas: u32,
    }
}

params! {
    /// Twin of the struct in shaders/selected/sum_heads.wgsl.
    pub(super) struct SumHeadsParams {
        slots: u32,
        heads: u32,
        first_similarity: u32,
        out_base: u32,
    }
}

pub(super) fn scores_kernel([queries, rows]: [Format; 2], slots: usize) -> Kernel {
    Kernel {
        name: "selected/backward_scores",
        params: &SelectedScoresParams::BLOCK,
        threads: THREADS,
        sources: &[PARTS, SCORES, include_str!("../../../../shaders/selected/backward_scores.wgsl")],
        constants: vec![("SLOTS", slots as u32)],
        slots: vec![
            Slot::plain("kept", "vec2<u32>"),
            Slot::read("queries", queries),
            Slot::read("keys", rows),
            Slot::read("values", rows),
            Slot::plain("bias", "f32"),
            Slot::plain("gammas", "f32"),
            Slot::read("grad_out", queries),
            Slot::write("pairs", "vec4<f32>"),
        ],
    }
}

pub(super) fn weights_kernel() -> Kernel {
    Kernel {
        name: "selected/backward_weights",
        params: &SelectedWeightsParams::BLOCK,
        threads: THREADS,
        sources: &[REDUCE, include_str!("../../../../shaders/selected/backward_weights.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("kept", "vec2<u32>"),
            Slot::plain("pairs", "vec4<f32>"),
            Slot::plain("gammas", "f32"),
            Slot::plain("grad_lse", "f32"),
            Slot::write("numbers", "u32"),
            Slot::write("gamma_parts", "f32"),
        ],
    }
}

pub(super) fn heads_kernel() -> Kernel {
    Kernel {
        name: "selected/sum_heads",
        params: &SumHeadsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../../shaders/selected/sum_heads.wgsl")],
        constants: vec![],
        slots: vec![Slot::plain("numbers", "u32"), Slot::write("out", "f32")],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let rows = formats().flat_map(|formats| SLOTS.map(|slots| scores_kernel(formats, slots)));
    rows.chain([weights_kernel(), heads_kernel()]).collect()
}
