//! Attention over a selection, its gradients, and histograms of similarities.

use longseq::*;

use super::{assert_error, batch};

static NUMBERS: [f32; 64] = [0.0; 64];
static PLACES: [u32; 8] = [0; 8];

/// Lengths of queries, keys, values, bias and γ (0: not given), positions, scores, counts; then of the output and `lse`.
const RIGHT: [usize; 10] = [8, 12, 12, 3, 3, 4, 4, 2, 8, 2];

/// Inputs for three behaviours and two candidates that keep two each.
fn inputs(lengths: [usize; 10]) -> SelectedAttentionInputs<'static, Host, f32> {
    let part = |length: usize| Host::view(&NUMBERS[..length]);
    let given = |length: usize| (length > 0).then(|| part(length));
    let places = |length: usize| Host::view(&PLACES[..length]);
    let kept = Selection::new(places(lengths[5]), part(lengths[6]), places(lengths[7]));
    let mut inputs = SelectedAttentionInputs::new(part(lengths[0]), part(lengths[1]), kept);
    (inputs.values, inputs.bias, inputs.gammas) = (given(lengths[2]), given(lengths[3]), given(lengths[4]));
    inputs
}

fn attention(op: &SelectedAttention, lengths: [usize; 10]) -> Result<()> {
    let (mut out, mut lse) = (vec![0.0; lengths[8]], vec![0.0; lengths[9]]);
    let outputs = SelectedAttentionOutputs::new(Host::view_mut(&mut out)).with_lse(Host::view_mut(&mut lse));
    Cpu::new().selected_attention_into(op, &batch(&[3], &[2]), inputs(lengths), outputs)
}

fn op() -> SelectedAttention {
    SelectedAttention::new(4).with_top_k(2)
}

#[test]
fn selected_attention_checks_its_parameters() {
    attention(&op(), RIGHT).expect("a valid call");
    for (op, expected) in [
        (op().with_heads(0, 1), "heads: expected at least 1, got 0"),
        (op().with_heads(1, 0), "kv_heads: expected at least 1, got 0"),
        (op().with_heads(3, 2), "kv_heads: expected a divisor of heads = 3, got 2"),
        (SelectedAttention::new(0), "width: expected at least 1, got 0"),
        (op().with_value_width(0), "value_width: expected at least 1, got 0"),
        (op().with_top_k(0), "top_k: expected at least 1, got 0"),
        (op().with_scale(f32::INFINITY), "scale: expected a finite number, got inf"),
    ] {
        assert_error(attention(&op, RIGHT), &format!("selected_attention: {expected}"));
    }
}

#[test]
fn selected_attention_checks_its_buffers() {
    for (place, length, expected) in [
        (0, 7, "queries: expected [M, H, d] = [2, 1, 4], 8 elements, got 7 elements"),
        (1, 13, "keys: expected [N, H_kv, d] = [3, 1, 4], 12 elements, got 13 elements"),
        (2, 11, "values: expected [N, H_kv, d_v] = [3, 1, 4], 12 elements, got 11 elements"),
        (3, 2, "bias: expected [N, H] = [3, 1], 3 elements, got 2 elements"),
        (4, 4, "gammas: expected [H, 3] = [1, 3], 3 elements, got 4 elements"),
        (5, 3, "positions: expected [M, K] = [2, 2], 4 elements, got 3 elements"),
        (6, 5, "scores: expected [M, K] = [2, 2], 4 elements, got 5 elements"),
        (7, 3, "counts: expected [M] = [2], 2 elements, got 3 elements"),
        (8, 9, "out: expected [M, H, d_v] = [2, 1, 4], 8 elements, got 9 elements"),
        (9, 1, "lse: expected [M, H] = [2, 1], 2 elements, got 1 elements"),
    ] {
        let mut lengths = RIGHT;
        lengths[place] = length;
        assert_error(attention(&op(), lengths), &format!("selected_attention: {expected}"));
    }
    assert_error(
        attention(&op().with_value_width(5), [8, 12, 0, 3, 3, 4, 4, 2, 10, 2]),
        "selected_attention: values: expected values of their own, as d_v = 5 is not d = 4, got none (the keys as values)",
    );
}

#[test]
fn selected_attention_checks_its_selection() {
    let run = |positions: [u32; 4], counts: [u32; 2]| {
        let (numbers, mut out) = ([0.0; 12], [0.0; 8]);
        let kept = Selection::new(Host::view(&positions), Host::view(&numbers[..4]), Host::view(&counts));
        let inputs = SelectedAttentionInputs::new(Host::view(&numbers[..8]), Host::view(&numbers), kept);
        let outputs = SelectedAttentionOutputs::new(Host::view_mut(&mut out));
        Cpu::new().selected_attention_into(&op(), &batch(&[3], &[2]), inputs, outputs)
    };
    run([0, 2, 1, 9], [2, 1]).expect("a valid call");
    assert_error(run([0, 2, 1, 3], [2, 2]), "selected_attention: positions[3] is 3, which must be below 3");
    assert_error(run([0, 2, 1, 1], [2, 3]), "selected_attention: counts[1] is 3, which must be below 3");
}

