//! The errors that `f32` arithmetic may make in attention over a selection and in its gradients.

use std::ops::Range;

use longseq::*;

use super::SelectedCase;
use super::inputs::Inputs;
use crate::case::Rules;
use crate::compare::{U, additions};
use crate::data;

/// Of biases of at least this magnitude, the rest of a score is less than a rounding error.
const DOMINANT: f32 = 1e30;

/// The largest magnitudes of a case's numbers, and the errors of its scores.
pub(super) struct Errors {
    op: SelectedAttention,
    /// The most behaviours that a candidate keeps.
    kept: usize,
    /// The most queries that read a row of keys or values.
    readers: usize,
    candidates: usize,
    /// The sums in which the gradient of a row is added up, one after the other.
    levels: f64,
    /// Roundings of a number of keys or values before it is read.
    decoding: f64,
    scale: f64,
    query: f64,
    key: f64,
    value: f64,
    /// Lengths of rows.
    value_norm: f64,
    /// `|γ|`.
    gammas: [f64; 3],
    is_aliased: bool,
    /// `|s|`, and its error.
    score: f64,
    score_error: f64,
    /// `|R|`.
    similarity: f64,
    /// `Σ |γ_i·…|`, and the error of `α`.
    alpha: f64,
    alpha_error: f64,
}

impl Errors {
    pub(super) fn new<T: Element>(case: &SelectedCase, inputs: &Inputs<Host, T>) -> Self {
        Self::of_decoded(case, inputs, 0.0)
    }

    /// Where so many roundings decode each number of keys and values, of magnitudes that these inputs have.
    pub(super) fn of_decoded<T: Element>(
        case: &SelectedCase,
        inputs: &Inputs<Host, T>,
        decoding: f64,
    ) -> Self {
        let (op, batch) = (case.op(), case.batch());
        let scale = f64::from(op.effective_scale()).abs();
        let weak = |x: &f32| if x.abs() < DOMINANT { x.abs() } else { 0.0 };
        let bias = inputs.bias.iter().flat_map(|bias| bias.iter()).map(weak).fold(0.0, f32::max);
        let dot = scale * data::max_norm(&inputs.queries, op.width) * data::max_norm(&inputs.keys, op.width);
        let score = dot + f64::from(bias);
        // The least positive number is 2⁻¹⁴⁹.
        let underflow = op.width as f64 * scale * 2f64.powi(-149) + f64::from(f32::MIN_POSITIVE);
        // A score is a dot product of d terms, scaled and shifted: d + 3 roundings of at most its magnitude, which the lengths of the rows
        // bound (Cauchy-Schwarz).
        let score_error = (op.width as f64 + 3.0 + decoding) * U * score + underflow;
        let similarity = data::max_abs(&inputs.similarities);
        let mut gammas = [1.0, 0.0, 0.0];
        if let Some(all) = &inputs.gammas {
            gammas =
                [0, 1, 2].map(|i| all.iter().skip(i).step_by(3).fold(0.0, |a, x| f64::from(x.abs()).max(a)));
        }
        let alpha = gammas[0] * score + gammas[1] * similarity + gammas[2] * score * similarity;
        // Four products and two sums.
        let slope = gammas[0] + gammas[2] * similarity;
        let alpha_error = slope * score_error + 6.0 * U * alpha + f64::from(f32::MIN_POSITIVE);
        let values = inputs.values.as_ref().unwrap_or(&inputs.keys);
        let counts = &inputs.counts[..batch.targets().total()];
        Self {
            op,
            kept: counts.iter().max().map_or(0, |&count| count as usize),
            readers: readers(&batch, inputs, op.top_k) * op.heads / op.kv_heads,
            candidates: batch.targets().total(),
            levels: 1.0,
            decoding,
            scale,
            query: data::max_abs(&inputs.queries),
            key: data::max_abs(&inputs.keys),
            value: data::max_abs(values),
            value_norm: data::max_norm(values, op.value_width),
            gammas,
            is_aliased: inputs.values.is_none(),
            score,
            score_error,
            similarity,
            alpha,
            alpha_error,
        }
    }

    /// Of gradients that tables get through rows of which so many are read, for one id.
    pub(super) fn of_tables(self, readers: usize) -> Self {
        let readers = readers * self.op.heads / self.op.kv_heads;
        Self { readers, levels: 2.0, ..self }
    }

    /// Of the output: weights add up to 1, and an error of δ in every `α` changes each by at most a factor `exp(±2δ)`.
    pub(super) fn out<T: Element>(&self, rules: Rules) -> f64 {
        // Flushed to zero: of each behaviour a value, its product with the weight, or the sum so far.
        let lost = match (rules.subnormal, rules.tiny_products) {
            (false, _) => 3.0 * f64::from(f32::MIN_POSITIVE),
            (true, false) if T::DTYPE == DType::Bf16 => 2f64.powi(-124),
            _ => 0.0,
        };
        let weights = (2.0 * self.alpha_error).exp_m1() + (additions(self.kept) + 12.0 + self.decoding) * U;
        self.value * weights + lost * self.kept as f64
    }

