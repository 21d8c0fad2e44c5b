//! What a graph may do with an operation: share tensors, leave some out, stride them, use it many times.

use burn::tensor::{Device, Int, Tensor};
use longseq::{Result, TargetAttention};
use longseq_burn::{Longseq, TargetAttentionTensors};

use crate::attention::batch;
use crate::common::{Given, assert_near, check_gradients, flat, gradients, ints, loss, random, row};
use crate::eager::{self, Users};

fn op() -> TargetAttention {
    TargetAttention::new(4).with_heads(2, 2)
}

fn users() -> Users {
    Users::new(&[3, 2], &[1, 2])
}

/// Queries, keys, values and bias.
fn inputs() -> Vec<Given> {
    let (op, users) = (op(), users());
    vec![
        random(&[users.candidates(), op.heads, op.width], 1),
        random(&[users.behaviours(), op.kv_heads, op.width], 2),
        random(&[users.behaviours(), op.kv_heads, op.value_width], 3),
        random(&[users.behaviours(), op.heads], 4),
    ]
}

fn attend(longseq: &Longseq, x: &[Given]) -> Result<Tensor<1>> {
    let (queries, keys, values) = (x[0].tensor::<3>(), x[1].tensor(), x[2].tensor());
    let bias = x[3].tensor();
    let given = TargetAttentionTensors::new(&queries, &keys).with_values(&values).with_bias(&bias);
    Ok(row(longseq.target_attention(&op(), &batch(longseq, &users())?, given)?))
}

#[test]
fn a_constant_has_no_gradient_and_changes_no_other() -> Result<()> {
    let longseq = Longseq::cpu();
    let x = inputs();
    let all = gradients(&x, |x| attend(&longseq, x))?;
    for left_out in 0..1_usize << x.len() {
        let is_out = |index: usize| left_out >> index & 1 == 1;
        // Tensors without autodiff among those with it.
        let leaves: Vec<Given> =
            x.iter().enumerate().map(|(index, x)| if is_out(index) { x.clone() } else { x.leaf() }).collect();
        let out = attend(&longseq, &leaves)?;
        assert_eq!(out.is_tracked(), left_out != 15);
        if left_out == 15 {
            assert!(!out.device().is_autodiff());
            continue;
        }
        let grads = loss(out).backward();
        for (index, (leaf, exact)) in leaves.iter().zip(&all).enumerate() {
            let got = leaf.numbers.grad(&grads).map(|grad| flat(&grad));
            let exact = (!is_out(index)).then_some(exact);
            assert_eq!(got.as_ref(), exact, "input {index} where {left_out:b} are left out");
        }
    }
    Ok(())
}

#[test]
fn a_detached_input_keeps_autodiff_and_stops_the_gradient() -> Result<()> {
    let longseq = Longseq::cpu();
    let leaves: Vec<Given> = inputs().iter().map(Given::leaf).collect();
    let mut given = leaves.clone();
    for input in &mut given {
        // An operation in between, so that what is detached is no leaf.
        input.numbers = (input.numbers.clone() + 0.0).detach();
    }
    let out = attend(&longseq, &given)?;
    assert!(out.device().is_autodiff() && !out.is_tracked());
    given[1] = leaves[1].clone();
    let grads = loss(attend(&longseq, &given)?).backward();
    let has_gradient: Vec<bool> = leaves.iter().map(|leaf| leaf.numbers.grad(&grads).is_some()).collect();
    assert_eq!(has_gradient, [false, true, false, false]);
    Ok(())
}

