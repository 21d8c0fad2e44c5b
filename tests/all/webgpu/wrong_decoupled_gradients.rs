//! Shaders of the gradients of decoupled embeddings that are wrong on purpose.

use longseq::Wgpu;
use longseq_check::decoupled::{
    DecoupledBackwardCase, DecoupledCase, Scores, check_overflowing_scores, check_scales_near_the_limits,
};
use longseq_check::device::TestDevice;
use longseq_check::lookup::Form;

use super::wrong_shaders::{Twin, twin, twin_that};

fn gradients(forward: DecoupledCase) -> DecoupledBackwardCase {
    DecoupledBackwardCase { forward, ..Default::default() }
}

/// More than a span of behaviours, and more than a tile of candidates.
fn plain() -> DecoupledCase {
    DecoupledCase {
        histories: vec![300, 0, 40],
        targets: vec![3, 1, 20],
        table_rows: vec![200, 5],
        attention_widths: vec![16, 3],
        representation_widths: vec![36, 5],
        top_k: 20,
        multiply_target: true,
        ..Default::default()
    }
}

/// Scores of -∞.
fn removed() -> DecoupledBackwardCase {
    gradients(DecoupledCase {
        scores: Some(Scores::Some(f32::NEG_INFINITY)),
        histories: vec![300, 40],
        targets: vec![2, 20],
        table_rows: vec![301],
        attention_widths: vec![1],
        representation_widths: vec![4],
        ..plain()
    })
}

/// More behaviours than are held at a time.
fn cut() -> DecoupledBackwardCase {
    let forward = DecoupledCase {
        histories: vec![66_000],
        targets: vec![1],
        table_rows: vec![40],
        attention_widths: vec![1],
        representation_widths: vec![2],
        ..plain()
    };
    DecoupledBackwardCase { forms: vec![Form::Sparse, Form::Dense], ..gradients(forward) }
}

pub(super) fn twins() -> Vec<Twin> {
    [from_a_selection(), over_all()].into_iter().flatten().collect()
}

fn from_a_selection() -> Vec<Twin> {
    let plain = gradients(plain());
    let of =
        |kernel: &'static str, right: &'static str, wrong: &'static str| twin(&plain, kernel, right, wrong);
    vec![
        of("decoupled/kept_numbers", "numbers[params.numbers_base + slot]", "kept[slot].x"),
        // The feature before; candidates that keep nothing kept.
        of("decoupled/kept_ids", "index % params.features];", "0u];"),
        twin(&removed(), "decoupled/kept_candidates", "select(0u, 1u, ", "select(1u, 0u, "),
        // The candidate's own row taken for what its slots multiply.
        of("decoupled/kept_bags", "params.candidates + index,", "index,"),
        of("decoupled/kept_bags", "slot / params.top_k", "slot % params.top_k"),
        // Large scales left out.
        twin_that(
            |gpu| check_scales_near_the_limits(gpu, gpu.rules()),
            "decoupled/kept_bags",
            "(bitcast<f32>(kept[slot].x) * params.factor)",
            "(bitcast<f32>(kept[slot].x))",
        ),
        // Features not added up; a lane left out.
        of("decoupled/kept_dots", "sum += dots[slot];", ""),
        of("decoupled/kept_dots", "other < 16u", "other < 8u"),
        of("decoupled/score_gradients", "- mean)", "+ mean)"),
        of("decoupled/scale_rows", "= row * params.scale;", "= 1.5 * row * params.scale;"),
    ]
}

fn over_all() -> Vec<Twin> {
    let (plain, removed, cut) = (gradients(plain()), removed(), cut());
    let of =
        |kernel: &'static str, right: &'static str, wrong: &'static str| twin(&plain, kernel, right, wrong);
    vec![
        // Lanes left out; older sums not rescaled; nothing kept.
        of("decoupled/all_states", "other < LANES", "other < 8u"),
        of("decoupled/all_states", "var sum = before.y * factor;", "var sum = before.y;"),
        of("decoupled/all_states", "span.x + own_rows[l]], 1u", "span.x + own_rows[l]], 0u"),
        of("decoupled/all_merge_states", "state = merged(state, ", "state = merged(state, 0.5 * "),
        // The mean left out; one removed behaviour kept.
        of("decoupled/all_pairs", " - vec4<f32>(state.z / state.y)", ""),
        twin(&removed, "decoupled/all_pairs", "vec2<f32>(REMOVED, 0.0)", "vec2<f32>(0.0, 0.0)"),
        // Large scales left out.
        twin_that(
            |gpu| check_scales_near_the_limits(gpu, gpu.rules()),
            "decoupled/all_states",
            "sums[1] *= params.score_factor;",
            "",
        ),
        twin_that(
            |gpu| check_scales_near_the_limits(gpu, gpu.rules()),
            "decoupled/all_pairs",
            "params.score_factor * (weights",
            "(weights",
        ),
        // Candidates of a later tile overwrite; weights for gradients.
        of("decoupled/all_behaviours", "sums[l] += some[l];", "sums[l] = some[l];"),
        of("decoupled/all_behaviours", "pair[params.factor]", "pair.x"),
        twin_that(check_overflowing_scores::<Wgpu>, "decoupled/all_behaviours", "!= REMOVED_BITS", "!= NONE"),
        of("decoupled/all_candidates", "sums[0] += some[0];", "sums[0] = some[0];"),
        of("decoupled/all_candidates", "pair *= 0.5;", ""),
        twin(&removed, "decoupled/all_candidates", "!= REMOVED_BITS", "!= NONE"),
        of("decoupled/all_merge_sums", "sum += partial", "sum = partial"),
        of("decoupled/all_ids", "kept[index / params.features] == 1u", "kept[index / params.features] == 0u"),
        // The last part alone; the id before.
        twin(&cut, "decoupled/add_rows", "out[place] += rows[index];", "out[place] = rows[index];"),
        twin(&cut, "decoupled/add_rows", "out_ids[middle] <= id", "out_ids[middle] < id"),
    ]
}

#[test]
fn wrong_gradients_of_decoupled_embeddings_are_caught() {
    Twin::assert_caught(&twins());
}
