//! TIN.

use burn::tensor::{DType, FloatDType, Tensor};
use longseq::{Result, Tin};
use longseq_burn::{Batch, Longseq, TinTensors};

use crate::attention::batch;
use crate::common::{Given, assert_near, check_gradients, flat, gradients, ints, ints_of, random, row};
use crate::eager::{self, Users};

fn inputs(users: &Users) -> Vec<Given> {
    vec![random(&[users.candidates(), 4], 1), random(&[users.behaviours(), 4], 2), random(&[3, 4], 3)]
}

fn ours(longseq: &Longseq, batch: &Batch, op: &Tin, x: &[Given]) -> Result<Tensor<1>> {
    let (targets, history, positions) = (x[0].tensor(), x[1].tensor(), x[2].tensor());
    Ok(row(longseq.tin(op, batch, TinTensors::new(&targets, &history, &positions))?))
}

fn eager(users: &Users, op: &Tin, x: &[Given]) -> Result<Tensor<1>> {
    Ok(row(eager::tin(op, users, &x[0].tensor(), &x[1].tensor(), &x[2].tensor())))
}

#[test]
fn candidates_behaviours_and_positions() -> Result<()> {
    let users = Users::new(&[5, 0, 2], &[2, 1, 1]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    for multiply_target in [true, false] {
        let op = Tin::new(4).with_positions(3).with_multiply_target(multiply_target);
        check_gradients(
            &format!("tin {multiply_target}"),
            &inputs(&users),
            |x| ours(&longseq, &batch, &op, x),
            |x| eager(&users, &op, x),
        )?;
    }
    Ok(())
}

#[test]
fn given_positions_are_those_that_are_counted() -> Result<()> {
    let users = Users::new(&[4], &[2]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = Tin::new(4).with_positions(3);
    let (counted, zeros) = (ints(vec![2, 2, 2, 1], [4]), ints_of(vec![0, 0], [2], DType::U32));
    let x = inputs(&users);
    let own = gradients(&x, |x| ours(&longseq, &batch, &op, x))?;
    let given = gradients(&x, |x| {
        let (targets, history, positions) = (x[0].tensor(), x[1].tensor(), x[2].tensor());
        let tensors = TinTensors::new(&targets, &history, &positions).with_history_positions(&counted);
        Ok(row(longseq.tin(&op, &batch, tensors.with_target_positions(&zeros))?))
    })?;
    assert_eq!(given, own);
    Ok(())
}

#[test]
fn storage_of_16_bits() -> Result<()> {
    let users = Users::new(&[4, 1], &[2, 1]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let op = Tin::new(4).with_positions(3);
    let x: Vec<Given> = inputs(&users).iter().map(|x| x.cast(FloatDType::F16)).collect();
    let wide: Vec<Given> = x.iter().map(Given::wide).collect();
    let out = flat(&ours(&longseq, &batch, &op, &x)?);
    assert_near("out", &out, &flat(&eager(&users, &op, &wide)?), 4e-3);
    let exact = gradients(&wide, |x| eager(&users, &op, x))?;
    let got = gradients(&x, |x| ours(&longseq, &batch, &op, x))?;
    for (got, exact) in got.iter().zip(exact) {
        assert_near("gradient", got, &exact, 1e-2);
    }
    Ok(())
}
