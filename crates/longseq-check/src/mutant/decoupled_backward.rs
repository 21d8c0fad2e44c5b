//! Wrong gradients of decoupled embeddings: the formulas, one pair at a time, with a fault.

use std::collections::BTreeMap;

use longseq::*;

use super::{Fault, Mutant, clamped};
use crate::lookup::read_row;

/// Of each candidate the behaviours that it keeps, with their scores.
pub(super) type KeptPairs = Vec<Vec<(usize, f64)>>;

/// The gradients of some tables, by id.
type Sums = Vec<BTreeMap<u32, Vec<f64>>>;

/// What the formulas read.
pub(super) struct Wrong<'a> {
    pub(super) fault: &'a Mutant,
    pub(super) op: &'a Decoupled,
    pub(super) history_ids: &'a [u32],
    pub(super) target_ids: &'a [u32],
}

impl Mutant {
    /// Ids of behaviours, as the fault reads them.
    pub(super) fn wrong_ids(&self, ids: &[u32], tables: &[Table<'_, Host>]) -> Vec<u32> {
        if self.is(Fault::IdsClamped) { clamped(ids, tables) } else { ids.to_vec() }
    }

    /// What a selection keeps.
    pub(super) fn pairs(&self, op: &Decoupled, batch: &Batch, selection: &Selection<'_, Host>) -> KeptPairs {
        let top_k = op.top_k.unwrap_or(1);
        let mut pairs = Vec::new();
        for (history, targets) in batch.requests() {
            for m in targets {
                let mut count = selection.counts[m] as usize;
                if self.is(Fault::KeepsOneLess) && count == top_k {
                    count -= 1;
                }
                let slots = m * top_k..m * top_k + count;
                let row = |slot: usize| {
                    (history.start + selection.positions[slot] as usize).min(history.end.max(1) - 1)
                };
                let kept = slots.map(|slot| (row(slot), f64::from(selection.scores[slot])));
                pairs.push(self.not_removed(kept));
            }
        }
        pairs
    }

    /// Pairs without those of a score of `-∞`.
    fn not_removed(&self, pairs: impl Iterator<Item = (usize, f64)>) -> Vec<(usize, f64)> {
        pairs.filter(|(_, score)| self.is(Fault::RemovedGetRows) || *score != f64::NEG_INFINITY).collect()
    }

    /// Every behaviour, or the best, of each candidate.
    pub(super) fn best_pairs(
        &self,
        op: &Decoupled,
        batch: &Batch,
        inputs: &SearchInputs<'_, Host>,
    ) -> Result<KeptPairs> {
        let top_k = op.top_k.unwrap_or(batch.histories().max_length()).max(1);
        let op = op.clone().with_top_k(Some(top_k));
        let kept = Cpu::new().decoupled_search(&op, batch, *inputs)?;
        Ok(self.pairs(&op, batch, &kept.selection()))
    }
}

impl Wrong<'_> {
    fn is(&self, fault: Fault) -> bool {
        self.fault.is(fault)
    }

