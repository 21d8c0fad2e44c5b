//! What a graph may do with an operation: use it twice, share tensors, leave some out, stride them.

use candle_core::{DType, Device, Result, Tensor, Var};
use longseq::TargetAttention;
use longseq_candle::{Longseq, TargetAttentionTensors};

use crate::attention::batch;
use crate::common::{assert_near, flat, gradients, loss, random};
use crate::eager::{self, Users};

fn op() -> TargetAttention {
    TargetAttention::new(4).with_heads(2, 2)
}

fn users() -> Users {
    Users::new(&[3, 2], &[1, 2])
}

/// Queries, keys, values and bias, which are four: two of them are joined.
fn variables() -> Result<Vec<Var>> {
    let (op, users) = (op(), users());
    [
        random(&[users.candidates(), op.heads, op.width], 1)?,
        random(&[users.behaviours(), op.kv_heads, op.width], 2)?,
        random(&[users.behaviours(), op.kv_heads, op.value_width], 3)?,
        random(&[users.behaviours(), op.heads], 4)?,
    ]
    .iter()
    .map(Var::from_tensor)
    .collect()
}

fn attend(longseq: &Longseq, x: &[Tensor]) -> Result<Tensor> {
    let given = TargetAttentionTensors::new(&x[0], &x[1]).with_values(&x[2]).with_bias(&x[3]);
    longseq.target_attention(&op(), &batch(longseq, &users())?, given)
}

fn tensors(vars: &[Var]) -> Vec<Tensor> {
    vars.iter().map(|var| var.as_tensor().clone()).collect()
}

/// The gradients of all variables that have one.
fn of(loss: &Tensor, vars: &[Var]) -> Result<Vec<Option<Vec<f64>>>> {
    let grads = loss.backward()?;
    vars.iter().map(|var| grads.get(var).map(flat).transpose()).collect()
}

#[test]
fn a_graph_is_used_again_and_by_threads() -> Result<()> {
    let (longseq, vars) = (Longseq::cpu(), variables()?);
    let loss = loss(&attend(&longseq, &tensors(&vars))?)?;
    let first = of(&loss, &vars)?;
    assert!(first.iter().all(Option::is_some));
    assert_eq!(of(&loss, &vars)?, first);
    std::thread::scope(|threads| {
        let running: Vec<_> = (0..4).map(|_| threads.spawn(|| of(&loss, &vars))).collect();
        for thread in running {
            assert_eq!(thread.join().expect("no panic")?, first);
        }
        Ok(())
    })
}

#[test]
fn a_detached_input_has_no_gradient_and_changes_no_other() -> Result<()> {
    let (longseq, vars) = (Longseq::cpu(), variables()?);
    let all = of(&loss(&attend(&longseq, &tensors(&vars))?)?, &vars)?;
    for left_out in 0..1_usize << vars.len() {
        let mut inputs = tensors(&vars);
        for (index, input) in inputs.iter_mut().enumerate() {
            if left_out >> index & 1 == 1 {
                *input = input.detach();
            }
        }
        let out = attend(&longseq, &inputs)?;
        let is_tracked = left_out != 15;
        assert_eq!(out.track_op(), is_tracked);
        let some = if is_tracked { of(&loss(&out)?, &vars)? } else { vec![None; 4] };
        for (index, (got, exact)) in some.iter().zip(&all).enumerate() {
            match left_out >> index & 1 {
                1 => assert_eq!(*got, None),
                _ => assert_eq!(got, exact, "input {index} where {left_out:b} are left out"),
            }
        }
    }
    Ok(())
}

