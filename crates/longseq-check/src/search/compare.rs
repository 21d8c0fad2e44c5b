//! How results of search are compared with the reference.

use longseq::*;

use super::rows::{Compared, Stored};
use super::{Inputs, PACKED_WIDTH, SearchCase, SearchOutput};
use crate::case::{Failure, Rules};
use crate::compare::{U, compare_exact};
use crate::selection::Kept;

impl SearchCase {
    pub(super) fn compare_with_reference(&self, output: &SearchOutput, rules: Rules) -> Result<(), Failure> {
        let (op, batch, inputs) = (self.op(), self.batch(), self.inputs()?);
        let views = inputs.views();
        let (used, k) = (batch.targets().total(), self.top_k);
        let exact = reference::search(&op, &batch, &views)?;
        compare_exact("counts", &output.counts, &exact.counts[..used])?;
        let scores: Vec<f32> = output.scores.iter().map(|&bits| f32::from_bits(bits)).collect();
        if matches!(self.score, SearchScore::Hamming | SearchScore::Match) {
            let exact_scores: Vec<f32> = exact.scores[..used * k].iter().map(|&score| score as f32).collect();
            compare_exact("positions", &output.positions, &exact.positions[..used * k])?;
            compare_exact("scores", &scores, &exact_scores)?;
            if self.score == SearchScore::Hamming {
                self.compare_signs(&output.signs, &inputs)?;
            }
            return Ok(());
        }
        let score_error = self.score_error(&inputs, rules);
        for (history, targets) in batch.requests() {
            for m in targets {
                let wrong = |what: String| Failure::new(format!("search, candidate {m}: {what}"));
                let all = reference::search_scores(&op, &views, history.clone(), m).into_iter();
                let mut all: Vec<(u32, f64)> =
                    (0..).zip(all).filter_map(|(position, score)| Some((position, score?))).collect();
                // NaN last; ties stay in the order of positions.
                all.sort_by(|a, b| {
                    a.1.is_nan()
                        .cmp(&b.1.is_nan())
                        .then(b.1.partial_cmp(&a.1).unwrap_or(std::cmp::Ordering::Equal))
                });
                let slots = m * k..(m + 1) * k;
                let (positions, scores) = (&output.positions[slots.clone()], &scores[slots]);
                let kept = Kept { positions, scores, count: output.counts[m] as usize };
                kept.compare(&all, score_error).map_err(wrong)?;
                let key = |position: usize| {
                    let l = history.start + position;
                    let bias = inputs.bias.as_ref().map(|bias| bias[l].to_bits());
                    (inputs.keys.row_bytes(l, self.width), bias)
                };
                kept.compare_equal(history.len(), key).map_err(wrong)?;
            }
        }
        Ok(())
    }

    /// The most that a score may be off: a sum of `a` products in any order, of factors that are decoded or normalised (a rounding or
    /// two each), scaled, with a bias. A number that underflows costs [`TINY`].
    pub(super) fn score_error(&self, inputs: &Inputs, rules: Rules) -> f64 {
        const TINY: f64 = f32::MIN_POSITIVE as f64;
        let width = self.width as f64;
        let (q, k) = (inputs.queries.max_abs(), inputs.keys.max_abs());
        match self.score {
            SearchScore::Dot { scale } => {
                let scale = f64::from(scale.abs());
                let flushed = if rules.subnormal { 0.0 } else { width * (q + k) * TINY };
                let bias = inputs.bias.as_deref().map_or(0.0, crate::data::max_abs);
                (width + 12.0) * U * (scale * width * q * k + bias) + (scale + 1.0) * (width * TINY + flushed)
            }
            // Products of integers are exact: the lengths and the two products with their inverses are rounded. (Rows of 1024 codes and
            // more may be rounded as sums, too.)
            _ if self.stored == Compared::Codes && self.width <= 1024 => 8.0 * U,
            _ => (width + 16.0) * (U + TINY),
        }
    }

    /// Signs must be exact wherever a projection is not within rounding error of zero.
    fn compare_signs(&self, signs: &[u32], inputs: &Inputs) -> Result<(), Failure> {
        let (op, rotations) = (self.signs(), &inputs.rotations[..]);
        let projections = match &inputs.rows {
            Stored::F32(rows) => reference::sign_projections(&op, rows, rotations)?,
            Stored::F16(rows) => reference::sign_projections(&op, rows, rotations)?,
            Stored::Bf16(rows) => reference::sign_projections(&op, rows, rotations)?,
            _ => return Err(Failure::new("only floats are packed")),
        };
        for (row, (words, projections)) in
            signs.chunks(op.words()).zip(projections.chunks(op.bits)).enumerate()
        {
            for (i, word) in words.iter().enumerate() {
                for t in 0..32 {
                    let bit = word >> t & 1 == 1;
                    let (expected, doubtful) = match projections.get(i * 32 + t) {
                        None => (false, false),
                        Some(p) => {
                            let error = (PACKED_WIDTH as f64 + 1.0)
                                * (U * p.magnitude + f64::from(f32::MIN_POSITIVE));
                            (p.value > 0.0, p.magnitude > 0.0 && p.value.abs() <= error)
                        }
                    };
                    if bit != expected && !doubtful {
                        return Err(Failure::new(format!("signs, row {row}: bit {} is {bit}", i * 32 + t)));
                    }
                }
            }
        }
        Ok(())
    }
}
