//! The formulas in candle's own operations, user by user, head by head.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::ops::{sigmoid, silu, softmax};
use longseq::{Activation, DinPooling, Jagged, TargetAttention, Tin, Weighting};

pub(crate) struct Users {
    pub(crate) histories: Vec<usize>,
    pub(crate) targets: Vec<usize>,
}

impl Users {
    pub(crate) fn new(histories: &[usize], targets: &[usize]) -> Self {
        Self { histories: histories.to_vec(), targets: targets.to_vec() }
    }

    pub(crate) fn behaviours(&self) -> usize {
        self.histories.iter().sum()
    }

    pub(crate) fn candidates(&self) -> usize {
        self.targets.iter().sum()
    }

    pub(crate) fn jagged(&self) -> Result<[Jagged; 2]> {
        let jagged = |lengths: &[usize]| Jagged::from_lengths(lengths).map_err(candle_core::Error::wrap);
        Ok([jagged(&self.histories)?, jagged(&self.targets)?])
    }

    /// For each user the first behaviour, their number, the first candidate, their number.
    pub(crate) fn each(&self) -> impl Iterator<Item = [usize; 4]> + '_ {
        let (mut n, mut m) = (0, 0);
        self.histories.iter().zip(&self.targets).map(move |(&length, &count)| {
            let user = [n, length, m, count];
            (n, m) = (n + length, m + count);
            user
        })
    }
}

/// One head's rows `[rows, width]` of `[rows, heads, width]`.
fn head(rows: &Tensor, start: usize, count: usize, head: usize) -> Result<Tensor> {
    rows.narrow(0, start, count)?.narrow(1, head, 1)?.squeeze(1)?.contiguous()
}

/// Target attention of queries `[M, H, d]`, keys, values and a bias `[N, H]`: `[M, H, d_v]`.
pub(crate) fn target_attention(
    op: &TargetAttention,
    users: &Users,
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let mut rows = Vec::new();
    for [n, length, m, count] in users.each().filter(|user| user[3] > 0) {
        if length == 0 {
            rows.push(Tensor::zeros((count, op.heads, op.value_width), queries.dtype(), &Device::Cpu)?);
            continue;
        }
        let mut heads = Vec::new();
        for h in 0..op.heads {
            let q = head(queries, m, count, h)?;
            let k = head(keys, n, length, op.kv_head(h))?;
            let v = head(values, n, length, op.kv_head(h))?;
            let mut scores = (q.matmul(&k.t()?)? * f64::from(op.effective_scale()))?;
            if let Some(bias) = bias {
                scores = scores.broadcast_add(&bias.narrow(0, n, length)?.narrow(1, h, 1)?.t()?)?;
            }
            let weights = match op.weighting {
                Weighting::Softmax => softmax(&scores, D::Minus1)?,
                Weighting::Relu => scores.relu()?,
                Weighting::Silu { divisor } => (silu(&scores)? / f64::from(divisor.value(length)))?,
                _ => scores,
            };
            heads.push(weights.matmul(&v)?);
        }
        rows.push(Tensor::stack(&heads, 1)?);
    }
    Tensor::cat(&rows, 0)
}

/// `log Σ exp s` of each candidate and head, `[M, H]`; users have behaviours.
pub(crate) fn lse(op: &TargetAttention, users: &Users, queries: &Tensor, keys: &Tensor) -> Result<Tensor> {
    let mut rows = Vec::new();
    for [n, length, m, count] in users.each() {
        let mut heads = Vec::new();
        for h in 0..op.heads {
            let (q, k) = (head(queries, m, count, h)?, head(keys, n, length, op.kv_head(h))?);
            let scores = (q.matmul(&k.t()?)? * f64::from(op.effective_scale()))?;
            heads.push(scores.exp()?.sum(1)?.log()?);
        }
        rows.push(Tensor::stack(&heads, 1)?);
    }
    Tensor::cat(&rows, 0)
}

/// An activation of DIN.
pub(crate) fn activate(x: &Tensor, activation: &Activation<&Tensor>) -> Result<Tensor> {
    match activation {
        Activation::Relu => x.relu(),
        Activation::Sigmoid => sigmoid(x),
        Activation::Prelu { alpha } => x.relu()?.sub(&x.neg()?.relu()?.broadcast_mul(alpha)?),
        Activation::Dice { gain, shift, alpha } => {
            let p = sigmoid(&x.broadcast_mul(gain)?.broadcast_add(shift)?)?;
            let rest = (1.0 - &p)?.broadcast_mul(alpha)?;
            x.mul(&p.add(&rest)?)
        }
        _ => candle_core::bail!("an activation without a formula here"),
    }
}

