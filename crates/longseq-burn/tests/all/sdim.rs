//! SDIM.

use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use longseq::{Result, Sdim};
use longseq_burn::{HashTensor, Longseq, SdimTensors};

use crate::attention::batch;
use crate::common::{
    Given, assert_near, check_eager, check_gradients, flat, flat_ints, gradients, ints, ints_of, offsets,
    random, row,
};
use crate::eager::Users;

const WIDTH: usize = 3;

fn op() -> Sdim {
    Sdim::new(WIDTH).with_groups(2, 2)
}

fn rotations(op: &Sdim) -> Result<Tensor<3>> {
    let data = TensorData::new(op.rotations(5)?, [op.width, op.groups, op.bits]);
    Ok(Tensor::from_data(data, &Device::flex()))
}

/// The signatures of rows, each of `G` numbers, by burn's operations.
fn signatures(op: &Sdim, rows: &Tensor<2>, rotations: &Tensor<3>) -> Vec<Vec<u32>> {
    let rotations: Tensor<2> = rotations.clone().reshape([op.width, op.groups * op.bits]);
    let signs: Vec<f32> = rows.clone().matmul(rotations).to_data().iter().collect();
    let word =
        |numbers: &[f32]| numbers.iter().enumerate().map(|(t, &x)| u32::from(x > 0.0) << t).sum::<u32>();
    signs.chunks(op.groups * op.bits).map(|row| row.chunks(op.bits).map(word).collect()).collect()
}

/// Them as a tensor.
fn given(signatures: &[Vec<u32>], dtype: DType) -> Tensor<2, Int> {
    let values = signatures.iter().flatten().map(|&word| word.into()).collect();
    ints_of(values, [signatures.len(), signatures[0].len()], dtype)
}

/// SDIM with given signatures, in burn's operations.
fn eager(
    op: &Sdim,
    users: &Users,
    history: &Tensor<2>,
    of_history: &[Vec<u32>],
    of_targets: &[Vec<u32>],
) -> Tensor<2> {
    let mut rows = Vec::new();
    for [n, length, m, count] in users.each() {
        for target in &of_targets[m..m + count] {
            let mut sum = Tensor::<2>::zeros([1, op.width], (&history.device(), history.dtype()));
            for (group, bucket) in target.iter().enumerate() {
                let inside: Vec<i64> =
                    (n..n + length).filter(|&l| of_history[l][group] == *bucket).map(|l| l as i64).collect();
                if inside.is_empty() {
                    continue;
                }
                let count = inside.len();
                let row = history.clone().select(0, ints(inside, [count])).sum_dim(0);
                let norm: Tensor<2> = row.clone().square().sum_dim(1).sqrt();
                sum = sum + if op.normalise { row / norm } else { row };
            }
            rows.push(sum / op.groups as f64);
        }
    }
    Tensor::cat(rows, 0)
}