#[test]
fn one_tensor_in_every_place() -> Result<()> {
    // One behaviour per candidate, so that the same rows are queries, keys and values, and one column of them the bias.
    let users = Users::new(&[2, 3], &[2, 3]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = TargetAttention::new(4);
    let x = [random(&[5, 1, 4], 7)?];
    let ours = gradients(&x, |x| {
        let bias = x[0].narrow(2, 1, 1)?.squeeze(2)?;
        let given = TargetAttentionTensors::new(&x[0], &x[0]).with_values(&x[0]).with_bias(&bias);
        longseq.target_attention(&op, &batch, given)
    })?;
    let exact = gradients(&[eager::wide(&x[0])?], |x| {
        let bias = x[0].narrow(2, 1, 1)?.squeeze(2)?;
        eager::target_attention(&op, &users, &x[0], &x[0], &x[0], Some(&bias))
    })?;
    assert_near("shared", &ours[0], &exact[0], 2e-5);
    Ok(())
}

#[test]
fn strided_inputs_and_a_gradient_that_is_broadcast() -> Result<()> {
    let users = users();
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = TargetAttention::new(4);
    // Keys and values are halves of one projection's rows, queries are transposed.
    let x = [random(&[4, 3], 1)?, random(&[5, 8], 2)?];
    let ours = |x: &[Tensor]| {
        let (keys, values) = (x[1].narrow(1, 0, 4)?, x[1].narrow(1, 4, 4)?);
        assert!(!keys.is_contiguous());
        let queries = x[0].t()?;
        longseq.target_attention(
            &op,
            &batch,
            TargetAttentionTensors::new(&queries, &keys).with_values(&values),
        )
    };
    let eager = |x: &[Tensor]| {
        let (keys, values) = (x[1].narrow(1, 0, 4)?.unsqueeze(1)?, x[1].narrow(1, 4, 4)?.unsqueeze(1)?);
        eager::target_attention(&op, &users, &x[0].t()?.unsqueeze(1)?, &keys, &values, None)?.squeeze(1)
    };
    let wide: Vec<Tensor> = x.iter().map(eager::wide).collect::<Result<_>>()?;
    for (got, exact) in gradients(&x, ours)?.iter().zip(gradients(&wide, eager)?) {
        assert_near("strided", got, &exact, 2e-5);
    }
    // The gradient of a sum is one number, broadcast over the result.
    let vars: Vec<Var> = x.iter().map(Var::from_tensor).collect::<Result<_>>()?;
    let grads = of(&ours(&tensors(&vars))?.sum_all()?, &vars)?;
    let wide: Vec<Var> = wide.iter().map(Var::from_tensor).collect::<Result<_>>()?;
    let exact = of(&eager(&tensors(&wide))?.sum_all()?, &wide)?;
    for (got, exact) in grads.iter().flatten().zip(exact.iter().flatten()) {
        assert_near("broadcast", got, exact, 2e-5);
    }
    Ok(())
}

#[test]
fn rows_of_a_part_of_a_tensor_are_read_where_they_are() -> Result<()> {
    // A narrow of the first dimension is contiguous, with an offset.
    let longseq = Longseq::cpu();
    let batch =
        longseq.batch(&Tensor::new(&[0i64, 2], &Device::Cpu)?, &Tensor::new(&[0u8, 1], &Device::Cpu)?)?;
    let rows = random(&[6, 4], 3)?;
    let op = TargetAttention::new(4);
    let (queries, keys) = (rows.narrow(0, 5, 1)?, rows.narrow(0, 2, 2)?);
    let part = longseq.target_attention(&op, &batch, TargetAttentionTensors::new(&queries, &keys))?;
    let (queries, keys) = (queries.copy()?, keys.copy()?);
    let whole = longseq.target_attention(&op, &batch, TargetAttentionTensors::new(&queries, &keys))?;
    assert_eq!(flat(&part)?, flat(&whole)?);
    assert_eq!(part.dtype(), DType::F32);
    Ok(())
}

#[test]
fn between_other_operations() -> Result<()> {
    // Projections before, a square after, and the result used twice.
    let users = users();
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = TargetAttention::new(4);
    let x = [random(&[3, 4], 1)?, random(&[5, 4], 2)?, random(&[4, 4], 3)?, random(&[4, 4], 4)?];
    let ours = |x: &[Tensor]| {
        let (queries, keys) = (x[0].matmul(&x[2])?, x[1].matmul(&x[3])?);
        let out = longseq.target_attention(&op, &batch, TargetAttentionTensors::new(&queries, &keys))?;
        out.sqr()?.add(&out)
    };
    let eager = |x: &[Tensor]| {
        let (queries, keys) = (x[0].matmul(&x[2])?.unsqueeze(1)?, x[1].matmul(&x[3])?.unsqueeze(1)?);
        let out = eager::target_attention(&op, &users, &queries, &keys, &keys, None)?.squeeze(1)?;
        out.sqr()?.add(&out)
    };
    crate::common::check_gradients("projected", &x, ours, eager)
}
