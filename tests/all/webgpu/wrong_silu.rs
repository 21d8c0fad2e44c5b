//! Shaders of target attention that divide SiLU by the wrong length, on purpose.

use longseq::{SiluDivisor, Weighting};
use longseq_check::target_attention::{AttentionBackwardCase, AttentionCase};

use super::wrong_shaders::{Twin, twin};

/// Several users, one of whose histories takes several pieces.
fn case() -> AttentionCase {
    let weighting = Weighting::Silu { divisor: SiluDivisor::HistoryLength };
    AttentionCase { weighting, histories: vec![70, 3000, 9], targets: vec![3, 9, 2], ..Default::default() }
}

#[test]
fn wrong_lengths_are_caught() {
    let (forward, kernel) = (case(), "target_attention/attend");
    let twins = [
        // The length of the piece; a divisor of 0.
        twin(&forward, kernel, "f32(span.w)", "f32(span.y - span.x)"),
        twin(&forward, kernel, "bitcast<u32>(params.divisor) == 0u", "false"),
    ];
    Twin::assert_caught(&twins);
}

#[test]
fn wrong_lengths_in_gradients_are_caught() {
    let backward = AttentionBackwardCase { forward: case(), ..Default::default() };
    let kernel = "target_attention/backward";
    let twins = [
        twin(&backward, kernel, "f32(pieces[3u * piece + 2u].x)", "f32(span.y - span.x)"),
        twin(&backward, kernel, "bitcast<u32>(params.divisor) == 0u", "false"),
        twin(&backward, kernel, "slope / silu_divisor", "slope"),
    ];
    Twin::assert_caught(&twins);
}
