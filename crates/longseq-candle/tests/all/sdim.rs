//! SDIM.

use candle_core::{DType, Device, Result, Tensor};
use longseq::Sdim;
use longseq_candle::{HashTensor, Longseq, SdimTensors};

use crate::attention::batch;
use crate::common::{assert_near, check_gradients, flat, gradients, offsets, random};
use crate::eager::Users;

const WIDTH: usize = 3;

fn op() -> Sdim {
    Sdim::new(WIDTH).with_groups(2, 2)
}

fn rotations(op: &Sdim) -> Result<Tensor> {
    let rotations = op.rotations(5).map_err(candle_core::Error::wrap)?;
    Tensor::from_vec(rotations, (op.width, op.groups, op.bits), &Device::Cpu)
}

/// The signatures of rows `[rows, G]`, by candle's operations.
fn signatures(op: &Sdim, rows: &Tensor, rotations: &Tensor) -> Result<Vec<Vec<u32>>> {
    let rotations = rotations.reshape((op.width, op.groups * op.bits))?.to_dtype(rows.dtype())?;
    let signs = rows.matmul(&rotations)?.gt(0.0)?.to_vec2::<u8>()?;
    let word = |bits: &[u8]| bits.iter().enumerate().map(|(t, &bit)| u32::from(bit) << t).sum::<u32>();
    Ok(signs.iter().map(|bits| bits.chunks(op.bits).map(word).collect()).collect())
}

/// SDIM with given signatures, in candle's operations.
fn eager(
    op: &Sdim,
    users: &Users,
    history: &Tensor,
    of_history: &[Vec<u32>],
    of_targets: &[Vec<u32>],
) -> Result<Tensor> {
    let mut rows = Vec::new();
    for [n, length, m, count] in users.each() {
        for target in &of_targets[m..m + count] {
            let mut sum = Tensor::zeros(op.width, history.dtype(), &Device::Cpu)?;
            for (group, bucket) in target.iter().enumerate() {
                let inside: Vec<u32> =
                    (n..n + length).filter(|&l| of_history[l][group] == *bucket).map(|l| l as u32).collect();
                if inside.is_empty() {
                    continue;
                }
                let inside = Tensor::from_vec(inside.clone(), inside.len(), &Device::Cpu)?;
                let row = history.index_select(&inside, 0)?.sum(0)?;
                let row = if op.normalise { row.broadcast_div(&row.sqr()?.sum_all()?.sqrt()?)? } else { row };
                sum = (sum + row)?;
            }
            rows.push((sum / op.groups as f64)?);
        }
    }
    Tensor::stack(&rows, 0)
}

#[test]
fn without_a_table() -> Result<()> {
    let users = Users::new(&[5, 0, 3], &[2, 1, 2]);
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let (history, targets) = (random(&[8, WIDTH], 1)?, random(&[5, WIDTH], 2)?);
    for normalise in [true, false] {
        let op = op().with_normalise(normalise);
        let rotations = rotations(&op)?;
        let hashed = [signatures(&op, &history, &rotations)?, signatures(&op, &targets, &rotations)?];
        let given: Vec<Tensor> = hashed
            .iter()
            .map(|rows| Tensor::new(rows.clone(), &Device::Cpu)?.to_dtype(DType::U8))
            .collect::<Result<_>>()?;
        let eager = |x: &[Tensor]| eager(&op, &users, &x[0], &hashed[0], &hashed[1]);
        // Differences with the signatures given: a step might change one.
        check_gradients(
            "given",
            std::slice::from_ref(&history),
            |x| {
                let tensors = SdimTensors {
                    history: &x[0],
                    history_hash: HashTensor::Signatures(&given[0]),
                    targets: None,
                    target_hash: HashTensor::Signatures(&given[1]),
                };
                longseq.sdim_attend(&op, &batch, tensors)
            },
            eager,
        )?;
        let ours =
            |x: &[Tensor]| longseq.sdim_attend(&op, &batch, SdimTensors::new(&x[1], &x[0], &rotations));
        let got = gradients(&[history.clone(), targets.clone()], ours)?;
        let exact = gradients(&[history.to_dtype(DType::F64)?], eager)?;
        assert_near("history", &got[0], &exact[0], 2e-5);
        // What is hashed has no gradient.
        assert_eq!(got[1], [0.0; 15]);
        assert_eq!(
            longseq.sdim_signatures(&op, &history, &rotations)?.to_vec2::<u8>()?,
            given[0].to_vec2::<u8>()?
        );
    }
    Ok(())
}

#[test]
fn tables_of_two_spans() -> Result<()> {
    let (longseq, op) = (Longseq::cpu(), op());
    let rotations = rotations(&op)?;
    let hash = HashTensor::Rotations(&rotations);
    let targets = random(&[3, WIDTH], 2)?;
    let whole = Users::new(&[4, 2], &[2, 1]);
    let rows = longseq.jagged(&offsets(&whole.targets))?;
    // The first user's last two behaviours and the second's last are added later.
    let (old, new) = (longseq.jagged(&[0u32, 2, 3][..])?, longseq.jagged(&[0u32, 2, 3][..])?);
    let x = [random(&[3, WIDTH], 3)?, random(&[3, WIDTH], 4)?];
    let ours = |x: &[Tensor]| {
        let table = longseq.sdim_encode(&op, &old, &x[0], hash)?;
        let table = longseq.sdim_append(&op, &new, &x[1], hash, &table)?;
        assert_eq!(table.dims(), [2, 2, 4, WIDTH]);
        longseq.sdim_query(&op, &rows, &table, Some(&targets), hash)
    };
    let joined = |x: &[Tensor]| {
        let part = |x: &Tensor, start, count| x.narrow(0, start, count);
        Tensor::cat(&[part(&x[0], 0, 2)?, part(&x[1], 0, 2)?, part(&x[0], 2, 1)?, part(&x[1], 2, 1)?], 0)
    };
    let history = joined(&x)?;
    let hashed = [signatures(&op, &history, &rotations)?, signatures(&op, &targets, &rotations)?];
    crate::common::check_eager("tables", &x, ours, |x| {
        eager(&op, &whole, &joined(x)?, &hashed[0], &hashed[1])
    })
}

#[test]
fn long_signatures_and_16_bits() -> Result<()> {
    let longseq = Longseq::cpu();
    let users = Users::new(&[6], &[2]);
    let batch = batch(&longseq, &users)?;
    let op = Sdim::new(WIDTH).with_groups(2, 9);
    let rotations = rotations(&op)?;
    let (history, targets) = (random(&[6, WIDTH], 1)?, random(&[2, WIDTH], 2)?);
    let given = longseq.sdim_signatures(&op, &history, &rotations)?;
    assert_eq!(given.dtype(), DType::U32);
    let of_targets = longseq.sdim_signatures(&op, &targets, &rotations)?;
    for dtype in [DType::F32, DType::BF16] {
        let history = history.to_dtype(dtype)?;
        let tensors = SdimTensors {
            history: &history,
            history_hash: HashTensor::Signatures(&given),
            targets: None,
            target_hash: HashTensor::Signatures(&of_targets),
        };
        let out = longseq.sdim_attend(&op, &batch, tensors)?;
        let hashed = [given.to_vec2::<u32>()?, of_targets.to_vec2::<u32>()?];
        let exact = eager(&op, &users, &history.to_dtype(DType::F64)?, &hashed[0], &hashed[1])?;
        assert_eq!(out.dtype(), dtype);
        assert_near("out", &flat(&out)?, &flat(&exact)?, 1e-2);
    }
    Ok(())
}