    fn ids<'s>(&self, ids: &'s [u32], row: usize) -> &'s [u32] {
        let features = self.op.features();
        &ids[row * features..(row + 1) * features]
    }

    /// The gradients of representation tables, and of the scores of each pair.
    pub(super) fn aggregate(
        &self,
        tables: &[Table<'_, Host>],
        pairs: &KeptPairs,
        grad_out: &[f32],
    ) -> (Sums, Vec<Vec<f64>>) {
        let row = |ids: &[u32]| -> Vec<f64> {
            tables.iter().zip(ids).flat_map(|(table, &id)| read_row(table, id)).collect()
        };
        let width: usize = tables.iter().map(|table| table.width).sum();
        let multiplied = self.op.multiply_target && !self.is(Fault::TargetForgotten);
        let (mut sums, mut all_grads) = (vec![BTreeMap::new(); tables.len()], Vec::new());
        for (m, pairs) in pairs.iter().enumerate() {
            let target = row(self.ids(self.target_ids, m));
            let grad_out: Vec<f64> = grad_out[m * width..(m + 1) * width].iter().map(|&x| x.into()).collect();
            let product =
                |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a * b).collect() };
            let grad = if multiplied { product(&grad_out, &target) } else { grad_out.clone() };
            let max = pairs.iter().map(|(_, score)| *score).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = pairs.iter().map(|(_, score)| (score - max).exp()).sum();
            let rows: Vec<Vec<f64>> =
                pairs.iter().map(|(l, _)| row(self.ids(self.history_ids, *l))).collect();
            let weights: Vec<f64> = pairs.iter().map(|(_, score)| (score - max).exp() / sum).collect();
            let dots: Vec<f64> = rows.iter().map(|row| product(row, &grad).iter().sum::<f64>()).collect();
            let mean: f64 = weights.iter().zip(&dots).map(|(weight, dot)| weight * dot).sum();
            let mean = if self.is(Fault::MeanGradientDropped) { 0.0 } else { mean };
            let mut grads = Vec::new();
            let first = if self.is(Fault::NewestPartial) { pairs.len() / 2 } else { 0 };
            for (i, (l, _)) in pairs.iter().enumerate() {
                let weight = weights[i];
                let slope = if self.is(Fault::JacobianTermDropped) { 1.0 } else { weight };
                grads.push(slope * (dots[i] - mean));
                self.add(&mut sums, tables, self.ids(self.history_ids, *l), &grad, weight);
                if multiplied && !self.is(Fault::TargetGradientForgotten) && i >= first {
                    let own = product(&grad_out, &rows[i]);
                    self.add(&mut sums, tables, self.ids(self.target_ids, m), &own, weight);
                }
            }
            all_grads.push(grads);
        }
        (sums, all_grads)
    }

    /// The gradients of attention tables from those of the scores.
    pub(super) fn search(&self, tables: &[Table<'_, Host>], pairs: &KeptPairs, grads: &[Vec<f64>]) -> Sums {
        let scales = tables.iter().zip(&self.op.scales).flat_map(|(table, &scale)| {
            let scale = if self.is(Fault::ScaleDropped) { 1.0 } else { f64::from(scale) };
            vec![scale; table.width]
        });
        let scales: Vec<f64> = scales.collect();
        let row = |ids: &[u32]| -> Vec<f64> {
            let rows = tables.iter().zip(ids).flat_map(|(table, &id)| read_row(table, id));
            rows.zip(&scales).map(|(value, scale)| value * scale).collect()
        };
        let mut sums = vec![BTreeMap::new(); tables.len()];
        for (m, (pairs, grads)) in pairs.iter().zip(grads).enumerate() {
            let target_ids = self.ids(self.target_ids, m);
            let first = if self.is(Fault::NewestPartial) { pairs.len() / 2 } else { 0 };
            for (i, ((l, _), &grad)) in pairs.iter().zip(grads).enumerate() {
                let ids = self.ids(self.history_ids, *l);
                if !self.is(Fault::CandidateHalfForgotten) && i >= first {
                    self.add(&mut sums, tables, target_ids, &row(ids), grad);
                }
                if !self.is(Fault::BehaviourHalfForgotten) {
                    self.add(&mut sums, tables, ids, &row(target_ids), grad);
                }
            }
        }
        sums
    }

    fn add(&self, sums: &mut Sums, tables: &[Table<'_, Host>], ids: &[u32], row: &[f64], weight: f64) {
        let mut start = 0;
        for ((sums, table), &id) in sums.iter_mut().zip(tables).zip(ids) {
            if (id as usize) < table.rows {
                let sum = sums.entry(id).or_insert_with(|| vec![0.0; table.width]);
                if self.is(Fault::DuplicatesOverwritten) {
                    sum.fill(0.0);
                }
                sum.iter_mut().zip(&row[start..]).for_each(|(sum, value)| *sum += weight * value);
            }
            start += table.width;
        }
    }
}

/// Writes gradients where they are asked for.
pub(super) fn write(sums: &Sums, gradients: Vec<Option<TableGradient<'_, Host>>>) {
    for (sums, gradient) in sums.iter().zip(gradients) {
        match gradient {
            Some(TableGradient::Sparse(mut gradient)) => {
                gradient.count[0] = sums.len() as u32;
                for (i, (&id, row)) in sums.iter().enumerate().take(gradient.ids.len()) {
                    gradient.ids[i] = id;
                    let places = gradient.rows[i * row.len()..].iter_mut();
                    places.zip(row).for_each(|(out, value)| *out = *value as f32);
                }
            }
            Some(TableGradient::Dense(mut rows)) => {
                rows.fill(0.0);
                for (&id, row) in sums {
                    let places = rows[id as usize * row.len()..].iter_mut();
                    places.zip(row).for_each(|(out, value)| *out = *value as f32);
                }
            }
            _ => {}
        }
    }
}

impl Mutant {
    /// The backward pass of a search, with this fault.
    pub(super) fn search_gradient(
        &self,
        op: &Decoupled,
        batch: &Batch,
        (inputs, selection): (&SearchInputs<'_, Host>, &Selection<'_, Host>),
        grad_scores: &[f32],
        grads: SearchGradients<'_, Host>,
    ) {
        let pairs = self.pairs(op, batch, selection);
        let top_k = op.top_k.unwrap_or(1);
        let history_ids = self.wrong_ids(&inputs.history_ids, inputs.attention);
        let own = |(m, pairs): (usize, &Vec<(usize, f64)>)| -> Vec<f64> {
            let slots = (m * top_k..(m + 1) * top_k).filter(|&slot| {
                self.is(Fault::RemovedGetRows) || selection.scores[slot] != f32::NEG_INFINITY
            });
            slots.take(pairs.len()).map(|slot| grad_scores[slot].into()).collect()
        };
        let given: Vec<Vec<f64>> = pairs.iter().enumerate().map(own).collect();
        let wrong = Wrong { fault: self, op, history_ids: &history_ids, target_ids: &inputs.target_ids };
        write(&wrong.search(inputs.attention, &pairs, &given), grads.attention);
    }

    /// The backward pass of an aggregation, with this fault.
    pub(super) fn aggregate_gradient(
        &self,
        op: &Decoupled,
        batch: &Batch,
        (inputs, selection): (&AggregateInputs<'_, Host>, &Selection<'_, Host>),
        grad_out: &[f32],
        grads: AggregateGradients<'_, Host>,
    ) {
        let pairs = self.pairs(op, batch, selection);
        let top_k = op.top_k.unwrap_or(1);
        let history_ids = self.wrong_ids(&inputs.history_ids, inputs.representation);
        let wrong = Wrong { fault: self, op, history_ids: &history_ids, target_ids: &inputs.target_ids };
        let (sums, score_grads) = wrong.aggregate(inputs.representation, &pairs, grad_out);
        write(&sums, grads.representation);
        if let Some(mut scores) = grads.scores {
            for (m, own) in score_grads.iter().enumerate() {
                let slots = m * top_k..(m + 1) * top_k;
                scores[slots.clone()].fill(0.0);
                let kept = slots.filter(|&slot| selection.scores[slot] != f32::NEG_INFINITY);
                kept.zip(own).for_each(|(slot, grad)| scores[slot] = *grad as f32);
            }
        }
    }

    /// The backward pass of both in one, with this fault.
    pub(super) fn attend_gradient(
        &self,
        op: &Decoupled,
        batch: &Batch,
        (inputs, saved): (&DecoupledInputs<'_, Host>, &DecoupledSaved<'_, Host>),
        grad_out: &[f32],
        grads: DecoupledGradients<'_, Host>,
    ) -> Result<()> {
        let DecoupledInputs { attention, representation, history_ids, target_ids, .. } = *inputs;
        let pairs = match &saved.selection {
            Some(selection) => self.pairs(op, batch, selection),
            None => self.best_pairs(op, batch, &SearchInputs::new(attention, history_ids, target_ids))?,
        };
        let history_ids = self.wrong_ids(&history_ids, attention);
        let wrong = Wrong { fault: self, op, history_ids: &history_ids, target_ids: &target_ids };
        let (sums, score_grads) = wrong.aggregate(representation, &pairs, grad_out);
        write(&sums, grads.representation);
        write(&wrong.search(attention, &pairs, &score_grads), grads.attention);
        Ok(())
    }
}
