//! Gradients of SDIM on `wgpu`: shaders that are wrong on purpose.

use longseq_check::data::Data;
use longseq_check::sdim::{SdimBackwardCase, SdimCase};

use super::wrong_shaders::{Twin, twin};

fn gradients(forward: SdimCase) -> SdimBackwardCase {
    SdimBackwardCase { forward, ..Default::default() }
}

pub(super) fn twins() -> Vec<Twin> {
    let forward = SdimCase { histories: vec![200, 5], targets: vec![3, 9], ..Default::default() };
    let case = gradients(forward.clone());
    let plain = gradients(SdimCase { normalise: false, ..forward.clone() });
    let zeros = gradients(SdimCase { data: Data::Zeros, ..forward.clone() });
    let wide = gradients(SdimCase { width: 70, ..forward.clone() });
    // Tables that cost more than comparing candidates, and more than one block of signatures.
    let sparse = gradients(SdimCase { bits: 12, groups: 2, targets: vec![3, 1200], ..forward.clone() });
    // All signatures equal.
    let equal = SdimCase { data: Data::Same(1.0), histories: vec![9, 3], ..sparse.forward.clone() };
    let equal = SdimBackwardCase { hashed: true, ..gradients(equal) };
    let narrow = gradients(SdimCase { width: 5, ..forward });
    let buckets = "sdim/bucket_gradients";
    vec![
        // The projection dropped, or not divided by the length; the mean over the groups forgotten; the floor ignored.
        twin(&case, buckets, "let across = gradient - along;", "let across = gradient;"),
        twin(&case, buckets, "across / norm * scale", "across * scale"),
        twin(
            &plain,
            buckets,
            "gradient_at(row, column) / f32(params.hash_groups)",
            "gradient_at(row, column)",
        ),
        twin(&zeros, buckets, "norm < MIN_NORM * scale", "norm < 0.0"),
        // Columns past the threads of a row left out; a neighbour's row added.
        twin(&wide, buckets, "squares = sum_over_row(vec2<f32>(squares, 0.0), thread).x;", "squares += 0.0;"),
        twin(&narrow, buckets, "return parts[thread - own];", "return parts[0];"),
        twin(&case, buckets, "row < params.rows, thread", "row + 1u < params.rows, thread"),
        twin(
            &sparse,
            "sdim/target_gradients",
            "row / params.hash_groups * params.width",
            "row * params.width",
        ),
        twin(&sparse, "sdim/target_gradients", "let across = gradient - along;", "let across = gradient;"),
        // The table of the first user for all; the last group left out; the row before.
        twin(&case, "sdim/gather", "user_of(row) * params.hash_groups", "0u"),
        twin(&case, "sdim/gather", "g < params.hash_groups; g++", "g + 1u < params.hash_groups; g++"),
        twin(&case, "sdim/gather", "offsets[middle] <= row", "offsets[middle] < row"),
        // Half of the signatures, the last block, another group's signature.
        twin(&equal, "sdim/match", "bit < 32u", "bit < 16u"),
        twin(&equal, "sdim/match", "sum += block;", "sum = block;"),
        twin(&sparse, "sdim/match", "own_codes + at % params.hash_groups", "own_codes"),
        twin(&equal, "sdim/match", "if at < end {", "if at + 1u < end {"),
    ]
}

#[test]
fn wrong_gradients_of_sdim_are_caught() {
    twins().iter().for_each(Twin::assert_caught);
}
