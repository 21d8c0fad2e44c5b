//! Sixteen query rows of the backward pass, and what a block of behaviours computes with them.

use crate::cpu::target_attention::backward::pass::{Pass, SpanRows};
use crate::cpu::target_attention::backward::softmax_state::SoftmaxState;
use crate::cpu::target_attention::lane_rows::{KeyBlock, LaneRows};
use crate::cpu::vector::{
    FEW, LANES, Lanes, Row, exp, product, product_of_few, product_of_lanes, sigmoids, weighted_sum,
    weighted_sum_of_few,
};
use crate::ops::{TargetAttention, Weighting};

/// Up to [`LANES`] query rows, one per lane.
pub(super) struct QueryRows {
    rows: LaneRows,
    queries: Packed,
    grad_out: Packed,
    /// Weights of softmax are `exp(score − shift) · factor`; in lanes without a row they are 0.
    shift: Row,
    factor: Row,
    /// With softmax, `⟨grad_out, out⟩ − grad_lse`, which is subtracted from the gradients of the weights.
    subtracted: Row,
    /// The gradient of the queries over all blocks so far, in the layout of `queries.lanes`.
    grad_queries: Vec<Row>,
    /// Whether a query or a `grad_out` is not finite.
    is_poisoned: bool,
    /// The length of the user's history.
    length: usize,
}

/// Rows of one width in two layouts.
struct Packed {
    /// What [`LaneRows::pack`] makes, for products that give a number per row.
    lanes: Vec<Row>,
    /// `[rows, vectors]`, filled up with zeros, for sums of rows.
    rows: Vec<Row>,
    vectors: usize,
}

impl Packed {
    fn new(op: &TargetAttention, lane_rows: LaneRows, matrix: &[f32], width: usize) -> Self {
        let lanes = lane_rows.pack(op, matrix, width, lane_rows.are_few(width));
        let vectors = width.div_ceil(LANES);
        let mut rows = vec![[0.0; LANES]; lane_rows.count * vectors];
        for (lane, out) in rows.chunks_mut(vectors).enumerate() {
            let row = &matrix[lane_rows.row(op, lane) * width..][..width];
            out.as_flattened_mut().iter_mut().zip(row).for_each(|(out, value)| *out = *value);
        }
        Self { lanes, rows, vectors }
    }

    /// The row of a lane, filled up with zeros.
    fn row(&self, lane: usize) -> &[f32] {
        self.rows[lane * self.vectors..(lane + 1) * self.vectors].as_flattened()
    }

    fn is_finite(&self) -> bool {
        self.rows.as_flattened().iter().all(|x| x.is_finite())
    }
}

/// Scratch for a block: `[behaviours]`, one lane per query row.
pub(super) struct BlockScores {
    scores: Vec<Row>,
    weights: Vec<Row>,
    /// The derivatives of the weights by their scores, then the gradients of the scores, then those times the scale.
    grads: Vec<Row>,
    /// `⟨grad_out, v⟩`, of few query rows.
    dots: Vec<Row>,
}

impl BlockScores {
    pub(super) fn new(behaviours: usize) -> Self {
        let rows = || vec![[0.0; LANES]; behaviours];
        Self { scores: rows(), weights: rows(), grads: rows(), dots: rows() }
    }

    pub(super) fn truncate(&mut self, behaviours: usize) {
        for rows in [&mut self.scores, &mut self.weights, &mut self.grads, &mut self.dots] {
            rows.truncate(behaviours);
        }
    }
}

/// A block of behaviours.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub(super) keys: KeyBlock<'a>,
    /// `[behaviours, H_kv, d_v]`.
    pub(super) values: &'a [f32],
}

/// The gradients of a block. The first query rows of a head write them, the others add to them.
pub(super) struct BlockGradients<'a> {
    /// `None` where not asked for.
    pub(super) keys: Option<Sums<'a>>,
    pub(super) values: Option<Sums<'a>>,
    /// `[behaviours, H]`.
    pub(super) bias: Option<&'a mut [f32]>,
    pub(super) queries: bool,
    /// Whether the keys are the values.
    pub(super) are_aliased: bool,
}

/// `[behaviours, H_kv, vectors]`: rows filled up to whole vectors.
pub(super) struct Sums<'a> {
    pub(super) rows: &'a mut [Row],
    pub(super) vectors: usize,
    /// The vectors of all heads of a behaviour.
    pub(super) stride: usize,
}

