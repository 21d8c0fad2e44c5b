//! Target attention and its merge.

use longseq::*;

use super::{assert_error, batch};

fn attention(op: &TargetAttention, lengths: [usize; 6], lse: bool) -> Result<()> {
    let batch = batch(&[3], &[2]);
    let [queries, keys, values, bias, out, lse_length] = lengths.map(|length| vec![0.0f32; length]);
    let (mut out, mut lse_out) = (out, lse_length);
    let mut inputs = TargetAttentionInputs::new(Host::view(&queries), Host::view(&keys));
    inputs.values = (!values.is_empty()).then(|| Host::view(&values));
    inputs.bias = (!bias.is_empty()).then(|| Host::view(&bias));
    let mut outputs = TargetAttentionOutputs::new(Host::view_mut(&mut out));
    outputs.lse = lse.then(|| Host::view_mut(&mut lse_out));
    Cpu::new().target_attention_into(op, &batch, inputs, outputs)
}

#[test]
fn target_attention_checks_its_parameters() {
    let op = TargetAttention::new(4);
    let right = [8, 12, 12, 3, 8, 2];
    attention(&op, right, true).expect("a valid call");
    for (op, expected) in [
        (op.with_heads(0, 1), "heads: expected at least 1, got 0"),
        (op.with_heads(1, 0), "kv_heads: expected at least 1, got 0"),
        (op.with_heads(3, 2), "kv_heads: expected a divisor of heads = 3, got 2"),
        (TargetAttention::new(0), "width: expected at least 1, got 0"),
        (op.with_value_width(0), "value_width: expected at least 1, got 0"),
        (op.with_scale(f32::NAN), "scale: expected a finite number, got NaN"),
        (op.with_weighting(Weighting::silu(0.0)), "divisor: expected a finite number other than 0, got 0"),
        (
            op.with_weighting(Weighting::silu(f32::INFINITY)),
            "divisor: expected a finite number other than 0, got inf",
        ),
    ] {
        assert_error(attention(&op, right, true), &format!("target_attention: {expected}"));
    }
    assert_error(
        attention(&op.with_weighting(Weighting::Relu), right, true),
        "target_attention: lse with Relu weights is not supported; supported: lse with Softmax weights",
    );
    let huge = TargetAttention::new(usize::MAX / 2);
    assert_error(
        attention(&huge, right, true),
        "target_attention: queries needs 18446744073709551615, above the limit of 9223372036854775807",
    );
    assert!(matches!(huge.output_length(&batch(&[3], &[2])), Err(Error::Limit { .. })));
}

#[test]
fn target_attention_checks_its_buffers() {
    let op = TargetAttention::new(4);
    for (lengths, expected) in [
        ([7, 12, 12, 3, 8, 2], "queries: expected [M, H, d] = [2, 1, 4], 8 elements, got 7 elements"),
        ([8, 13, 12, 3, 8, 2], "keys: expected [N, H_kv, d] = [3, 1, 4], 12 elements, got 13 elements"),
        ([8, 12, 11, 3, 8, 2], "values: expected [N, H_kv, d_v] = [3, 1, 4], 12 elements, got 11 elements"),
        ([8, 12, 12, 2, 8, 2], "bias: expected [N, H] = [3, 1], 3 elements, got 2 elements"),
        ([8, 12, 12, 3, 9, 2], "out: expected [M, H, d_v] = [2, 1, 4], 8 elements, got 9 elements"),
        ([8, 12, 12, 3, 8, 1], "lse: expected [M, H] = [2, 1], 2 elements, got 1 elements"),
    ] {
        assert_error(attention(&op, lengths, true), &format!("target_attention: {expected}"));
    }
    assert_error(
        attention(&op.with_value_width(5), [8, 12, 0, 3, 10, 2], true),
        "target_attention: values: expected values of their own, as d_v = 5 is not d = 4, got none (the keys as values)",
    );
}

#[test]
fn merge_checks_its_buffers() {
    let op = TargetAttention::new(4);
    let merge = |op: &TargetAttention, lengths: [usize; 6]| {
        let [a, a_lse, b, b_lse, mut out, mut lse] = lengths.map(|length| vec![0.0f32; length]);
        let first = PartialAttention::new(Host::view(&a), Host::view(&a_lse));
        let second = PartialAttention::new(Host::view(&b), Host::view(&b_lse));
        let outputs =
            TargetAttentionOutputs::new(Host::view_mut(&mut out)).with_lse(Host::view_mut(&mut lse));
        Cpu::new().merge_attention_into(op, first, second, outputs)
    };
    merge(&op, [8, 2, 8, 2, 8, 2]).expect("a valid call");
    for (lengths, expected) in [
        ([7, 2, 8, 2, 8, 2], "first.out: expected [M·H, d_v] = [2, 4], 8 elements, got 7 elements"),
        ([8, 2, 7, 2, 8, 2], "second.out: expected [M·H, d_v] = [2, 4], 8 elements, got 7 elements"),
        ([8, 2, 8, 3, 8, 2], "second.lse: expected [M·H] = [2], 2 elements, got 3 elements"),
        ([8, 2, 8, 2, 7, 2], "out: expected [M·H, d_v] = [2, 4], 8 elements, got 7 elements"),
        ([8, 2, 8, 2, 8, 3], "lse: expected [M·H] = [2], 2 elements, got 3 elements"),
    ] {
        assert_error(merge(&op, lengths), &format!("merge_attention: {expected}"));
    }
    assert!(matches!(merge(&TargetAttention::new(0), [8, 2, 8, 2, 8, 2]), Err(Error::Parameter { .. })));
}

