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
        (
            op.with_weighting(Weighting::Silu { divisor: 0.0 }),
            "divisor: expected a finite number other than 0, got 0",
        ),
        (
            op.with_weighting(Weighting::Silu { divisor: f32::INFINITY }),
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