impl<'a> Sums<'a> {
    /// Adds to the row of each behaviour and a head `Σ_lane factors[behaviour][lane] · others[lane]`. What the rows held before
    /// does not count where `is_first`.
    #[inline(always)]
    fn add_product<L: Lanes>(
        &mut self,
        l: L,
        (kv_head, is_first): (usize, bool),
        factors: &[Row],
        others: &Packed,
    ) {
        let (stride, first) = (self.stride, kv_head * self.vectors);
        let others = (&others.rows[..], others.vectors);
        // Each sum over the lanes starts from 0, so that the rounding errors of many candidates do not add up in one chain.
        product_of_lanes(l, factors, others, |behaviour, vector, sum| {
            let place = &mut self.rows[behaviour * stride + first + vector];
            let sum = if is_first { sum } else { l.add(l.load(place), sum) };
            l.store(place, sum);
        });
    }

    /// Sets the rows of a head to zero.
    fn clear(&mut self, kv_head: usize) {
        for rows in self.rows.chunks_exact_mut(self.stride) {
            rows[kv_head * self.vectors..(kv_head + 1) * self.vectors].fill([0.0; LANES]);
        }
    }

    /// `row += weight · other`, in the row of a behaviour and head.
    fn add(&mut self, behaviour: usize, kv_head: usize, weight: f32, other: &[f32]) {
        let start = behaviour * self.stride + kv_head * self.vectors;
        let row = self.rows[start..start + self.vectors].as_flattened_mut();
        row.iter_mut().zip(other).for_each(|(sum, x)| *sum += weight * x);
    }
}

impl<'a> BlockGradients<'a> {
    fn needs_score_gradients(&self) -> bool {
        self.keys.is_some() || self.bias.is_some() || self.queries
    }

    /// Where the gradients of the values go.
    fn values(&mut self) -> Option<&mut Sums<'a>> {
        if self.are_aliased { self.keys.as_mut() } else { self.values.as_mut() }
    }
}

impl QueryRows {
    /// All query rows of a user's candidates.
    pub(super) fn of(pass: &Pass<'_>, span: &SpanRows, states: Option<&[SoftmaxState]>) -> Vec<Self> {
        let op = pass.op;
        let rows = span.targets.start * op.heads..span.targets.end * op.heads;
        let queries = pass.inputs.queries.to_vec(rows.start * op.width..rows.end * op.width);
        let outs = rows.start * op.value_width..rows.end * op.value_width;
        let grad_out = pass.grad_out.to_vec(outs.clone());
        let new = |lane_rows: LaneRows| {
            let queries = Packed::new(op, lane_rows, &queries, op.width);
            let grad_out = Packed::new(op, lane_rows, &grad_out, op.value_width);
            let is_poisoned = !(queries.is_finite() && grad_out.is_finite());
            let grad_queries = vec![[0.0; LANES]; if pass.queries { queries.lanes.len() } else { 0 }];
            let zeros = [0.0; LANES];
            let (shift, factor, subtracted) = ([f32::INFINITY; LANES], [1.0; LANES], zeros);
            let length = span.length;
            Self {
                rows: lane_rows,
                queries,
                grad_out,
                shift,
                factor,
                subtracted,
                grad_queries,
                is_poisoned,
                length,
            }
        };
        let mut all: Vec<Self> = LaneRows::of(op, span.targets.len()).map(new).collect();
        let Some((out, lse)) = pass.saved else { return all };
        let out = out.to_vec(outs);
        for group in &mut all {
            for lane in 0..group.rows.count {
                let row = group.rows.row(op, lane);
                let state = states.map_or(SoftmaxState::of(lse[rows.start + row]), |states| states[row]);
                (group.shift[lane], group.factor[lane]) = state.shift_and_factor();
                let out = &out[row * op.value_width..][..op.value_width];
                let products = out
                    .iter()
                    .zip(group.grad_out.row(lane))
                    .map(|(out, grad)| f64::from(*out) * f64::from(*grad));
                let grad_lse = pass.grad_lse.map_or(0.0, |grad_lse| grad_lse[rows.start + row]);
                group.subtracted[lane] = (products.sum::<f64>() - f64::from(grad_lse)) as f32;
            }
        }
        all
    }

