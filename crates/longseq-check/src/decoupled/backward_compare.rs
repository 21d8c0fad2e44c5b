//! How gradients of decoupled embeddings are compared with the reference.

use longseq::reference::{DecoupledGradientReference, SparseGradientReference};
use longseq::*;

use super::backward::{DecoupledBackwardCase, DecoupledGradientOutput, Set};
use super::bounds::{Errors, TableErrors};
use crate::case::{Failure, Rules};
use crate::compare::{Bound, compare, compare_exact};
use crate::lookup::{Form, SparseGradientBits, dense, views};

/// The gradients of attention tables and of representation tables.
type BothGradients = (Vec<SparseGradientReference>, Vec<SparseGradientReference>);

impl DecoupledBackwardCase {
    pub(super) fn compare_with_reference(
        &self,
        output: &DecoupledGradientOutput,
        rules: Rules,
    ) -> Result<(), Failure> {
        let case = &self.forward;
        let (op, batch, inputs, grads) = (case.op(), case.batch(), case.inputs(), self.grads());
        let wide = |numbers: &[f32]| -> Vec<f64> { numbers.iter().map(|&x| x.into()).collect() };
        let (grad_out, grad_scores) = (wide(&grads.out), wide(&grads.scores));
        let (attention, representation) =
            (views(&Cpu::new(), &inputs.attention), views(&Cpu::new(), &inputs.representation));
        let (ids, target_ids) = (Host::view(&inputs.ids[..]), Host::view(&inputs.target_ids[..]));
        let given = case.selection(&inputs)?;
        let (exact, scores) = (&given.exact, Host::view(&given.scores[..]));
        let selection = Selection::new(Host::view(&exact.positions), scores, Host::view(&exact.counts));
        let kept = self.kept(&given);
        let errors = || Errors::new(&op, &inputs, batch.histories().max_length(), rules);
        let searched = SearchInputs::new(&attention, ids, target_ids);
        let search =
            |grads: &[f64]| reference::decoupled_search_backward(&op, &batch, &searched, &selection, grads);

        let mut search_errors = errors();
        for (m, kept) in kept.iter().enumerate() {
            let slots = (m * case.top_k..).zip(&given.scores[m * case.top_k..(m + 1) * case.top_k]);
            let slots = slots.filter(|(_, score)| **score != f32::NEG_INFINITY);
            for ((l, _), (slot, _)) in kept.iter().zip(slots) {
                search_errors.add_score(m, *l, grad_scores[slot]);
            }
        }
        let pair = (&output.search[..], &search(&grad_scores)?[..]);
        self.compare_tables("search", Set::Attention, pair, &search_errors.attention, rules)?;

        let errors_of = |kept: &[_], score_error: f64| {
            let mut errors = errors();
            for (m, kept) in kept.iter().enumerate() {
                errors.add_candidate(m, kept, &grad_out, score_error);
            }
            errors
        };
        let own_errors = errors_of(&kept, 0.0);
        let aggregated = AggregateInputs::new(&representation, ids, target_ids);
        let gradient =
            reference::decoupled_aggregate_backward(&op, &batch, &aggregated, &selection, &grad_out)?;
        let pair = (&output.aggregate[..], &gradient.representation[..]);
        let errors_of_rows = &own_errors.representation;
        self.compare_tables("aggregate", Set::Representation, pair, errors_of_rows, rules)?;
        self.compare_scores(output, &gradient.scores, (&given.scores, &own_errors.scores), rules)?;

        let (all, is_plain) = self.kept_of_all(&inputs)?;
        let score_error = case.score_error(&inputs);
        let fused = DecoupledInputs::new(&attention, &representation, ids, target_ids);
        let attend = |op: &Decoupled| reference::decoupled_attend_backward(op, &batch, &fused, &grad_out);
        if self.given || !is_plain {
            let exact = (search(&gradient.scores)?, gradient.representation);
            self.compare_both("attend", &output.attend, &exact, &own_errors, rules)?;
        } else {
            let errors = errors_of(&kept, score_error);
            self.compare_both("attend", &output.attend, &both(attend(&op)?), &errors, rules)?;
        }
        let exact = both(attend(&op.clone().with_top_k(None))?);
        let errors = errors_of(&all, score_error);
        self.compare_both("attend to all", &output.attend_all, &exact, &errors, rules)
    }

