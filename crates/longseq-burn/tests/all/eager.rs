//! The formulas in burn's own operations, user by user, head by head.

use burn::tensor::activation::{relu, sigmoid, silu, softmax};
use burn::tensor::{Int, Tensor};
use longseq::{Activation, DinPooling, Jagged, Result, TargetAttention, Tin, Weighting};

use crate::common::ints;

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
        Ok([Jagged::from_lengths(&self.histories)?, Jagged::from_lengths(&self.targets)?])
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

/// Zeros of the type and on the device of another tensor.
fn zeros<const D: usize, const E: usize>(shape: [usize; D], like: &Tensor<E>) -> Tensor<D> {
    Tensor::zeros(shape, (&like.device(), like.dtype()))
}

/// One head's rows `[rows, width]` of `[rows, heads, width]`.
pub(crate) fn head(rows: &Tensor<3>, start: usize, count: usize, head: usize) -> Tensor<2> {
    rows.clone().narrow(0, start, count).narrow(1, head, 1).squeeze_dim(1)
}

/// A row, for broadcasting.
fn broad(vector: &Tensor<1>) -> Tensor<2> {
    vector.clone().unsqueeze_dim(0)
}

/// Target attention of queries `[M, H, d]`, keys, values and a bias `[N, H]`: `[M, H, d_v]`.
pub(crate) fn target_attention(
    op: &TargetAttention,
    users: &Users,
    queries: &Tensor<3>,
    keys: &Tensor<3>,
    values: &Tensor<3>,
    bias: Option<&Tensor<2>>,
) -> Tensor<3> {
    let mut rows = Vec::new();
    for [n, length, m, count] in users.each().filter(|user| user[3] > 0) {
        if length == 0 {
            rows.push(zeros([count, op.heads, op.value_width], queries));
            continue;
        }
        let mut heads = Vec::new();
        for h in 0..op.heads {
            let q = head(queries, m, count, h);
            let k = head(keys, n, length, op.kv_head(h));
            let v = head(values, n, length, op.kv_head(h));
            let mut scores = q.matmul(k.transpose()) * f64::from(op.effective_scale());
            if let Some(bias) = bias {
                scores = scores + bias.clone().narrow(0, n, length).narrow(1, h, 1).transpose();
            }
            let weights = match op.weighting {
                Weighting::Softmax => softmax(scores, 1),
                Weighting::Relu => relu(scores),
                Weighting::Silu { divisor } => silu(scores) / f64::from(divisor.value(length)),
                _ => scores,
            };
            heads.push(weights.matmul(v));
        }
        rows.push(Tensor::stack(heads, 1));
    }
    Tensor::cat(rows, 0)
}

/// `log Σ exp s` of each candidate and head, `[M, H]`; users have behaviours.
pub(crate) fn lse(op: &TargetAttention, users: &Users, queries: &Tensor<3>, keys: &Tensor<3>) -> Tensor<2> {
    let mut rows = Vec::new();
    for [n, length, m, count] in users.each() {
        let mut heads = Vec::new();
        for h in 0..op.heads {
            let (q, k) = (head(queries, m, count, h), head(keys, n, length, op.kv_head(h)));
            let scores = q.matmul(k.transpose()) * f64::from(op.effective_scale());
            heads.push(scores.exp().sum_dim(1).log());
        }
        rows.push(Tensor::cat(heads, 1));
    }
    Tensor::cat(rows, 0)
}

/// An activation of DIN.
pub(crate) fn activate(x: &Tensor<2>, activation: &Activation<&Tensor<1>>) -> Tensor<2> {
    let x = x.clone();
    match activation {
        Activation::Relu => relu(x),
        Activation::Sigmoid => sigmoid(x),
        Activation::Prelu { alpha } => relu(x.clone()) - relu(-x) * broad(alpha),
        Activation::Dice { gain, shift, alpha } => {
            let p = sigmoid(x.clone() * broad(gain) + broad(shift));
            let rest = (-p.clone() + 1.0) * broad(alpha);
            x * (p + rest)
        }
        _ => panic!("an activation without a formula here"),
    }
}

/// A hidden layer of DIN: weight, bias, activation.
pub(crate) type Hidden<'a> = (&'a Tensor<2>, &'a Tensor<1>, Activation<&'a Tensor<1>>);