    /// Adds what a block and these rows give to the gradients of the block and of the queries.
    #[inline(always)]
    pub(super) fn add_block<L: Lanes>(
        &mut self,
        l: L,
        op: &TargetAttention,
        block: Block<'_>,
        scratch: &mut BlockScores,
        out: &mut BlockGradients<'_>,
    ) {
        self.rows.scores(l, op, &self.queries.lanes, block.keys, &mut scratch.scores);
        let has_removed = self.weigh(l, op.weighting, scratch);
        if out.needs_score_gradients() {
            // Times the scale, which the gradients of a bias leave out.
            let scale = if out.bias.is_some() { 1.0 } else { op.effective_scale() };
            self.score_gradients(l, op, block.values, scale, scratch);
            if let Some(bias) = &mut out.bias {
                for (grads, bias) in scratch.grads.iter().zip(bias.chunks_mut(op.heads)) {
                    for (lane, grad) in grads[..self.rows.count].iter().enumerate() {
                        bias[self.rows.row(op, lane) % op.heads] += grad;
                    }
                }
                let scale = l.splat(op.effective_scale());
                for grads in &mut scratch.grads {
                    l.store(grads, l.mul(l.load(grads), scale));
                }
            }
        }
        // A removed behaviour has weight 0, which times NaN or infinity is not 0.
        if has_removed && (self.is_poisoned || !block.keys.keys.iter().all(|x| x.is_finite())) {
            return self.add_carefully(op, block.keys.keys, scratch, out);
        }
        let (kv_head, used) = (self.rows.kv_head, self.rows.count);
        let is_first = self.rows.first == 0;
        if let Some(values) = out.values() {
            values.add_product(l, (kv_head, is_first), &scratch.weights, &self.grad_out);
        }
        let is_first = is_first && !out.are_aliased;
        if let Some(keys) = &mut out.keys {
            keys.add_product(l, (kv_head, is_first), &scratch.grads, &self.queries);
        }
        if out.queries {
            let (keys, stride) = (&block.keys.keys[kv_head * op.width..], op.kv_heads * op.width);
            if self.rows.are_few(op.width) {
                let (grads, vectors) = (&mut self.grad_queries, self.queries.vectors);
                weighted_sum_of_few(
                    l,
                    keys,
                    stride,
                    op.width,
                    (&scratch.grads, used),
                    |first, lane, sums| {
                        let grad = &mut grads[lane * vectors + first / LANES];
                        let sum = l.add(l.load(grad), l.load(sums));
                        l.store(grad, sum);
                    },
                );
            } else {
                weighted_sum(l, keys, stride, op.width, &scratch.grads, |j, sum| {
                    let grad = &mut self.grad_queries[j];
                    l.store(grad, l.add(l.load(grad), sum));
                });
            }
        }
    }

    /// Computes the weights and, into `grads`, their derivatives by the scores; returns whether any behaviour is removed.
    #[inline(always)]
    fn weigh<L: Lanes>(&self, l: L, weighting: Weighting, scratch: &mut BlockScores) -> bool {
        let (zero, one) = (l.splat(0.0), l.splat(1.0));
        let BlockScores { scores, weights, grads, .. } = scratch;
        let rows = (&scores[..], &mut weights[..], &mut grads[..]);
        match weighting {
            Weighting::Softmax => {
                let (shift, factor) = (l.load(&self.shift), l.load(&self.factor));
                weigh_rows(l, rows, |s| {
                    let weight = l.mul(exp(l, l.sub(s, shift)), factor);
                    (weight, weight)
                })
            }
            // Of NaN both are NaN.
            Weighting::Relu => weigh_rows(l, rows, |s| {
                (l.if_less(s, zero, zero, s), l.if_less(zero, s, one, l.mul(s, zero)))
            }),
            Weighting::Silu { divisor } => {
                let divisor = l.splat(divisor.value(self.length));
                weigh_rows(l, rows, |s| {
                    let [p, rest] = sigmoids(l, s);
                    let derivative = l.mul(p, l.mul_add(s, rest, one));
                    (l.div(l.mul(s, p), divisor), l.div(derivative, divisor))
                })
            }
            Weighting::Identity => {
                weights.copy_from_slice(scores);
                grads.fill([1.0; LANES]);
                false
            }
        }
    }

