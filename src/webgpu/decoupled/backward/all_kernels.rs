//! The kernels of gradients over all behaviours.

use crate::webgpu::launch::THREADS;
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Kernel, Slot};

/// Threads of a workgroup that takes a tile or a span.
const TILE_THREADS: u32 = 128;

params! {
    /// Twin of the struct in shaders/decoupled/all_states.wgsl.
    pub(super) struct AllStatesParams {
        tiles: u32,
        first_tile: u32,
        attention_width: u32,
        representation_width: u32,
        grads_base: u32,
        has_values: u32,
        first_behaviour: u32,
        score_factor: f32,
    }
}

params! {
    /// Twin of the struct in shaders/decoupled/all_merge_states.wgsl.
    pub(super) struct AllMergeStatesParams {
        merges: u32,
        first_merge: u32,
    }
}

params! {
    /// Twin of the struct in shaders/decoupled/all_pairs.wgsl.
    pub(super) struct AllPairsParams {
        tiles: u32,
        first_tile: u32,
        attention_width: u32,
        representation_width: u32,
        grads_base: u32,
        has_values: u32,
        score_factor: f32,
    }
}

params! {
    /// Twin of the struct in shaders/decoupled/all_behaviours.wgsl.
    pub(super) struct AllBehavioursParams {
        blocks: u32,
        first_span: u32,
        column_blocks: u32,
        width: u32,
        rows_base: u32,
        out_row: u32,
        factor: u32,
        first_target: u32,
        end_target: u32,
    }
}

params! {
    /// Twin of the struct in shaders/decoupled/all_candidates.wgsl.
    pub(super) struct AllCandidatesParams {
        blocks: u32,
        first_tile: u32,
        column_blocks: u32,
        width: u32,
        factor: u32,
    }
}

params! {
    /// Twin of the struct in shaders/decoupled/all_merge_sums.wgsl.
    pub(super) struct AllMergeSumsParams {
        threads: u32,
        first_merge: u32,
        width: u32,
    }
}

params! {
    /// Twin of the struct in shaders/decoupled/all_ids.wgsl.
    pub(super) struct AllIdsParams {
        behaviours: u32,
        threads: u32,
        features: u32,
        ids_base: u32,
        target_ids_base: u32,
    }
}

params! {
    /// Twin of the struct in shaders/decoupled/add_rows.wgsl.
    pub(super) struct AddRowsParams {
        threads: u32,
        width: u32,
        out_base: u32,
        dense: u32,
        is_clear: u32,
    }
}

pub(super) fn states_kernel() -> Kernel {
    Kernel {
        name: "decoupled/all_states",
        params: &AllStatesParams::BLOCK,
        threads: TILE_THREADS,
        sources: &[
            include_str!("../../../../shaders/decoupled/all_chunks.wgsl"),
            include_str!("../../../../shaders/decoupled/all_scores.wgsl"),
            include_str!("../../../../shaders/decoupled/all_merged.wgsl"),
            include_str!("../../../../shaders/decoupled/all_states.wgsl"),
        ],
        constants: vec![],
        slots: vec![
            Slot::plain("spans", "vec4<u32>"),
            Slot::plain("tiles", "vec2<u32>"),
            Slot::plain("queries", "f32"),
            Slot::plain("grads", "f32"),
            Slot::plain("keys", "f32"),
            Slot::plain("values", "f32"),
            Slot::write("partial", "vec4<f32>"),
            Slot::write("kept", "atomic<u32>"),
        ],
    }
}

pub(super) fn merge_states_kernel() -> Kernel {
    Kernel {
        name: "decoupled/all_merge_states",
        params: &AllMergeStatesParams::BLOCK,
        threads: THREADS,
        sources: &[
            include_str!("../../../../shaders/decoupled/all_merged.wgsl"),
            include_str!("../../../../shaders/decoupled/all_merge_states.wgsl"),
        ],
        constants: vec![],
        slots: vec![
            Slot::plain("merges", "vec2<u32>"),
            Slot::plain("partial", "vec4<f32>"),
            Slot::write("states", "vec4<f32>"),
        ],
    }
}

