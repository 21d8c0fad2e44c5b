//! Cases of the backward passes of decoupled embeddings.

use longseq::*;

use super::bounds::{KeptRows, is_trainable};
use super::{DecoupledCase, ExactSelection, Inputs};
use crate::by_storage;
use crate::case::{Calls, Case, Failure, Rules};
use crate::data::{self, Data};
use crate::guard::Guarded;
use crate::lookup::{Form, Place, SparseGradientBits, upload_all, views};
use crate::named::Work;

/// The formula, as `explain` prints it.
pub const FORMULA: &str = "\
aggregate: dR_f[ids[l, f]] += w_l · g_f,   g = grad_out[m], or grad_out[m] ⊙ t with the candidate's own rows t,
           dR_f[target_ids[m, f]] += (grad_out[m] ⊙ Σ_l w_l r_l)_f then
           ds_l = w_l · (⟨g, r_l⟩ − Σ_i w_i ⟨g, r_i⟩)                  over the kept l of candidate m
search:    dA_f[target_ids[m, f]] += scale_f · ds_l · A_f[ids[l, f]],   dA_f[ids[l, f]] += scale_f · ds_l · A_f[target_ids[m, f]]
attend:    both, or over the whole history without a K";

/// The gradients of a search, of an aggregation, and of both in one, with and without a top-K.
#[derive(Debug, Clone)]
pub struct DecoupledBackwardCase {
    /// The forward pass.
    pub forward: DecoupledCase,
    /// What the gradients that come in look like.
    pub grad: Data,
    /// The place in `grad_out` of a NaN.
    pub nan: Option<usize>,
    /// The form asked for, of attention tables and then of representation tables; the last goes on for all others.
    pub forms: Vec<Form>,
    /// Whether the gradient of the scores is asked for.
    pub scores: bool,
    /// Whether `attend` gets the selection; where its choice is in doubt it does in any case.
    pub given: bool,
    /// Rows that sparse gradients have room for, beyond those that are needed.
    pub spare: usize,
}

impl Default for DecoupledBackwardCase {
    fn default() -> Self {
        Self {
            forward: DecoupledCase::default(),
            grad: Data::Normal,
            nan: None,
            forms: vec![Form::Sparse],
            scores: true,
            given: true,
            spare: 0,
        }
    }
}

/// The results of a run, floating-point numbers as bits.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoupledGradientOutput {
    pub(super) search: Vec<SparseGradientBits>,
    pub(super) aggregate: Vec<SparseGradientBits>,
    pub(super) scores: Vec<u32>,
    pub(super) attend: Vec<SparseGradientBits>,
    pub(super) attend_all: Vec<SparseGradientBits>,
}

/// The gradients that come in: of the output, and of scores.
pub(super) struct Grads {
    pub(super) out: Vec<f32>,
    pub(super) scores: Vec<f32>,
}

/// Both sets of tables.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Set {
    Attention,
    Representation,
}

/// How many different ids the gradient of each feature has: without candidates, and with them.
type Counts = Vec<[usize; 2]>;