    /// Of the log-sum-exp.
    pub(super) fn lse(&self) -> f64 {
        let sum = (additions(self.kept) + 8.0) * U;
        self.alpha_error + sum + 4.0 * U * (self.alpha + (self.kept as f64).ln_1p())
    }

    /// Of the gradients of queries, keys, values, bias, `γ` and similarities, for a `grad_out` whose largest number and length of a row these
    /// are, and a `grad_lse` whose largest number is `grad_lse`.
    ///
    /// With `A` the largest `|⟨grad_out, v⟩|`, a gradient of `α` is a weight times at most `2A + |grad_lse|`. Its error is that of the
    /// weight, and that of `⟨grad_out, v⟩` and of `D`, `d_v + 1` roundings of `A` each and those of a sum over what is kept.
    pub(super) fn gradients(&self, grad_out: f64, grad_norm: f64, grad_lse: f64, rules: Rules) -> [f64; 6] {
        let sum = |length: usize| (additions(length) + 4.0) * U;
        let a = grad_norm * self.value_norm;
        let relative = (2.0 * self.alpha_error).exp_m1() + sum(self.kept) + 24.0 * U;
        // A weight is at most 1, and all of a candidate's add up to 1; their errors do so only while they are relative.
        let (weight_error, total) =
            if relative < 1.0 { (relative, 1.0) } else { (1.0, self.kept.max(1) as f64) };
        let grad = 2.0 * a + grad_lse;
        let product_error = (self.op.value_width as f64 + 1.0 + self.decoding) * U * a;
        // Flushed to zero: of each term its factors, the product, and the sum so far.
        let lost = if rules.subnormal { 0.0 } else { f64::from(f32::MIN_POSITIVE) };
        let of_product = self.op.value_width as f64 * lost * (2.0 + grad_out + self.value);
        let of_sums = 2.0 * of_product + (self.kept as f64 + 3.0) * lost * (1.0 + a);
        let grad_error =
            weight_error * grad + 2.0 * product_error + (sum(self.kept) + 4.0 * U) * grad + of_sums;
        let [first, second, third] = self.gammas;
        let slope = first + third * self.similarity;
        let (grad_score, score_grad_error) = (slope * grad, slope * (grad_error + 3.0 * U * grad));
        let (readers, kept) = (self.readers as f64, self.kept as f64);
        let row_error = self.levels * sum(self.readers + 1);
        let dv = readers * (grad_out * (weight_error + row_error) + lost * (2.0 + grad_out));
        let lost_of_score = lost * (2.0 + self.scale * (1.0 + grad_score));
        let dk =
            readers * (self.scale * self.query * (score_grad_error + grad_score * row_error) + lost_of_score);
        let key_error = grad_score * (sum(self.kept) + self.decoding * U);
        let dq = total * self.scale * self.key * (score_grad_error + key_error) + kept * lost_of_score;
        let dbias = readers * (score_grad_error + grad_score * row_error + lost);
        // The largest factor of a `γ`, and its error.
        let factor = self.score.max(self.similarity).max(self.score * self.similarity);
        let factor_error = self.score_error * self.similarity.max(1.0) + 4.0 * U * factor;
        let each = grad_error * factor + grad * (factor_error + 4.0 * U * factor);
        let terms = self.candidates as f64 * total;
        let dgamma = terms * (each + grad * factor * sum(self.candidates * self.kept))
            + self.candidates as f64 * kept * lost * (2.0 + grad);
        let heads = self.op.heads as f64;
        let slope = second + third * self.score;
        let dsimilarity = heads
            * (grad_error * slope
                + grad * (third * self.score_error + (heads + 4.0) * U * slope)
                + 2.0 * lost);
        [dq, if self.is_aliased { dk + dv } else { dk }, dv, dbias, dgamma, dsimilarity]
    }
}

/// The most slots of a user's candidates that hold the same behaviour.
fn readers<T: Element>(batch: &Batch, inputs: &Inputs<Host, T>, top_k: usize) -> usize {
    let user = |(history, targets): (Range<usize>, Range<usize>)| {
        let mut readers = vec![0; history.len()];
        for m in targets {
            for &position in &inputs.positions[m * top_k..][..inputs.counts[m] as usize] {
                readers[position as usize] += 1;
            }
        }
        readers.into_iter().max().unwrap_or(0)
    };
    batch.requests().map(user).max().unwrap_or(0)
}
