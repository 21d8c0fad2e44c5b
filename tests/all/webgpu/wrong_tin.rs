//! Shaders of TIN that are wrong on purpose. Those that attend are target attention's, with the rows of `shaders/tin/rows.wgsl`.

use longseq_check::device::TestDevice;
use longseq_check::tin::{TinBackwardCase, TinCase, check_equal_large_scores, check_sums_by_position};

use super::wrong_shaders::{Twin, twin, twin_that};

/// Several users, more than a piece of behaviours, and more than a tile of candidates.
fn counted() -> TinCase {
    TinCase { histories: vec![70, 3000, 9], targets: vec![3, 9, 2], ..Default::default() }
}

fn given() -> TinCase {
    TinCase { histories: vec![70, 40], targets: vec![3, 9], given: [true; 2], ..counted() }
}

fn gradients(forward: TinCase) -> TinBackwardCase {
    TinBackwardCase { forward, ..Default::default() }
}

pub(super) fn twins() -> Vec<Twin> {
    [forward(), backward()].into_iter().flatten().collect()
}

fn forward() -> Vec<Twin> {
    let (counted, given) = (counted(), given());
    let plain = TinCase { multiply_target: false, ..counted.clone() };
    let attend = "target_attention/attend";
    vec![
        // Counted from the oldest behaviour, from the end of the first user's history, or one too few; the position of another behaviour.
        twin(&counted, attend, "places[8u * tile + 7u] - (", "1u + ("),
        twin(&counted, attend, "places[8u * tile + 7u]", "places[7u]"),
        twin(&counted, attend, "(params.first_history + row)", "(params.first_history + row + 1u)"),
        twin(&given, attend, "params.bias_base + row]", "params.bias_base + (row ^ 1u)]"),
        // Positions of keys alone; positions subtracted.
        twin(
            &counted,
            attend,
            "return key_vec4(place, column, left);",
            "return keys_vec4(place.x + column, left);",
        ),
        twin(&counted, attend, "+ positions_vec4(", "- positions_vec4("),
        // Candidates without a position, or with that of another.
        twin(&counted, "tin/targets", "index) + added;", "index);"),
        twin(&given, "tin/targets", "params.places_base + index / params.width", "params.places_base"),
        // The product with the candidate forgotten, or made where it is not asked for.
        twin(&counted, "tin/multiply", "product *= b_at", "product += b_at"),
        twin(&plain, "tin/multiply", "if params.multiplies == 1u {", "if params.multiplies < 2u {"),
    ]
}

fn backward() -> Vec<Twin> {
    let given = gradients(given());
    let counted = gradients(TinCase { histories: vec![70, 600, 9], ..counted() });
    let kernel = "target_attention/backward";
    let of_sums = |right: &'static str, wrong: &'static str| {
        twin_that(|gpu| check_sums_by_position(gpu, gpu.rules()), "tin/count_positions", right, wrong)
    };
    vec![
        // Positions counted from the end of another user's history; those of another behaviour; of keys alone.
        twin(&counted, kernel, "place.user_tile = user.y;", "place.user_tile = 0u;"),
        twin(&given, kernel, "params.bias_base + row]", "params.bias_base + (row ^ 1u)]"),
        twin(
            &counted,
            kernel,
            "return key_vec4(place, column, left);",
            "return keys_vec4(place.x + column, left);",
        ),
        twin_that(
            |gpu| check_equal_large_scores(gpu, gpu.rules()),
            "target_attention/backward_states",
            "+ positions_vec4(",
            "- positions_vec4(",
        ),
        // The gradients of candidates overwritten, or without what attention gives.
        twin(&counted, "tin/multiply", "product += out[", "product = out["),
        twin(&counted, "tin/multiply", "if params.adds == 1u {", "if params.adds == 2u {"),
        // Sums of the position before; positions past the table.
        of_sums("+ 1u] - row, ", "+ 1u] - row - 1u, "),
        of_sums(
            "min(offsets[bag_of(row) + 1u] - row, params.last_position)",
            "offsets[bag_of(row) + 1u] - row",
        ),
    ]
}

#[test]
fn wrong_tin_is_caught() {
    Twin::assert_caught(&forward());
}

#[test]
fn wrong_gradients_of_tin_are_caught() {
    Twin::assert_caught(&backward());
}