    /// Compares the gradients of the scores of a selection.
    fn compare_scores(
        &self,
        output: &DecoupledGradientOutput,
        exact: &[f64],
        (scores, errors): (&[f32], &[Vec<f64>]),
        rules: Rules,
    ) -> Result<(), Failure> {
        let top_k = self.forward.top_k;
        let got: Vec<f32> = output.scores.iter().map(|&x| f32::from_bits(x)).collect();
        let mut absolute = vec![0.0; got.len()];
        for (m, errors) in errors.iter().enumerate().filter(|_| self.scores) {
            let slots = m * top_k..(m + 1) * top_k;
            let kept = absolute[slots.clone()].iter_mut().zip(&scores[slots]);
            let kept = kept.filter(|(_, score)| **score != f32::NEG_INFINITY);
            kept.zip(errors).for_each(|((bound, _), &error)| *bound = finite(error));
        }
        let bound = Bound::of_each(absolute, false);
        compare("gradient of scores", &got, &exact[..got.len()], &bound, rules)
    }

    /// Compares the gradients of both sets.
    fn compare_both(
        &self,
        name: &str,
        got: &[SparseGradientBits],
        exact: &BothGradients,
        errors: &Errors<'_>,
        rules: Rules,
    ) -> Result<(), Failure> {
        let (first, second) = got.split_at(self.forward.table_rows.len());
        self.compare_tables(name, Set::Attention, (first, &exact.0), &errors.attention, rules)?;
        self.compare_tables(name, Set::Representation, (second, &exact.1), &errors.representation, rules)
    }

    /// Compares the gradients of a set of tables.
    fn compare_tables(
        &self,
        name: &str,
        set: Set,
        (got, exact): (&[SparseGradientBits], &[SparseGradientReference]),
        errors: &TableErrors,
        rules: Rules,
    ) -> Result<(), Failure> {
        for (feature, (exact, errors)) in exact.iter().zip(errors).enumerate() {
            let (ids, rows, count) = &got[feature];
            let name = format!("{name}, {set:?} {feature}");
            let got: Vec<f32> = rows.iter().map(|&x| f32::from_bits(x)).collect();
            let width = exact.rows.len() / exact.ids.len().max(1);
            let none = vec![0.0; width];
            let error_rows = exact.ids.iter().flat_map(|id| errors.get(id).unwrap_or(&none));
            let error_rows: Vec<f64> = error_rows.map(|&error| finite(error)).collect();
            let (rows, absolute) = match self.form(set, feature) {
                Form::None => continue,
                Form::Sparse => {
                    compare_exact(&format!("{name}: count"), count, &[exact.ids.len() as u32])?;
                    compare_exact(&format!("{name}: ids"), ids, &exact.ids)?;
                    (exact.rows.clone(), error_rows)
                }
                Form::Dense => {
                    let width = got.len() / self.forward.table_rows[feature].max(1);
                    let errors = SparseGradientBounds { ids: &exact.ids, rows: &error_rows };
                    (dense(exact, got.len(), width), errors.dense(got.len(), width))
                }
            };
            let bound = Bound::of_each(absolute, false);
            compare(&name, &got, &rows, &bound, rules)?;
        }
        Ok(())
    }
}

/// An error of a number that is NaN in the reference does not matter.
fn finite(error: f64) -> f64 {
    if error.is_nan() { 0.0 } else { error }
}

/// Bounds of a sparse gradient.
struct SparseGradientBounds<'a> {
    ids: &'a [u32],
    rows: &'a [f64],
}

impl SparseGradientBounds<'_> {
    /// For all rows of the table.
    fn dense(&self, length: usize, width: usize) -> Vec<f64> {
        let mut dense = vec![0.0; length];
        for (&id, row) in self.ids.iter().zip(self.rows.chunks(width.max(1))) {
            dense[id as usize * width..(id as usize + 1) * width].copy_from_slice(row);
        }
        dense
    }
}

/// The gradients of both sets.
fn both(gradient: DecoupledGradientReference) -> BothGradients {
    (gradient.attention, gradient.representation)
}