pub(super) fn pairs_kernel() -> Kernel {
    Kernel {
        name: "decoupled/all_pairs",
        params: &AllPairsParams::BLOCK,
        threads: TILE_THREADS,
        sources: &[
            include_str!("../../../../shaders/decoupled/all_chunks.wgsl"),
            include_str!("../../../../shaders/decoupled/all_scores.wgsl"),
            include_str!("../../../../shaders/decoupled/all_pairs.wgsl"),
        ],
        constants: vec![],
        slots: vec![
            Slot::plain("spans", "vec4<u32>"),
            Slot::plain("tiles", "vec2<u32>"),
            Slot::plain("queries", "f32"),
            Slot::plain("grads", "f32"),
            Slot::plain("keys", "f32"),
            Slot::plain("values", "f32"),
            Slot::plain("states", "vec4<f32>"),
            Slot::write("pairs", "vec2<f32>"),
        ],
    }
}

pub(super) fn behaviours_kernel() -> Kernel {
    Kernel {
        name: "decoupled/all_behaviours",
        params: &AllBehavioursParams::BLOCK,
        threads: TILE_THREADS,
        sources: &[
            include_str!("../../../../shaders/decoupled/all_chunks.wgsl"),
            include_str!("../../../../shaders/decoupled/all_behaviours.wgsl"),
        ],
        constants: vec![],
        slots: vec![
            Slot::plain("spans", "vec4<u32>"),
            Slot::plain("pairs", "vec2<f32>"),
            Slot::plain("rows", "f32"),
            Slot::write("out", "f32"),
        ],
    }
}

pub(super) fn candidates_kernel() -> Kernel {
    Kernel {
        name: "decoupled/all_candidates",
        params: &AllCandidatesParams::BLOCK,
        threads: TILE_THREADS,
        sources: &[
            include_str!("../../../../shaders/decoupled/all_chunks.wgsl"),
            include_str!("../../../../shaders/decoupled/all_candidates.wgsl"),
        ],
        constants: vec![],
        slots: vec![
            Slot::plain("spans", "vec4<u32>"),
            Slot::plain("tiles", "vec2<u32>"),
            Slot::plain("pairs", "vec2<f32>"),
            Slot::plain("rows", "f32"),
            Slot::write("partial", "f32"),
        ],
    }
}

pub(super) fn merge_sums_kernel() -> Kernel {
    Kernel {
        name: "decoupled/all_merge_sums",
        params: &AllMergeSumsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../../shaders/decoupled/all_merge_sums.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("merges", "vec2<u32>"),
            Slot::plain("partial", "f32"),
            Slot::write("out", "f32"),
        ],
    }
}

pub(super) fn ids_kernel() -> Kernel {
    Kernel {
        name: "decoupled/all_ids",
        params: &AllIdsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../../shaders/decoupled/all_ids.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("kept", "u32"),
            Slot::plain("states", "vec4<f32>"),
            Slot::plain("ids", "u32"),
            Slot::plain("target_ids", "u32"),
            Slot::write("behaviour_ids", "u32"),
            Slot::write("candidate_ids", "u32"),
        ],
    }
}

pub(super) fn add_rows_kernel() -> Kernel {
    Kernel {
        name: "decoupled/add_rows",
        params: &AddRowsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../../shaders/decoupled/add_rows.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("rows", "f32"),
            Slot::plain("ids", "u32"),
            Slot::plain("count", "u32"),
            Slot::plain("out_ids", "u32"),
            Slot::plain("out_count", "u32"),
            Slot::write("out", "f32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    vec![
        states_kernel(),
        merge_states_kernel(),
        pairs_kernel(),
        behaviours_kernel(),
        candidates_kernel(),
        merge_sums_kernel(),
        ids_kernel(),
        add_rows_kernel(),
    ]
}
