//! Target attention and its merge.

use burn::tensor::{DType, Device, FloatDType, Tensor};
use longseq::{Host, Result, TargetAttention, TargetAttentionInputs, Weighting, reference};
use longseq_burn::{Batch, Longseq, TargetAttentionTensors};

use crate::common::{Given, assert_near, check_eager, check_gradients, flat, gradients, random, row};
use crate::eager::{self, Users};

/// Three users, one without behaviours, one without candidates.
pub(crate) fn users() -> Users {
    Users::new(&[3, 0, 4], &[2, 1, 0])
}

pub(crate) fn batch(longseq: &Longseq, users: &Users) -> Result<Batch> {
    let [histories, targets] = users.jagged()?;
    longseq.batch(&histories, &targets)
}

/// Queries, keys, values and bias.
fn inputs(op: &TargetAttention, users: &Users) -> Vec<Given> {
    vec![
        random(&[users.candidates(), op.heads, op.width], 1),
        random(&[users.behaviours(), op.kv_heads, op.width], 2),
        random(&[users.behaviours(), op.kv_heads, op.value_width], 3),
        random(&[users.behaviours(), op.heads], 4),
    ]
}

/// With values and a bias.
fn ours(longseq: &Longseq, batch: &Batch, op: &TargetAttention, x: &[Given]) -> Result<Tensor<1>> {
    let (queries, keys, values) = (x[0].tensor::<3>(), x[1].tensor(), x[2].tensor());
    let bias = x[3].tensor();
    let given = TargetAttentionTensors::new(&queries, &keys).with_values(&values).with_bias(&bias);
    Ok(row(longseq.target_attention(op, batch, given)?))
}

fn eager(users: &Users, op: &TargetAttention, x: &[Given]) -> Result<Tensor<1>> {
    let bias = x[3].tensor();
    let (queries, keys, values) = (x[0].tensor(), x[1].tensor(), x[2].tensor());
    Ok(row(eager::target_attention(op, users, &queries, &keys, &values, Some(&bias))))
}

/// Output and log-sum-exp.
fn joined(out: Tensor<3>, lse: Tensor<2>) -> Tensor<1> {
    row(Tensor::cat(vec![out, lse.unsqueeze_dim(2)], 2))
}