#[test]
fn without_a_table() -> Result<()> {
    let users = Users::new(&[5, 0, 3], &[2, 1, 2]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let (history, targets) = (random(&[8, WIDTH], 1), random(&[5, WIDTH], 2));
    for normalise in [true, false] {
        let op = op().with_normalise(normalise);
        let rotations = rotations(&op)?;
        let hashed = [&history, &targets].map(|rows| signatures(&op, &rows.tensor(), &rotations));
        let given = [given(&hashed[0], DType::U8), given(&hashed[1], DType::I64)];
        let eager = |x: &[Given]| -> Result<Tensor<1>> {
            Ok(row(eager(&op, &users, &x[0].tensor(), &hashed[0], &hashed[1])))
        };
        // Differences with the signatures given: a step might change one.
        check_gradients(
            "given",
            &[history.clone()],
            |x| {
                let history = x[0].tensor();
                let tensors = SdimTensors {
                    history: &history,
                    history_hash: HashTensor::Signatures(&given[0]),
                    targets: None,
                    target_hash: HashTensor::Signatures(&given[1]),
                };
                Ok(row(longseq.sdim_attend(&op, &batch, tensors)?))
            },
            eager,
        )?;
        let ours = |x: &[Given]| -> Result<Tensor<1>> {
            let (history, targets) = (x[0].tensor(), x[1].tensor());
            let tensors = SdimTensors::new(&targets, &history, &rotations);
            Ok(row(longseq.sdim_attend(&op, &batch, tensors)?))
        };
        let got = gradients(&[history.clone(), targets.clone()], ours)?;
        let exact = gradients(&[history.wide()], eager)?;
        assert_near("history", &got[0], &exact[0], 2e-5);
        // What is hashed has no gradient.
        assert_eq!(got[1], [0.0; 15]);
        let own = longseq.sdim_signatures(&op, &history.tensor(), &rotations)?;
        assert_eq!((own.dtype(), flat_ints(&own)), (DType::U8, hashed[0].concat()));
    }
    Ok(())
}

#[test]
fn tables_of_two_spans() -> Result<()> {
    let (longseq, op) = (Longseq::cpu(), op());
    let rotations = rotations(&op)?;
    let hash = HashTensor::Rotations(&rotations);
    let targets = random(&[3, WIDTH], 2).tensor::<2>();
    let whole = Users::new(&[4, 2], &[2, 1]);
    let rows = longseq.jagged(&offsets(&whole.targets))?;
    // The first user's last two behaviours and the second's last are added later.
    let (old, new) = (longseq.jagged(&[0u32, 2, 3][..])?, longseq.jagged(&[0u32, 2, 3][..])?);
    let x = [random(&[3, WIDTH], 3), random(&[3, WIDTH], 4)];
    let ours = |x: &[Given]| -> Result<Tensor<1>> {
        let table = longseq.sdim_encode(&op, &old, &x[0].tensor(), hash)?;
        let table = longseq.sdim_append(&op, &new, &x[1].tensor(), hash, &table)?;
        assert_eq!(table.dims(), [2, 2, 4, WIDTH]);
        Ok(row(longseq.sdim_query(&op, &rows, &table, Some(&targets), hash)?))
    };
    let joined = |x: &[Given]| -> Tensor<2> {
        let part = |index: usize, start, count| x[index].tensor::<2>().narrow(0, start, count);
        Tensor::cat(vec![part(0, 0, 2), part(1, 0, 2), part(0, 2, 1), part(1, 2, 1)], 0)
    };
    let hashed = [signatures(&op, &joined(&x), &rotations), signatures(&op, &targets, &rotations)];
    check_eager("tables", &x, ours, |x| Ok(row(eager(&op, &whole, &joined(x), &hashed[0], &hashed[1]))))
}

#[test]
fn long_signatures_and_16_bits() -> Result<()> {
    let longseq = Longseq::cpu();
    let users = Users::new(&[6], &[2]);
    let batch = batch(&longseq, &users)?;
    let op = Sdim::new(WIDTH).with_groups(2, 9);
    let rotations = rotations(&op)?;
    let (history, targets) = (random(&[6, WIDTH], 1), random(&[2, WIDTH], 2));
    let of_history = longseq.sdim_signatures(&op, &history.tensor(), &rotations)?;
    assert_eq!(of_history.dtype(), DType::U16);
    let of_targets = longseq.sdim_signatures(&op, &targets.tensor(), &rotations)?;
    let words = |tensor: &Tensor<2, Int>| -> Vec<Vec<u32>> {
        flat_ints(tensor).chunks(op.groups).map(<[u32]>::to_vec).collect()
    };
    for dtype in [FloatDType::F32, FloatDType::BF16] {
        let rounded = history.cast(dtype);
        let rows = rounded.tensor();
        let tensors = SdimTensors {
            history: &rows,
            history_hash: HashTensor::Signatures(&of_history),
            targets: None,
            target_hash: HashTensor::Signatures(&of_targets),
        };
        let out = longseq.sdim_attend(&op, &batch, tensors)?;
        let wide = rounded.wide().tensor();
        let exact = eager(&op, &users, &wide, &words(&of_history), &words(&of_targets));
        assert_eq!(out.dtype(), DType::from(dtype));
        assert_near("out", &flat(&out), &flat(&exact), 1e-2);
    }
    Ok(())
}