/// The numbers of DIN's network for one user's pairs, `[C·L, 1]`, and with `stop` those of a hidden layer before its activation.
pub(crate) fn din_network(
    targets: &Tensor,
    history: &Tensor,
    hidden: &[(&Tensor, &Tensor, Activation<&Tensor>)],
    output: (&Tensor, &Tensor),
    stop: Option<usize>,
) -> Result<Tensor> {
    let ((count, d), length) = (targets.dims2()?, history.dim(0)?);
    let q = targets.reshape((count, 1, d))?.broadcast_as((count, length, d))?.contiguous()?;
    let s = history.reshape((1, length, d))?.broadcast_as((count, length, d))?.contiguous()?;
    let mut x = Tensor::cat(&[&q, &s, &q.sub(&s)?, &q.mul(&s)?], 2)?.reshape((count * length, 4 * d))?;
    for (index, (weight, bias, activation)) in hidden.iter().enumerate() {
        x = x.matmul(&weight.t()?)?.broadcast_add(bias)?;
        if stop == Some(index) {
            return Ok(x);
        }
        x = activate(&x, activation)?;
    }
    x.matmul(&output.0.t()?)?.broadcast_add(output.1)
}

/// DIN's unit, `[M, d]`.
pub(crate) fn din(
    pooling: DinPooling,
    users: &Users,
    targets: &Tensor,
    history: &Tensor,
    hidden: &[(&Tensor, &Tensor, Activation<&Tensor>)],
    output: (&Tensor, &Tensor),
) -> Result<Tensor> {
    let d = targets.dim(1)?;
    let mut rows = Vec::new();
    for [n, length, m, count] in users.each().filter(|user| user[3] > 0) {
        if length == 0 {
            rows.push(Tensor::zeros((count, d), targets.dtype(), &Device::Cpu)?);
            continue;
        }
        let (q, s) = (targets.narrow(0, m, count)?, history.narrow(0, n, length)?);
        let scores = din_network(&q, &s, hidden, output, None)?.reshape((count, length))?;
        let weights = match pooling {
            DinPooling::Softmax => softmax(&scores, D::Minus1)?,
            _ => scores,
        };
        rows.push(weights.matmul(&s)?);
    }
    Tensor::cat(&rows, 0)
}

/// TIN with positions counted from the newest, `[M, d]`.
pub(crate) fn tin(
    op: &Tin,
    users: &Users,
    targets: &Tensor,
    history: &Tensor,
    positions: &Tensor,
) -> Result<Tensor> {
    let mut rows = Vec::new();
    for [n, length, m, count] in users.each().filter(|user| user[3] > 0) {
        if length == 0 {
            rows.push(Tensor::zeros((count, op.width), targets.dtype(), &Device::Cpu)?);
            continue;
        }
        let at: Vec<u32> = (0..length).map(|l| (length - l).min(op.positions - 1) as u32).collect();
        let at = Tensor::from_vec(at, length, &Device::Cpu)?;
        let e = history.narrow(0, n, length)?.add(&positions.index_select(&at, 0)?)?;
        let v = targets.narrow(0, m, count)?.broadcast_add(&positions.narrow(0, 0, 1)?)?;
        let scores = (v.matmul(&e.t()?)? * f64::from(op.effective_scale()))?;
        let pooled = softmax(&scores, D::Minus1)?.matmul(&e)?;
        rows.push(if op.multiply_target { v.mul(&pooled)? } else { pooled });
    }
    Tensor::cat(&rows, 0)
}

/// Sums (or means) of rows of a table over bags, `[bags, width]`, with weights `[N]`.
pub(crate) fn bags(
    table: &Tensor,
    ids: &Tensor,
    lengths: &[usize],
    weights: Option<&Tensor>,
    is_mean: bool,
) -> Result<Tensor> {
    let mut rows = table.index_select(ids, 0)?;
    if let Some(weights) = weights {
        rows = rows.broadcast_mul(&weights.unsqueeze(1)?)?;
    }
    let (mut start, mut out) = (0, Vec::new());
    for &length in lengths {
        let divisor = if is_mean { length.max(1) as f64 } else { 1.0 };
        out.push(match length {
            0 => Tensor::zeros(table.dim(1)?, table.dtype(), &Device::Cpu)?,
            _ => (rows.narrow(0, start, length)?.sum(0)? / divisor)?,
        });
        start += length;
    }
    Tensor::stack(&out, 0)
}

/// `softmax(scores)·rows` of candidates that keep these positions: `[M, width]`, from scores `[M, K]` and rows `[N, width]`.
pub(crate) fn kept(scores: &Tensor, rows: &Tensor, positions: &[Vec<u32>]) -> Result<Tensor> {
    let mut out = Vec::new();
    for (m, positions) in positions.iter().enumerate() {
        let count = positions.len();
        if count == 0 {
            out.push(Tensor::zeros((1, rows.dim(1)?), rows.dtype(), &Device::Cpu)?);
            continue;
        }
        let at = Tensor::from_vec(positions.clone(), count, &Device::Cpu)?;
        let weights = softmax(&scores.narrow(0, m, 1)?.narrow(1, 0, count)?, D::Minus1)?;
        out.push(weights.matmul(&rows.index_select(&at, 0)?)?);
    }
    Tensor::cat(&out, 0)
}

/// A tensor of `f64`.
pub(crate) fn wide(tensor: &Tensor) -> Result<Tensor> {
    tensor.to_dtype(DType::F64)
}
