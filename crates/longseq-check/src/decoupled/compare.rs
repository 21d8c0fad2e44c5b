//! How results of decoupled search and aggregation are compared with the reference.

use longseq::*;

use super::{DecoupledCase, DecoupledOutput, Inputs};
use crate::case::{Failure, Rules};
use crate::compare::{Bound, U, additions, compare, compare_exact};
use crate::data::Data;
use crate::lookup::{Owned, view, views};
use crate::selection::Kept;

impl DecoupledCase {
    pub(super) fn compare_with_reference(
        &self,
        output: &DecoupledOutput,
        rules: Rules,
    ) -> Result<(), Failure> {
        let (op, batch, inputs) = (self.op(), self.batch(), self.inputs());
        let selection = self.selection(&inputs)?;
        let floats = |bits: &[u32]| -> Vec<f32> { bits.iter().map(|&x| f32::from_bits(x)).collect() };
        let score_error = self.score_error(&inputs);
        let used = batch.targets().total();
        compare_exact("counts", &output.counts, &selection.exact.counts[..used])?;
        let all_scores = self.all_scores(&inputs)?;
        for m in 0..used {
            self.compare_selection(m, output, &inputs, &all_scores, score_error)?;
        }

        let max_row = inputs.representation.iter().map(Owned::max_abs).fold(0.0, f64::max);
        let factor = if self.multiply_target { max_row } else { 1.0 };
        let longest = batch.histories().max_length();
        // However wrong scores are, a mean moves by the distance of two rows at most.
        let weights_error =
            |score_error: f64| (2.0 * score_error).exp_m1().min(2.0) + (additions(longest) + 16.0) * U;
        let plain = self.data == Data::Normal && self.representation_data.is_none() && self.held.is_none();
        let any_infinity = self.held.is_some_and(f32::is_infinite);
        let bound =
            |error: f64| Bound::uniform(max_row * factor * error, plain).with_any_infinity(any_infinity);
        let representation = views(&Cpu::new(), &inputs.representation);
        let attention = views(&Cpu::new(), &inputs.attention);
        let (ids, target_ids) = (Host::view(&inputs.ids[..]), Host::view(&inputs.target_ids[..]));
        let width = self.representation_widths.iter().sum::<usize>();

        let selection = Selection::new(
            Host::view(&selection.exact.positions),
            Host::view(&selection.scores),
            Host::view(&selection.exact.counts),
        );
        let aggregated = AggregateInputs::new(&representation, ids, target_ids);
        let exact = reference::decoupled_aggregate(&op, &batch, &aggregated, &selection)?;
        let got = floats(&output.aggregate);
        compare("aggregate", &got, &exact[..used * width], &bound(weights_error(4.0 * U)), rules)?;

        let fused = DecoupledInputs::new(&attention, &representation, ids, target_ids);
        let all = op.clone().with_top_k(None);
        let exact = reference::decoupled_attend(&all, &batch, &fused)?;
        let got = floats(&output.attend_all);
        compare("attend to all", &got, &exact[..used * width], &bound(weights_error(score_error)), rules)?;

        // Where the K-th and the next score differ by less than their error, either selection is right.
        let exact = reference::decoupled_attend(&op, &batch, &fused)?;
        let got = floats(&output.attend);
        let plain: Vec<usize> = (0..used).filter(|&m| self.is_plain(&all_scores[m], score_error)).collect();
        let places: Vec<usize> = plain.iter().flat_map(|m| m * width..(m + 1) * width).collect();
        let got: Vec<f32> = places.iter().map(|&place| got[place]).collect();
        let exact: Vec<f64> = places.iter().map(|&place| exact[place]).collect();
        let name = format!("attend, candidates {plain:?}");
        compare(&name, &got, &exact, &bound(weights_error(score_error)), rules)?;
        Ok(())
    }

    /// The most that a score may be off.
    pub(super) fn score_error(&self, inputs: &Inputs) -> f64 {
        if self.scores.is_some() {
            // One product with 1: exact.
            return 0.0;
        }
        // A score is a sum of Σ a terms, each of magnitude scale·max(A)², of factors that may be decoded.
        let (op, terms) = (self.op(), inputs.attention.iter());
        let magnitude: f64 = terms
            .zip(&op.scales)
            .map(|(table, &scale)| table.width as f64 * f64::from(scale) * table.max_abs().powi(2))
            .sum();
        let width = self.attention_widths.iter().sum::<usize>() as f64;
        (width + 8.0) * U * magnitude + f64::from(f32::MIN_POSITIVE)
    }

    /// Whether the choice among a candidate's scores is beyond doubt.
    pub(super) fn is_plain(&self, scores: &[(u32, f64)], score_error: f64) -> bool {
        let Some(next) = scores.get(self.top_k) else { return true };
        let last = scores[self.top_k - 1].1;
        let gap = last - next.1;
        // Ties go by position, unless rounding may make a tie of others, or part this one. NaN where both are NaN, or infinite with
        // the same sign: the order is by position.
        let is_far = |score: f64| score == last || score.is_nan() || (score - last).abs() > 2.0 * score_error;
        gap.is_nan()
            || gap > 2.0 * score_error
            || gap == 0.0 && scores.iter().all(|&(_, score)| is_far(score))
    }

    /// For each candidate, every behaviour of its user as (position, score), best first.
    pub(super) fn all_scores(&self, inputs: &Inputs) -> Result<Vec<Vec<(u32, f64)>>, Failure> {
        let batch = self.batch();
        let everything = batch.histories().max_length().max(1);
        let attention: Vec<Table<'_, Host>> =
            inputs.attention.iter().map(|table| view(&Cpu::new(), table)).collect();
        let search = SearchInputs::new(&attention, Host::view(&inputs.ids), Host::view(&inputs.target_ids));
        let all = reference::decoupled_search(&self.op().with_top_k(Some(everything)), &batch, &search)?;
        let candidate = |m: usize| {
            let slots = m * everything..m * everything + all.counts[m] as usize;
            all.positions[slots.clone()].iter().copied().zip(all.scores[slots].iter().copied()).collect()
        };
        Ok((0..batch.targets().total()).map(candidate).collect())
    }

    /// One candidate's selection: scores within their error, positions exact wherever scores differ by more than
    /// their error, ties by position.
    fn compare_selection(
        &self,
        m: usize,
        output: &DecoupledOutput,
        inputs: &Inputs,
        all_scores: &[Vec<(u32, f64)>],
        score_error: f64,
    ) -> Result<(), Failure> {
        let wrong = |what: String| Err(Failure::new(format!("search, candidate {m}: {what}")));
        let slots = m * self.top_k..(m + 1) * self.top_k;
        let scores: Vec<f32> =
            output.scores[slots.clone()].iter().map(|&bits| f32::from_bits(bits)).collect();
        let (positions, count) = (&output.positions[slots], output.counts[m] as usize);
        let kept = Kept { positions, scores: &scores, count };
        kept.compare(&all_scores[m], score_error).or_else(wrong)?;
        let features = self.table_rows.len();
        let batch = self.batch();
        let Some((history, _)) = batch.requests().find(|(_, targets)| targets.contains(&m)) else {
            return wrong("it belongs to nobody".into());
        };
        let ids = |position: usize| {
            let l = history.start + position;
            &inputs.ids[l * features..(l + 1) * features]
        };
        kept.compare_equal(history.len(), ids).or_else(wrong)
    }
}