#[test]
fn every_weighting_with_grouped_heads_and_a_bias() -> Result<()> {
    let users = Users::new(&[3, 0, 4], &[2, 1, 2]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let weightings = [Weighting::Softmax, Weighting::silu(3.0), Weighting::Identity, Weighting::Relu];
    for weighting in weightings {
        let op = TargetAttention::new(4).with_heads(4, 2).with_value_width(3).with_weighting(weighting);
        let (what, given) = (format!("{weighting:?}"), inputs(&op, &users));
        let (ours, eager) =
            (|x: &[Given]| ours(&longseq, &batch, &op, x), |x: &[Given]| eager(&users, &op, x));
        match weighting {
            // Not smooth at 0.
            Weighting::Relu => check_eager(&what, &given, ours, eager)?,
            _ => check_gradients(&what, &given, ours, eager)?,
        }
    }
    Ok(())
}

#[test]
fn keys_as_values_in_flat_rows() -> Result<()> {
    let users = users();
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = TargetAttention::new(3).with_heads(2, 2);
    let flat = [random(&[users.candidates(), 6], 1), random(&[users.behaviours(), 6], 2)];
    check_gradients(
        "keys as values",
        &flat,
        |x| {
            let (queries, keys) = (x[0].tensor::<2>(), x[1].tensor());
            Ok(row(longseq.target_attention(&op, &batch, TargetAttentionTensors::new(&queries, &keys))?))
        },
        |x| {
            let apart = |x: &Given| -> Tensor<3> {
                let rows = x.tensor::<2>();
                let [count, _] = rows.dims();
                rows.reshape([count, 2, 3])
            };
            let (q, k) = (apart(&x[0]), apart(&x[1]));
            Ok(row(eager::target_attention(&op, &users, &q, &k, &k, None)))
        },
    )
}

#[test]
fn the_log_sum_exp_and_its_gradient() -> Result<()> {
    let users = Users::new(&[3, 4], &[2, 1]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = TargetAttention::new(4).with_heads(2, 1).with_value_width(3);
    check_gradients(
        "lse",
        &inputs(&op, &users)[..3],
        |x| {
            let (queries, keys, values) = (x[0].tensor::<3>(), x[1].tensor(), x[2].tensor());
            let given = TargetAttentionTensors::new(&queries, &keys).with_values(&values);
            let (out, lse) = longseq.target_attention_with_lse(&op, &batch, given)?;
            Ok(joined(out, lse))
        },
        |x| {
            let (queries, keys, values) = (x[0].tensor(), x[1].tensor(), x[2].tensor());
            let out = eager::target_attention(&op, &users, &queries, &keys, &values, None);
            Ok(joined(out, eager::lse(&op, &users, &queries, &keys)))
        },
    )
}

#[test]
fn two_spans_merge_into_their_history() -> Result<()> {
    let longseq = Longseq::cpu();
    let whole = Users::new(&[5], &[2]);
    let spans = [Users::new(&[2], &[2]), Users::new(&[3], &[2])];
    let batches = [batch(&longseq, &spans[0])?, batch(&longseq, &spans[1])?];
    let op = TargetAttention::new(4).with_heads(2, 2);
    check_gradients(
        "merge",
        &inputs(&op, &whole)[..2],
        |x| {
            let (queries, keys) = (x[0].tensor::<3>(), x[1].tensor::<3>());
            let part = |index: usize, start, count| {
                let keys = keys.clone().narrow(0, start, count);
                let given = TargetAttentionTensors::new(&queries, &keys);
                longseq.target_attention_with_lse(&op, &batches[index], given)
            };
            let ((a, a_lse), (b, b_lse)) = (part(0, 0, 2)?, part(1, 2, 3)?);
            let (out, lse) = longseq.merge_attention(&op, (&a, &a_lse), (&b, &b_lse))?;
            Ok(joined(out, lse))
        },
        |x| {
            let (queries, keys) = (x[0].tensor(), x[1].tensor());
            let out = eager::target_attention(&op, &whole, &queries, &keys, &keys, None);
            Ok(joined(out, eager::lse(&op, &whole, &queries, &keys)))
        },
    )
}

#[test]
fn storage_of_16_bits() -> Result<()> {
    let users = Users::new(&[5, 2], &[2, 1]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = TargetAttention::new(8);
    for (dtype, bound) in [(FloatDType::F16, 2e-3), (FloatDType::BF16, 2e-2)] {
        // The bias is of 16 bits, too, and widened.
        let rounded: Vec<Given> = inputs(&op, &users).iter().map(|x| x.cast(dtype)).collect();
        let ours = |x: &[Given]| ours(&longseq, &batch, &op, x);
        assert_eq!(ours(&rounded)?.dtype(), DType::from(dtype));
        let wide: Vec<Given> = rounded.iter().map(Given::wide).collect();
        let eager = |x: &[Given]| eager(&users, &op, x);
        assert_near("out", &flat(&ours(&rounded)?), &flat(&eager(&wide)?), bound);
        for (got, exact) in gradients(&rounded, ours)?.iter().zip(gradients(&wide, eager)?) {
            assert_near(&format!("{dtype:?}"), got, &exact, 4.0 * bound);
        }
    }
    Ok(())
}

#[test]
fn the_reference_says_the_same() -> Result<()> {
    let users = users();
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = TargetAttention::new(5).with_heads(2, 1);
    let given = inputs(&op, &users);
    let lists: Vec<Vec<f32>> = given.iter().map(|x| x.numbers.to_data().iter().collect()).collect();
    let views = TargetAttentionInputs::new(Host::view(&lists[0]), Host::view(&lists[1]))
        .with_values(Host::view(&lists[2]))
        .with_bias(Host::view(&lists[3]));
    let exact = reference::target_attention(&op, batch.batch(), &views)?;
    let (queries, keys, values) = (given[0].tensor::<3>(), given[1].tensor(), given[2].tensor());
    let bias = given[3].tensor();
    let tensors = TargetAttentionTensors::new(&queries, &keys).with_values(&values).with_bias(&bias);
    assert_near("out", &flat(&longseq.target_attention(&op, &batch, tensors)?), &exact.out, 1e-6);
    let (_, lse) = longseq.target_attention_with_lse(&op, &batch, tensors)?;
    let lse = flat(&lse);
    // The user without behaviours.
    assert_eq!(lse[4..], [f64::NEG_INFINITY; 2]);
    assert_near("lse", &lse[..4], &exact.lse[..4], 1e-6);
    Ok(())
}

#[test]
fn nothing_to_do() -> Result<()> {
    let longseq = Longseq::cpu();
    let batch = longseq.batch(&[0_u32, 3][..], &[0_u32, 0][..])?;
    let keys = random(&[3, 4], 1).leaf();
    let queries = Tensor::<2>::zeros([0, 4], &Device::flex());
    let rows = keys.tensor();
    let given = TargetAttentionTensors::new(&queries, &rows);
    let out = longseq.target_attention(&TargetAttention::new(4), &batch, given)?;
    assert_eq!(out.dims(), [0, 4]);
    assert!(out.is_tracked());
    Ok(())
}