/// The numbers of DIN's network for one user's pairs, `[C·L, 1]`, and with `stop` those of a hidden layer before its activation.
pub(crate) fn din_network(
    targets: &Tensor<2>,
    history: &Tensor<2>,
    hidden: &[Hidden<'_>],
    output: (&Tensor<2>, &Tensor<1>),
    stop: Option<usize>,
) -> Tensor<2> {
    let ([count, d], [length, _]) = (targets.dims(), history.dims());
    let q: Tensor<3> = targets.clone().unsqueeze_dim::<3>(1).expand([count, length, d]);
    let s: Tensor<3> = history.clone().unsqueeze_dim::<3>(0).expand([count, length, d]);
    let parts = vec![q.clone(), s.clone(), q.clone() - s.clone(), q * s];
    let mut x: Tensor<2> = Tensor::cat(parts, 2).reshape([count * length, 4 * d]);
    for (index, (weight, bias, activation)) in hidden.iter().enumerate() {
        x = x.matmul((*weight).clone().transpose()) + broad(bias);
        if stop == Some(index) {
            return x;
        }
        x = activate(&x, activation);
    }
    x.matmul(output.0.clone().transpose()) + broad(output.1)
}

/// DIN's unit, `[M, d]`.
pub(crate) fn din(
    pooling: DinPooling,
    users: &Users,
    targets: &Tensor<2>,
    history: &Tensor<2>,
    hidden: &[Hidden<'_>],
    output: (&Tensor<2>, &Tensor<1>),
) -> Tensor<2> {
    let [_, d] = targets.dims();
    let mut rows = Vec::new();
    for [n, length, m, count] in users.each().filter(|user| user[3] > 0) {
        if length == 0 {
            rows.push(zeros([count, d], targets));
            continue;
        }
        let (q, s) = (targets.clone().narrow(0, m, count), history.clone().narrow(0, n, length));
        let scores: Tensor<2> = din_network(&q, &s, hidden, output, None).reshape([count, length]);
        let weights = match pooling {
            DinPooling::Softmax => softmax(scores, 1),
            _ => scores,
        };
        rows.push(weights.matmul(s));
    }
    Tensor::cat(rows, 0)
}

/// TIN with positions counted from the newest, `[M, d]`.
pub(crate) fn tin(
    op: &Tin,
    users: &Users,
    targets: &Tensor<2>,
    history: &Tensor<2>,
    positions: &Tensor<2>,
) -> Tensor<2> {
    let mut rows = Vec::new();
    for [n, length, m, count] in users.each().filter(|user| user[3] > 0) {
        if length == 0 {
            rows.push(zeros([count, op.width], targets));
            continue;
        }
        let at = (0..length).map(|l| (length - l).min(op.positions - 1) as i64).collect();
        let e = history.clone().narrow(0, n, length) + positions.clone().select(0, ints(at, [length]));
        let v = targets.clone().narrow(0, m, count) + positions.clone().narrow(0, 0, 1);
        let scores = v.clone().matmul(e.clone().transpose()) * f64::from(op.effective_scale());
        let pooled = softmax(scores, 1).matmul(e);
        rows.push(if op.multiply_target { v * pooled } else { pooled });
    }
    Tensor::cat(rows, 0)
}

/// Sums (or means) of rows of a table over bags, `[bags, width]`, with weights `[N, 1]`.
pub(crate) fn bags(
    table: &Tensor<2>,
    ids: &Tensor<2, Int>,
    lengths: &[usize],
    weights: Option<&Tensor<2>>,
    is_mean: bool,
) -> Tensor<2> {
    let [_, width] = table.dims();
    let mut rows = table.clone().select(0, ids.clone().squeeze_dim(1));
    if let Some(weights) = weights {
        rows = rows * weights.clone();
    }
    let (mut start, mut out) = (0, Vec::new());
    for &length in lengths {
        let divisor = if is_mean { length.max(1) as f64 } else { 1.0 };
        out.push(match length {
            0 => zeros([1, width], table),
            _ => rows.clone().narrow(0, start, length).sum_dim(0) / divisor,
        });
        start += length;
    }
    Tensor::cat(out, 0)
}

/// `softmax(scores)·rows` of one candidate that keeps these positions, `[1, width]`, from scores `[1, K]` and rows `[N, width]`.
pub(crate) fn kept(scores: Tensor<2>, rows: &Tensor<2>, positions: &[i64]) -> Tensor<2> {
    let at = ints(positions.to_vec(), [positions.len()]);
    softmax(scores, 1).matmul(rows.clone().select(0, at))
}