impl DecoupledBackwardCase {
    /// How the tables store their rows.
    pub fn storage(&self) -> &'static str {
        self.forward.storage()
    }

    pub(super) fn grads(&self) -> Grads {
        let case = &self.forward;
        let mut rng = data::rng(case.seed ^ 0x5851);
        let (candidates, width) = (case.batch().targets().rows(), case.representation_widths.iter().sum());
        let mut out: Vec<f32> = data::rows(&mut rng, self.grad, candidates, width);
        if let Some(place) = self.nan {
            out[place] = f32::NAN;
        }
        Grads { out, scores: data::rows(&mut rng, self.grad, candidates, case.top_k) }
    }

    /// The form of the gradient of a table. 8-bit tables have none.
    pub(super) fn form(&self, set: Set, feature: usize) -> Form {
        let first = if set == Set::Attention { 0 } else { self.forward.table_rows.len() };
        match is_trainable(self.forward.storage) {
            true => *self.forms.get(first + feature).or(self.forms.last()).unwrap_or(&Form::Sparse),
            false => Form::None,
        }
    }

    /// The least that the call must do.
    pub fn work(&self, operation: &str) -> Work {
        let case = &self.forward;
        let (attention, representation) = (&case.attention_widths, &case.representation_widths);
        let widths = match operation {
            "decoupled_search_backward" => attention.clone(),
            "decoupled_aggregate_backward" => representation.clone(),
            _ => [&attention[..], representation].concat(),
        };
        let (batch, all) = (case.batch(), operation == "decoupled_attend_backward to all");
        let op = case.op().with_top_k(if all { None } else { Some(case.top_k) });
        // As if no id came twice.
        let touched = op.gradient_capacity(&batch).min(case.table_rows.iter().copied().max().unwrap_or(0));
        let bytes = by_storage!(case.storage, T => op.backward_bytes::<T>(&batch, touched, &widths));
        Work { flops: op.backward_flops(&batch, &widths), bytes }
    }

    /// What each candidate keeps of the selection.
    pub(super) fn kept(&self, selection: &ExactSelection) -> Vec<KeptRows> {
        let (case, mut kept) = (&self.forward, Vec::new());
        for (history, targets) in case.batch().requests() {
            for m in targets {
                let slots = m * case.top_k..m * case.top_k + selection.exact.counts[m] as usize;
                let positions = selection.exact.positions[slots.clone()].iter();
                let rows = positions.map(|&position| history.start + position as usize);
                let scores = selection.scores[slots].iter().map(|&score| f64::from(score));
                kept.push(rows.zip(scores).filter(|(_, score)| *score != f64::NEG_INFINITY).collect());
            }
        }
        kept
    }

    /// What each candidate keeps of its whole history, and whether the choice of the best is beyond doubt for all of them.
    pub(super) fn kept_of_all(&self, inputs: &Inputs) -> Result<(Vec<KeptRows>, bool), Failure> {
        let case = &self.forward;
        let error = case.score_error(inputs);
        let all = case.all_scores(inputs)?;
        let is_plain = all.iter().all(|scores| case.is_plain(scores, error));
        let starts = case
            .batch()
            .requests()
            .flat_map(|(history, targets)| vec![history.start; targets.len()])
            .collect::<Vec<_>>();
        let rows = |(scores, start): (Vec<(u32, f64)>, usize)| -> KeptRows {
            let rows = scores.into_iter().map(|(position, score)| (start + position as usize, score));
            rows.filter(|(_, score)| *score != f64::NEG_INFINITY).collect()
        };
        Ok((all.into_iter().zip(starts).map(rows).collect(), is_plain))
    }

    fn counts(&self, inputs: &Inputs, kept: &[KeptRows]) -> Counts {
        let features = self.forward.table_rows.len();
        let count = |(feature, &rows): (usize, &usize)| {
            let mut ids: Vec<u32> = Vec::new();
            let mut targets: Vec<u32> = Vec::new();
            for (m, kept) in kept.iter().enumerate().filter(|(_, kept)| !kept.is_empty()) {
                ids.extend(kept.iter().map(|(l, _)| inputs.ids[l * features + feature]));
                targets.push(inputs.target_ids[m * features + feature]);
            }
            let different = |ids: &mut Vec<u32>| {
                ids.retain(|&id| (id as usize) < rows);
                ids.sort_unstable();
                ids.dedup();
                ids.len()
            };
            let without = different(&mut ids);
            ids.extend(targets);
            [without, different(&mut ids)]
        };
        self.forward.table_rows.iter().enumerate().map(count).collect()
    }

    /// Buffers for the gradients of a set of tables.
    fn places<B: Backend>(
        &self,
        backend: &B,
        op: &Decoupled,
        set: Set,
        counts: &Counts,
    ) -> Result<Vec<Place<B>>, Failure> {
        let case = &self.forward;
        let capacity = op.gradient_capacity(&case.batch());
        let widths = if set == Set::Attention { &case.attention_widths } else { &case.representation_widths };
        let with_candidates = set == Set::Attention || op.multiply_target;
        let place = |(feature, (&rows, &width)): (usize, (&usize, &usize))| {
            let used = counts[feature][usize::from(with_candidates)];
            let spare = capacity.min(rows) - used + self.spare;
            Place::new(backend, self.form(set, feature), (used, spare), rows, width)
        };
        case.table_rows.iter().zip(widths).enumerate().map(place).collect()
    }
}

/// The places of a set as the gradients of a call.
fn gradients<'a, B: Backend>(
    backend: &B,
    places: &'a mut [Place<B>],
) -> Result<Vec<Option<TableGradient<'a, B::Memory>>>, Failure> {
    places.iter_mut().map(|place| place.gradient(backend)).collect()
}

fn finish<B: Backend>(backend: &B, places: Vec<Place<B>>) -> Result<Vec<SparseGradientBits>, Failure> {
    places.into_iter().map(|place| place.finish(backend)).collect()
}

/// What a run of a case gives to the calls.
struct Given<'a, B: Backend> {
    backend: &'a B,
    batch: &'a B::Batch,
    attention: &'a [Table<'a, B::Memory>],
    representation: &'a [Table<'a, B::Memory>],
    ids: View<'a, B::Memory, u32>,
    target_ids: View<'a, B::Memory, u32>,
    selection: Selection<'a, B::Memory>,
    grad_out: View<'a, B::Memory, f32>,
}

impl DecoupledBackwardCase {
    /// The backward pass of the search.
    fn search<B: Backend>(
        &self,
        given: &Given<'_, B>,
        calls: &mut dyn Calls,
        grad_scores: View<'_, B::Memory, f32>,
        counts: &Counts,
    ) -> Result<Vec<SparseGradientBits>, Failure> {
        let Given { backend, batch, selection, .. } = *given;
        let op = self.forward.op();
        let mut places = self.places(backend, &op, Set::Attention, counts)?;
        let inputs = SearchInputs::new(given.attention, given.ids, given.target_ids);
        calls.make("decoupled_search_backward", &mut || {
            let grads = SearchGradients::new().with_attention(gradients(backend, &mut places)?);
            Ok(backend.decoupled_search_backward_into(&op, batch, inputs, selection, grad_scores, grads)?)
        })?;
        finish(backend, places)
    }