/// Lengths of queries, keys, values, bias; of saved `out` and `lse`; of the gradients of `out` and `lse`; of the four gradients
/// asked for. 0: not given.
fn backward(op: &TargetAttention, lengths: [usize; 12]) -> Result<()> {
    let batch = batch(&[3], &[2]);
    let buffers = lengths.map(|length| vec![0.0f32; length]);
    let given = |i: usize| (lengths[i] > 0).then(|| Host::view(&buffers[i]));
    let view = |i: usize| Host::view(&buffers[i]);
    let mut inputs = TargetAttentionInputs::new(view(0), view(1));
    (inputs.values, inputs.bias) = (given(2), given(3));
    let mut saved = TargetAttentionSaved::none();
    (saved.out, saved.lse) = (given(4), given(5));
    let mut grad_out = TargetAttentionGradOut::new(view(6));
    grad_out.lse = given(7);
    let mut written: Vec<Vec<f32>> = lengths[8..].iter().map(|&length| vec![0.0; length]).collect();
    let mut grads = written.iter_mut().map(|rows| (!rows.is_empty()).then(|| Host::view_mut(rows)));
    let mut asked = TargetAttentionGradients::new();
    asked.queries = grads.next().flatten();
    asked.keys = grads.next().flatten();
    asked.values = grads.next().flatten();
    asked.bias = grads.next().flatten();
    Cpu::new().target_attention_backward_into(op, &batch, inputs, saved, grad_out, asked)
}

#[test]
fn target_attention_backward_checks_its_buffers() {
    let op = TargetAttention::new(4);
    let right = [8, 12, 12, 3, 8, 2, 8, 2, 8, 12, 12, 3];
    backward(&op, right).expect("a valid call");
    backward(&op, [8, 12, 12, 3, 8, 2, 8, 0, 0, 0, 0, 0]).expect("a call that asks for nothing");
    for (i, length, expected) in [
        (0, 7, "queries: expected [M, H, d] = [2, 1, 4], 8 elements, got 7 elements"),
        (4, 7, "saved.out: expected [M, H, d_v] = [2, 1, 4], 8 elements, got 7 elements"),
        (4, 0, "saved.out: expected what the forward pass wrote, which softmax needs, got none"),
        (5, 3, "saved.lse: expected [M, H] = [2, 1], 2 elements, got 3 elements"),
        (5, 0, "saved.lse: expected what the forward pass wrote, which softmax needs, got none"),
        (6, 9, "grad_out.out: expected [M, H, d_v] = [2, 1, 4], 8 elements, got 9 elements"),
        (7, 1, "grad_out.lse: expected [M, H] = [2, 1], 2 elements, got 1 elements"),
        (8, 9, "grads.queries: expected [input] = [8], 8 elements, got 9 elements"),
        (9, 13, "grads.keys: expected [input] = [12], 12 elements, got 13 elements"),
        (10, 11, "grads.values: expected [input] = [12], 12 elements, got 11 elements"),
        (11, 2, "grads.bias: expected [input] = [3], 3 elements, got 2 elements"),
        (2, 0, "grads.values: expected no gradient of an input that is not given, got a view to write it to"),
        (3, 0, "grads.bias: expected no gradient of an input that is not given, got a view to write it to"),
    ] {
        let mut lengths = right;
        lengths[i] = length;
        assert_error(backward(&op, lengths), &format!("target_attention_backward: {expected}"));
    }
    let relu = op.with_weighting(Weighting::Relu);
    backward(&relu, [8, 12, 12, 3, 0, 0, 8, 0, 8, 12, 12, 3]).expect("nothing saved is enough");
    let what =
        "grad_out.lse with Relu weights is not supported; supported: grad_out.lse with Softmax weights";
    assert_error(backward(&relu, right), &format!("target_attention_backward: {what}"));
}

#[test]
fn merge_backward_checks_its_buffers() {
    let op = TargetAttention::new(4);
    let merge = |lengths: [usize; 4]| {
        let [grad_out, grad_lse, mut out, mut lse] = lengths.map(|length| vec![0.0f32; length]);
        let (rows, lses) = ([0.0f32; 8], [0.0; 2]);
        let part = PartialAttention::new(Host::view(&rows), Host::view(&lses));
        let grad_out = TargetAttentionGradOut::new(Host::view(&grad_out)).with_lse(Host::view(&grad_lse));
        let grads = PartialAttentionGradients::<_, f32>::new()
            .with_out(Host::view_mut(&mut out))
            .with_lse(Host::view_mut(&mut lse));
        Cpu::new().merge_attention_backward_into(
            &op,
            part,
            part,
            grad_out,
            PartialAttentionGradients::new(),
            grads,
        )
    };
    merge([8, 2, 8, 2]).expect("a valid call");
    for (lengths, expected) in [
        ([7, 2, 8, 2], "grad_out.out: expected [M·H, d_v] = [2, 4], 8 elements, got 7 elements"),
        ([8, 3, 8, 2], "grad_out.lse: expected [M·H] = [2], 2 elements, got 3 elements"),
        ([8, 2, 9, 2], "second_grads.out: expected [M·H, d_v] = [2, 4], 8 elements, got 9 elements"),
        ([8, 2, 8, 1], "second_grads.lse: expected [M·H] = [2], 2 elements, got 1 elements"),
    ] {
        assert_error(merge(lengths), &format!("merge_attention_backward: {expected}"));
    }
}
