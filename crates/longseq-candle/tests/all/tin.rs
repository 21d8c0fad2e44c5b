//! TIN.

use candle_core::{DType, Device, Result, Tensor};
use longseq::Tin;
use longseq_candle::{Longseq, TinTensors};

use crate::attention::batch;
use crate::common::{assert_near, check_gradients, flat, gradients, random};
use crate::eager::{self, Users};

fn inputs(users: &Users) -> Result<Vec<Tensor>> {
    Ok(vec![random(&[users.candidates(), 4], 1)?, random(&[users.behaviours(), 4], 2)?, random(&[3, 4], 3)?])
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
            &inputs(&users)?,
            |x| longseq.tin(&op, &batch, TinTensors::new(&x[0], &x[1], &x[2])),
            |x| eager::tin(&op, &users, &x[0], &x[1], &x[2]),
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
    let (counted, zeros) =
        (Tensor::new(&[2i64, 2, 2, 1], &Device::Cpu)?, Tensor::zeros(2, DType::U32, &Device::Cpu)?);
    let x = inputs(&users)?;
    let own = gradients(&x, |x| longseq.tin(&op, &batch, TinTensors::new(&x[0], &x[1], &x[2])))?;
    let given = gradients(&x, |x| {
        let tensors = TinTensors::new(&x[0], &x[1], &x[2]).with_history_positions(&counted);
        longseq.tin(&op, &batch, tensors.with_target_positions(&zeros))
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
    let x: Vec<Tensor> = inputs(&users)?.iter().map(|x| x.to_dtype(DType::F16)).collect::<Result<_>>()?;
    let wide: Vec<Tensor> = x.iter().map(eager::wide).collect::<Result<_>>()?;
    let ours = |x: &[Tensor]| longseq.tin(&op, &batch, TinTensors::new(&x[0], &x[1], &x[2]));
    assert_near(
        "out",
        &flat(&ours(&x)?)?,
        &flat(&eager::tin(&op, &users, &wide[0], &wide[1], &wide[2])?)?,
        4e-3,
    );
    let exact = gradients(&wide, |x| eager::tin(&op, &users, &x[0], &x[1], &x[2]))?;
    for (got, exact) in gradients(&x, ours)?.iter().zip(exact) {
        assert_near("gradient", got, &exact, 1e-2);
    }
    Ok(())
}