    /// The backward pass of the aggregation: the gradients of tables, and those of the scores.
    fn aggregate<B: Backend>(
        &self,
        given: &Given<'_, B>,
        calls: &mut dyn Calls,
        counts: &Counts,
    ) -> Result<(Vec<SparseGradientBits>, Vec<u32>), Failure> {
        let Given { backend, batch, selection, grad_out, .. } = *given;
        let (case, op) = (&self.forward, self.forward.op());
        let mut places = self.places(backend, &op, Set::Representation, counts)?;
        let (used, unused) = (case.batch().targets().total() * case.top_k, case.tail * case.top_k);
        let (used, unused) = if self.scores { (used, unused) } else { (0, 0) };
        let mut scores = Guarded::<B, f32>::new(backend, used, unused)?;
        let inputs = AggregateInputs::new(given.representation, given.ids, given.target_ids);
        calls.make("decoupled_aggregate_backward", &mut || {
            let mut grads = AggregateGradients::new().with_representation(gradients(backend, &mut places)?);
            if self.scores {
                grads = grads.with_scores(scores.view_mut(backend)?);
            }
            Ok(backend.decoupled_aggregate_backward_into(&op, batch, inputs, selection, grad_out, grads)?)
        })?;
        let scores = scores.finish(backend, "scores")?.into_iter().map(f32::to_bits).collect();
        Ok((finish(backend, places)?, scores))
    }

    /// The backward pass of both in one.
    fn attend<B: Backend>(
        &self,
        given: &Given<'_, B>,
        calls: &mut dyn Calls,
        (name, op): (&'static str, &Decoupled),
        saved: DecoupledSaved<'_, B::Memory>,
        counts: &Counts,
    ) -> Result<Vec<SparseGradientBits>, Failure> {
        let Given { backend, batch, grad_out, .. } = *given;
        let inputs = DecoupledInputs::new(given.attention, given.representation, given.ids, given.target_ids);
        let mut first = self.places(backend, op, Set::Attention, counts)?;
        let mut second = self.places(backend, op, Set::Representation, counts)?;
        calls.make(name, &mut || {
            let grads = DecoupledGradients::new()
                .with_attention(gradients(backend, &mut first)?)
                .with_representation(gradients(backend, &mut second)?);
            Ok(backend.decoupled_attend_backward_into(op, batch, inputs, saved, grad_out, grads)?)
        })?;
        let mut both = finish(backend, first)?;
        both.extend(finish(backend, second)?);
        Ok(both)
    }
}

impl Case for DecoupledBackwardCase {
    type Output = DecoupledGradientOutput;

    fn run_with<B: Backend>(
        &self,
        backend: &B,
        calls: &mut dyn Calls,
    ) -> Result<DecoupledGradientOutput, Failure> {
        let case = &self.forward;
        let (op, batch, inputs, grads) = (case.op(), case.batch(), case.inputs(), self.grads());
        let device_batch = backend.batch(batch.histories(), batch.targets())?;
        let (attention, representation) =
            (upload_all(backend, &inputs.attention)?, upload_all(backend, &inputs.representation)?);
        let (attention, representation) = (views(backend, &attention), views(backend, &representation));
        let (ids, target_ids) = (backend.upload(&inputs.ids)?, backend.upload(&inputs.target_ids)?);
        let (grad_out, grad_scores) = (backend.upload(&grads.out)?, backend.upload(&grads.scores)?);
        let exact = case.selection(&inputs)?;
        let counts = self.counts(&inputs, &self.kept(&exact));
        let (all, is_plain) = self.kept_of_all(&inputs)?;
        let all_counts = self.counts(&inputs, &all);
        let positions = backend.upload(&exact.exact.positions)?;
        let (scores, kept) = (backend.upload(&exact.scores)?, backend.upload(&exact.exact.counts)?);
        let given = Given {
            backend,
            batch: &device_batch,
            attention: &attention,
            representation: &representation,
            ids: backend.view(&ids),
            target_ids: backend.view(&target_ids),
            selection: Selection::new(backend.view(&positions), backend.view(&scores), backend.view(&kept)),
            grad_out: backend.view(&grad_out),
        };
        let search = self.search(&given, calls, backend.view(&grad_scores), &counts)?;
        let (aggregate, scores) = self.aggregate(&given, calls, &counts)?;
        let mut saved = DecoupledSaved::new();
        if self.given || !is_plain {
            saved = saved.with_selection(given.selection);
        }
        let attend = self.attend(&given, calls, ("decoupled_attend_backward", &op), saved, &counts)?;
        let all_kept = ("decoupled_attend_backward to all", &op.clone().with_top_k(None));
        let attend_all = self.attend(&given, calls, all_kept, DecoupledSaved::new(), &all_counts)?;
        Ok(DecoupledGradientOutput { search, aggregate, scores, attend, attend_all })
    }

    fn compare(&self, output: &DecoupledGradientOutput, rules: Rules) -> Result<(), Failure> {
        self.compare_with_reference(output, rules)
    }
}