#[test]
fn one_tensor_in_every_place() -> Result<()> {
    // One behaviour per candidate, so that the same rows are queries, keys and values, and one column of them the bias.
    let users = Users::new(&[2, 3], &[2, 3]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = TargetAttention::new(4);
    let x = [random(&[5, 1, 4], 7)];
    let column = |rows: &Tensor<3>| -> Tensor<2> { rows.clone().narrow(2, 1, 1).squeeze_dim(2) };
    check_gradients(
        "shared",
        &x,
        |x| {
            let rows = x[0].tensor::<3>();
            let bias = column(&rows);
            let given = TargetAttentionTensors::new(&rows, &rows).with_values(&rows).with_bias(&bias);
            Ok(row(longseq.target_attention(&op, &batch, given)?))
        },
        |x| {
            let rows = x[0].tensor::<3>();
            let bias = column(&rows);
            Ok(row(eager::target_attention(&op, &users, &rows, &rows, &rows, Some(&bias))))
        },
    )
}

#[test]
fn strided_inputs_and_a_gradient_that_is_broadcast() -> Result<()> {
    let users = users();
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = TargetAttention::new(4);
    // Keys and values are halves of one projection's rows, queries are transposed.
    let x = [random(&[4, 3], 1), random(&[5, 8], 2)];
    let parts = |x: &[Given]| {
        let rows = x[1].tensor::<2>();
        (x[0].tensor::<2>().transpose(), rows.clone().narrow(1, 0, 4), rows.narrow(1, 4, 4))
    };
    let ours = |x: &[Given]| -> Result<Tensor<1>> {
        let (queries, keys, values) = parts(x);
        let given = TargetAttentionTensors::new(&queries, &keys).with_values(&values);
        Ok(row(longseq.target_attention(&op, &batch, given)?))
    };
    let eager = |x: &[Given]| -> Result<Tensor<1>> {
        let (queries, keys, values) = parts(x);
        let apart = |rows: Tensor<2>| -> Tensor<3> { rows.unsqueeze_dim(1) };
        let (queries, keys, values) = (apart(queries), apart(keys), apart(values));
        Ok(row(eager::target_attention(&op, &users, &queries, &keys, &values, None)))
    };
    check_gradients("strided", &x, ours, eager)?;
    // The gradient of a sum is one number, broadcast over the result.
    let leaves: Vec<Given> = x.iter().map(Given::leaf).collect();
    let wide: Vec<Given> = x.iter().map(|x| x.wide().leaf()).collect();
    let (grads, exact) = (ours(&leaves)?.sum().backward(), eager(&wide)?.sum().backward());
    for (leaf, wide) in leaves.iter().zip(&wide) {
        let (grad, exact) = (leaf.numbers.grad(&grads), wide.numbers.grad(&exact));
        assert_near("broadcast", &flat(&grad.expect("a gradient")), &flat(&exact.expect("a gradient")), 2e-5);
    }
    Ok(())
}

#[test]
fn rows_of_a_part_of_a_tensor() -> Result<()> {
    // A narrow of the first dimension is contiguous, with an offset. Offsets are tensors.
    let longseq = Longseq::cpu();
    let offsets = |values: Vec<i64>| -> Tensor<1, Int> {
        let count = values.len();
        ints(values, [count])
    };
    let batch = longseq.batch(&offsets(vec![0, 2]), &offsets(vec![0, 1]))?;
    let rows = random(&[6, 4], 3).tensor::<2>();
    let op = TargetAttention::new(4);
    let (queries, keys) = (rows.clone().narrow(0, 5, 1), rows.narrow(0, 2, 2));
    let part = longseq.target_attention(&op, &batch, TargetAttentionTensors::new(&queries, &keys))?;
    let copy = |x: &Tensor<2>| Tensor::<2>::from_data(x.to_data(), &Device::flex());
    let (queries, keys) = (copy(&queries), copy(&keys));
    let whole = longseq.target_attention(&op, &batch, TargetAttentionTensors::new(&queries, &keys))?;
    assert_eq!(flat(&part), flat(&whole));
    Ok(())
}

#[test]
fn between_other_operations() -> Result<()> {
    // Projections before, a square after, and the result used twice.
    let users = users();
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = TargetAttention::new(4);
    let x = [random(&[3, 4], 1), random(&[5, 4], 2), random(&[4, 4], 3), random(&[4, 4], 4)];
    let projected = |x: &[Given]| {
        let x: Vec<Tensor<2>> = x.iter().map(Given::tensor).collect();
        (x[0].clone().matmul(x[2].clone()), x[1].clone().matmul(x[3].clone()))
    };
    let ours = |x: &[Given]| -> Result<Tensor<1>> {
        let (queries, keys) = projected(x);
        let out = longseq.target_attention(&op, &batch, TargetAttentionTensors::new(&queries, &keys))?;
        Ok(row(out.clone().square() + out))
    };
    let eager = |x: &[Given]| -> Result<Tensor<1>> {
        let (queries, keys) = projected(x);
        let (queries, keys): (Tensor<3>, Tensor<3>) = (queries.unsqueeze_dim(1), keys.unsqueeze_dim(1));
        let out = eager::target_attention(&op, &users, &queries, &keys, &keys, None);
        Ok(row(out.clone().square() + out))
    };
    check_gradients("projected", &x, ours, eager)
}

#[test]
fn every_thread_has_its_own_graph() -> Result<()> {
    let longseq = Longseq::cpu();
    let first = gradients(&inputs(), |x| attend(&longseq, x))?;
    std::thread::scope(|threads| {
        let start = |_| threads.spawn(|| gradients(&inputs(), |x| attend(&longseq, x)));
        let running: Vec<_> = (0..4).map(start).collect();
        for thread in running {
            assert_eq!(thread.join().expect("no panic")?, first);
        }
        Ok(())
    })
}

#[test]
fn both_strategies_of_checkpointing() -> Result<()> {
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users())?;
    let op = TargetAttention::new(4);
    let (queries, keys) = (random(&[3, 4], 1), random(&[5, 4], 2));
    let mut all = Vec::new();
    for device in [Device::flex().autodiff(), Device::flex().autodiff().gradient_checkpointing()] {
        let leaf = |x: &Given| Tensor::<2>::from_data(x.tensor::<2>().to_data(), &device).require_grad();
        let (queries, keys) = (leaf(&queries), leaf(&keys));
        // Something that is computed again in the backward pass comes before, and something after.
        let (doubled, shifted) = (queries.clone() * 2.0, keys.clone() + 1.0);
        let given = TargetAttentionTensors::new(&doubled, &shifted);
        let out = longseq.target_attention(&op, &batch, given)?;
        assert_eq!(out.device().gradient_checkpointing_strategy(), device.gradient_checkpointing_strategy());
        let grads = (out.clone() * out.exp()).sum().backward();
        all.push([&queries, &keys].map(|leaf| flat(&leaf.grad(&grads).expect("a gradient"))));
    }
    assert_eq!(all[0], all[1]);
    Ok(())
}