    /// Turns the derivatives of the weights into the gradients of the scores, times `scale`.
    #[inline(always)]
    fn score_gradients<L: Lanes>(
        &self,
        l: L,
        op: &TargetAttention,
        values: &[f32],
        scale: f32,
        scratch: &mut BlockScores,
    ) {
        let scale = l.splat(scale);
        let (values, stride) = (&values[self.rows.kv_head * op.value_width..], op.kv_heads * op.value_width);
        let BlockScores { scores, grads, dots, .. } = scratch;
        let subtracted = l.load(&self.subtracted);
        // With identity, -∞ removes nothing: no score is less.
        let lowest = match op.weighting {
            Weighting::Identity => l.splat(f32::NEG_INFINITY),
            _ => l.splat(f32::MIN),
        };
        if self.rows.are_few(op.value_width) {
            let rows = (&self.grad_out.lanes[..], self.rows.count);
            product_of_few(l, values, stride, grads.len(), rows, |i, few| {
                dots[i][..FEW].copy_from_slice(&few)
            });
            for ((grad, score), dots) in grads.iter_mut().zip(&*scores).zip(&*dots) {
                let product = l.mul(l.mul(l.load(grad), l.sub(l.load(dots), subtracted)), scale);
                l.store(grad, l.if_less(l.load(score), lowest, l.splat(0.0), product));
            }
            return;
        }
        product(l, values, stride, grads.len(), &self.grad_out.lanes, |i, dots| {
            let product = l.mul(l.mul(l.load(&grads[i]), l.sub(dots, subtracted)), scale);
            l.store(&mut grads[i], l.if_less(l.load(&scores[i]), lowest, l.splat(0.0), product));
        });
    }

    /// [`add_block`](Self::add_block)'s sums, without the removed behaviours.
    #[cold]
    fn add_carefully(
        &mut self,
        op: &TargetAttention,
        keys: &[f32],
        scratch: &BlockScores,
        out: &mut BlockGradients<'_>,
    ) {
        let (kv_head, are_few) = (self.rows.kv_head, self.rows.are_few(op.width));
        if self.rows.first == 0 {
            for sums in [&mut out.keys, &mut out.values].into_iter().flatten() {
                sums.clear(kv_head);
            }
        }
        for (i, scores) in scratch.scores.iter().enumerate() {
            for lane in (0..self.rows.count).filter(|&lane| scores[lane] != f32::NEG_INFINITY) {
                let (weight, grad) = (scratch.weights[i][lane], scratch.grads[i][lane]);
                if let Some(values) = out.values() {
                    values.add(i, kv_head, weight, self.grad_out.row(lane));
                }
                if let Some(keys) = &mut out.keys {
                    keys.add(i, kv_head, grad, self.queries.row(lane));
                }
                let key = &keys[(i * op.kv_heads + kv_head) * op.width..][..op.width];
                let place = |j: usize| if are_few { lane * op.width + j } else { j * LANES + lane };
                for (j, key) in key.iter().enumerate().filter(|_| out.queries) {
                    self.grad_queries.as_flattened_mut()[place(j)] += grad * key;
                }
            }
        }
    }

    /// Writes the gradients of the queries to their rows, `[targets, H, d]`.
    pub(super) fn write_queries(&self, op: &TargetAttention, out: &mut [f32]) {
        let (grads, are_few) = (self.grad_queries.as_flattened(), self.rows.are_few(op.width));
        for lane in 0..self.rows.count {
            let (start, step) = if are_few { (lane * op.width, 1) } else { (lane, LANES) };
            let row = &mut out[self.rows.row(op, lane) * op.width..][..op.width];
            row.iter_mut().zip(grads[start..].iter().step_by(step)).for_each(|(out, grad)| *out = *grad);
        }
    }
}

/// Computes weights and derivatives, `each` of a score, and zeros for scores of `-∞`; returns whether there are any.
#[inline(always)]
fn weigh_rows<L: Lanes>(
    l: L,
    (scores, weights, derivatives): (&[Row], &mut [Row], &mut [Row]),
    each: impl Fn(L::V) -> (L::V, L::V),
) -> bool {
    let (zero, lowest) = (l.splat(0.0), l.splat(f32::MIN));
    let mut removed = zero;
    for ((score, weight), derivative) in scores.iter().zip(weights).zip(derivatives) {
        let score = l.load(score);
        let (w, d) = each(score);
        removed = l.if_less(score, lowest, l.splat(1.0), removed);
        l.store(weight, l.if_less(score, lowest, zero, w));
        l.store(derivative, l.if_less(score, lowest, zero, d));
    }
    l.sum(removed) > 0.0
}