/// Lengths of the gradients of the output and of `lse`, and of the six gradients asked for. 0: not given.
fn backward(inputs: SelectedAttentionInputs<'_, Host, f32>, lengths: [usize; 8]) -> Result<()> {
    let part = |length: usize| Host::view(&NUMBERS[..length]);
    let mut grad_out = SelectedAttentionGradOut::new(part(lengths[0]));
    grad_out.lse = (lengths[1] > 0).then(|| part(lengths[1]));
    let mut buffers: Vec<Vec<f32>> = lengths[2..].iter().map(|&length| vec![0.0; length]).collect();
    let mut views = buffers.iter_mut().map(|numbers| match numbers.len() {
        0 => None,
        _ => Some(Host::view_mut(numbers)),
    });
    let mut next = || views.next().flatten();
    let mut grads = SelectedAttentionGradients::<Host, f32>::new();
    (grads.queries, grads.keys, grads.values) = (next(), next(), next());
    (grads.bias, grads.gammas, grads.similarities) = (next(), next(), next());
    Cpu::new().selected_attention_backward_into(&op(), &batch(&[3], &[2]), inputs, grad_out, grads)
}

#[test]
fn gradients_of_selected_attention_check_their_buffers() {
    let right = [8, 2, 8, 12, 12, 3, 3, 4];
    backward(inputs(RIGHT), right).expect("a valid call");
    for (place, length, expected) in [
        (0, 7, "grad_out.out: expected [M, H, d_v] = [2, 1, 4], 8 elements, got 7 elements"),
        (1, 3, "grad_out.lse: expected [M, H] = [2, 1], 2 elements, got 3 elements"),
        (2, 9, "grads.queries: expected [input] = [8], 8 elements, got 9 elements"),
        (3, 11, "grads.keys: expected [input] = [12], 12 elements, got 11 elements"),
        (4, 13, "grads.values: expected [input] = [12], 12 elements, got 13 elements"),
        (5, 2, "grads.bias: expected [input] = [3], 3 elements, got 2 elements"),
        (6, 2, "grads.gammas: expected [input] = [3], 3 elements, got 2 elements"),
        (7, 3, "grads.similarities: expected [input] = [4], 4 elements, got 3 elements"),
    ] {
        let mut lengths = right;
        lengths[place] = length;
        let result = backward(inputs(RIGHT), lengths);
        assert_error(result, &format!("selected_attention_backward: {expected}"));
    }
    for (place, name) in [(2, "values"), (3, "bias"), (4, "gammas")] {
        let mut given = RIGHT;
        given[place] = 0;
        assert_error(
            backward(inputs(given), right),
            &format!(
                "selected_attention_backward: grads.{name}: expected no gradient of an input that is not given, got a view to write it to"
            ),
        );
    }
}

#[test]
fn similarity_histogram_checks_its_arguments() {
    let right = SimilarityHistogram::new(2).with_top_k(2);
    let run = |op: SimilarityHistogram, slots: usize, counts: [u32; 2], out: usize| {
        let mut out = vec![0; out];
        let kept =
            Selection::new(Host::view(&PLACES[..4]), Host::view(&NUMBERS[..slots]), Host::view(&counts));
        Cpu::new().similarity_histogram_into(&op, &batch(&[3], &[2]), kept, Host::view_mut(&mut out))
    };
    run(right, 4, [2, 0], 10).expect("a valid call");
    for (result, expected) in [
        (run(SimilarityHistogram::new(0), 4, [2, 0], 10), "steps: expected at least 1, got 0"),
        (run(SimilarityHistogram::new(1025), 4, [2, 0], 10), "steps needs 1025, above the limit of 1024"),
        (run(right.with_top_k(0), 4, [2, 0], 10), "top_k: expected at least 1, got 0"),
        (run(right, 3, [2, 0], 10), "scores: expected [M, K] = [2, 2], 4 elements, got 3 elements"),
        (run(right, 4, [2, 0], 9), "out: expected [M, bins] = [2, 5], 10 elements, got 9 elements"),
        (run(right, 4, [2, 3], 10), "counts[1] is 3, which must be below 3"),
    ] {
        assert_error(result, &format!("similarity_histogram: {expected}"));
    }
}

#[test]
fn newest_histogram_checks_its_arguments() {
    let right = SimilarityHistogram::new(2).with_top_k(2);
    let run = |op: SimilarityHistogram, search: Search, keys: usize, out: usize| {
        let mut out = vec![0; out];
        let rows = |length: usize| match search.score {
            SearchScore::Hamming => SearchRows::Signs(Host::view(&PLACES[..length])),
            _ => SearchRows::F32(Host::view(&NUMBERS[..length])),
        };
        let inputs = SimilarityInputs::new(rows(2), rows(keys));
        Cpu::new().newest_histogram_into(&op, &search, &batch(&[3], &[2]), inputs, Host::view_mut(&mut out))
    };
    let cosine = Search::cosine(1);
    run(right, cosine, 3, 10).expect("a valid call");
    for (result, expected) in [
        (
            run(SimilarityHistogram::new(0), cosine, 3, 10),
            "newest_histogram: steps: expected at least 1, got 0",
        ),
        (
            run(right, Search::hamming(32), 3, 10),
            "newest_histogram: Hamming is not supported; supported: dot products and cosines",
        ),
        (run(right, cosine, 4, 10), "search: keys: expected [N, a] = [3, 1], 3 elements, got 4 elements"),
        (
            run(right, cosine, 3, 9),
            "newest_histogram: out: expected [M, bins] = [2, 5], 10 elements, got 9 elements",
        ),
    ] {
        assert_error(result, expected);
    }
}
