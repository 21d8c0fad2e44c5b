//! Gradients of DIN on `wgpu`: shaders that are wrong on purpose.

use longseq::DinPooling;
use longseq_check::din::{DinBackwardCase, DinCase, Kind, StatisticsCase};

use super::wrong_shaders::{Twin, twin};

fn gradients(forward: DinCase) -> DinBackwardCase {
    DinBackwardCase { forward, ..Default::default() }
}

pub(super) fn twins() -> Vec<Twin> {
    let forward = DinCase {
        histories: vec![300, 0, 40],
        targets: vec![3, 1, 9],
        hidden: vec![20, 12],
        ..Default::default()
    };
    let case = gradients(forward.clone());
    let softmax = gradients(DinCase { pooling: DinPooling::Softmax, ..forward.clone() });
    let dice = gradients(DinCase { activation: Kind::Dice, ..forward.clone() });
    let shared = gradients(DinCase { activation: Kind::PreluShared, ..forward.clone() });
    let statistics =
        StatisticsCase { forward: DinCase { histories: vec![300, 90], targets: vec![3, 9], ..forward } };
    // More runs than there are sets of sums.
    let many = gradients(DinCase { histories: vec![20, 9], targets: vec![60, 70], ..DinCase::default() });
    let (pairs, outer) = ("din/backward_pairs", "din/backward_outer");
    vec![
        // The difference left out of the query's weights; a bias of the other sign.
        twin(&case, "din/backward_fold", "query = weight_at(place) + difference", "query = weight_at(place)"),
        twin(&case, "din/backward_fold", "values[0] = bias[", "values[0] = -bias["),
        twin(&case, "din/backward_candidates", "result += targets_at", "result -= targets_at"),
        // A behaviour past the end, the first candidate for all, slopes and sums of other units, weights of another layer.
        twin(&softmax, pairs, "present = row < vec4<u32>(rows)", "present = row <= vec4<u32>(rows)"),
        twin(&case, pairs, "piece.z + own / tiles_per_run(piece)", "piece.z"),
        twin(&dice, pairs, "thread - quad + other][quad]", "thread - quad + other].x"),
        twin(&case, pairs, "let weights = next.z + 4u * units4 * next_place.w;", "let weights = next.z;"),
        twin(&softmax, pairs, "grad_weight - state.z / state.y", "grad_weight"),
        twin(&dice, pairs, "slope = p + alpha * rest + y * r * gain", "slope = p + alpha * rest"),
        twin(&statistics, pairs, "mean[i] /= f32(rows)", "mean[i] /= 16.0"),
        // States of one part instead of all; not relative to the same maximum.
        twin(&softmax, "din/backward_states", "i < user.y; i++", "i < 1u; i++"),
        twin(&softmax, "din/backward_states", "exp_of(score - shift)", "exp_of(score)"),
        // Another candidate's row; the newest run instead of the sum; a tile left out; units of another group.
        twin(&case, outer, "let m = piece.z + item - places[RUN];", "let m = piece.z;"),
        twin(&many, outer, "of_behaviours[a] += sums.outer[a];", "of_behaviours[a] = sums.outer[a];"),
        twin(&case, outer, "of_behaviours += sums.outer;", "of_behaviours = sums.outer;"),
        twin(&case, outer, "tile < first_tile + tiles; tile++", "tile < first_tile + 1u; tile++"),
        twin(&case, outer, "other < 64u; other += 8u", "other < 56u; other += 8u"),
        // Weighted gradients forgotten; one candidate too few; the product with the candidate forgotten.
        twin(&case, "din/backward_history", "own[i] + weight[i] * grad_out", "own[i]"),
        twin(&case, "din/backward_history", "m < piece.w; m++", "m + 1u < piece.w; m++"),
        twin(
            &case,
            "din/backward_history",
            "q * network[params.products + at]",
            "network[params.products + at]",
        ),
        twin(&case, "din/backward_targets", "i < user.y; i++", "i < 1u; i++"),
        twin(&case, "din/backward_sums", "sum += parts[", "sum = parts["),
        twin(&statistics, "din/backward_moments", "distance * distance * (a.count * share)", "vec4<f32>()"),
        twin(&case, "din/backward_write", "value = query - key;", "value = query;"),
        twin(
            &shared,
            "din/backward_write",
            "value += sums[params.first + i];",
            "value = sums[params.first + i];",
        ),
    ]
}

#[test]
fn wrong_gradients_of_din_are_caught() {
    Twin::assert_caught(&twins());
}
