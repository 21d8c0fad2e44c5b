//! Target attention and its merge.

use candle_core::{DType, Device, Result, Tensor};
use longseq::{Host, TargetAttention, TargetAttentionInputs, Weighting, reference};
use longseq_candle::{Batch, Longseq, TargetAttentionTensors};

use crate::common::{assert_near, check_eager, check_gradients, flat, gradients, random};
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
fn inputs(op: &TargetAttention, users: &Users) -> Result<Vec<Tensor>> {
    Ok(vec![
        random(&[users.candidates(), op.heads, op.width], 1)?,
        random(&[users.behaviours(), op.kv_heads, op.width], 2)?,
        random(&[users.behaviours(), op.kv_heads, op.value_width], 3)?,
        random(&[users.behaviours(), op.heads], 4)?,
    ])
}

#[test]
fn every_weighting_with_grouped_heads_and_a_bias() -> Result<()> {
    let users = Users::new(&[3, 0, 4], &[2, 1, 2]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let weightings = [Weighting::Softmax, Weighting::silu(3.0), Weighting::Identity, Weighting::Relu];
    for weighting in weightings {
        let op = TargetAttention::new(4).with_heads(4, 2).with_value_width(3).with_weighting(weighting);
        let (what, given) = (format!("{weighting:?}"), inputs(&op, &users)?);
        let ours = |x: &[Tensor]| {
            let given = TargetAttentionTensors::new(&x[0], &x[1]).with_values(&x[2]).with_bias(&x[3]);
            longseq.target_attention(&op, &batch, given)
        };
        let eager = |x: &[Tensor]| eager::target_attention(&op, &users, &x[0], &x[1], &x[2], Some(&x[3]));
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
    let flat = [random(&[users.candidates(), 6], 1)?, random(&[users.behaviours(), 6], 2)?];
    check_gradients(
        "keys as values",
        &flat,
        |x| longseq.target_attention(&op, &batch, TargetAttentionTensors::new(&x[0], &x[1])),
        |x| {
            let (q, k) = (x[0].reshape(((), 2, 3))?, x[1].reshape(((), 2, 3))?);
            eager::target_attention(&op, &users, &q, &k, &k, None)?.reshape(((), 6))
        },
    )
}

#[test]
fn the_log_sum_exp_and_its_gradient() -> Result<()> {
    let users = Users::new(&[3, 4], &[2, 1]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = TargetAttention::new(4).with_heads(2, 1).with_value_width(3);
    let joined = |(out, lse): (Tensor, Tensor)| Tensor::cat(&[out, lse.unsqueeze(2)?], 2);
    check_gradients(
        "lse",
        &inputs(&op, &users)?[..3],
        |x| {
            let given = TargetAttentionTensors::new(&x[0], &x[1]).with_values(&x[2]);
            joined(longseq.target_attention_with_lse(&op, &batch, given)?)
        },
        |x| {
            let out = eager::target_attention(&op, &users, &x[0], &x[1], &x[2], None)?;
            joined((out, eager::lse(&op, &users, &x[0], &x[1])?))
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
        &inputs(&op, &whole)?[..2],
        |x| {
            let part = |index: usize, start, count| {
                let keys = x[1].narrow(0, start, count)?;
                let given = TargetAttentionTensors::new(&x[0], &keys);
                longseq.target_attention_with_lse(&op, &batches[index], given)
            };
            let ((a, a_lse), (b, b_lse)) = (part(0, 0, 2)?, part(1, 2, 3)?);
            let (out, lse) = longseq.merge_attention(&op, (&a, &a_lse), (&b, &b_lse))?;
            Tensor::cat(&[out, lse.unsqueeze(2)?], 2)
        },
        |x| {
            let out = eager::target_attention(&op, &whole, &x[0], &x[1], &x[1], None)?;
            Tensor::cat(&[out, eager::lse(&op, &whole, &x[0], &x[1])?.unsqueeze(2)?], 2)
        },
    )
}

#[test]
fn storage_of_16_bits() -> Result<()> {
    let users = Users::new(&[5, 2], &[2, 1]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = TargetAttention::new(8);
    let given: Vec<Tensor> = inputs(&op, &users)?;
    for (dtype, bound) in [(DType::F16, 2e-3), (DType::BF16, 2e-2)] {
        // The bias is of 16 bits, too, and widened.
        let rounded: Vec<Tensor> = given.iter().map(|x| x.to_dtype(dtype)).collect::<Result<_>>()?;
        let ours = |x: &[Tensor]| {
            let given = TargetAttentionTensors::new(&x[0], &x[1]).with_values(&x[2]).with_bias(&x[3]);
            longseq.target_attention(&op, &batch, given)
        };
        assert_eq!(ours(&rounded)?.dtype(), dtype);
        let wide: Vec<Tensor> = rounded.iter().map(eager::wide).collect::<Result<_>>()?;
        let eager = |x: &[Tensor]| eager::target_attention(&op, &users, &x[0], &x[1], &x[2], Some(&x[3]));
        assert_near("out", &flat(&ours(&rounded)?)?, &flat(&eager(&wide)?)?, bound);
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
    let given = inputs(&op, &users)?;
    let lists: Vec<Vec<f32>> = given.iter().map(|x| x.flatten_all()?.to_vec1()).collect::<Result<_>>()?;
    let views = TargetAttentionInputs::new(Host::view(&lists[0]), Host::view(&lists[1]))
        .with_values(Host::view(&lists[2]))
        .with_bias(Host::view(&lists[3]));
    let exact = reference::target_attention(&op, batch.batch(), &views).map_err(candle_core::Error::wrap)?;
    let tensors =
        TargetAttentionTensors::new(&given[0], &given[1]).with_values(&given[2]).with_bias(&given[3]);
    assert_near("out", &flat(&longseq.target_attention(&op, &batch, tensors)?)?, &exact.out, 1e-6);
    let (_, lse) = longseq.target_attention_with_lse(&op, &batch, tensors)?;
    let lse = flat(&lse)?;
    // The user without behaviours.
    assert_eq!(lse[4..], [f64::NEG_INFINITY; 2]);
    assert_near("lse", &lse[..4], &exact.lse[..4], 1e-6);
    Ok(())
}

#[test]
fn nothing_to_do() -> Result<()> {
    let longseq = Longseq::cpu();
    let batch = longseq.batch(&[0_u32, 3][..], &[0_u32, 0][..])?;
    let keys = candle_core::Var::from_tensor(&random(&[3, 4], 1)?)?;
    let queries = Tensor::zeros((0, 4), DType::F32, &Device::Cpu)?;
    let given = TargetAttentionTensors::new(&queries, &keys);
    let out = longseq.target_attention(&TargetAttention::new(4), &batch, given)?;
    assert_eq!(out.dims(), [0, 4]);
    let grads = out.sum_all()?.backward()?;
    assert!(grads.get(&keys).map(flat).transpose()?.is_none_or(|grad| grad == [0.0; 12]));
    Ok(())
}
