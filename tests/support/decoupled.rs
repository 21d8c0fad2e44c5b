//! Cases of decoupled search and aggregation.

use std::collections::HashMap;

use longseq::reference::SelectionReference;
use longseq::*;

use super::cases::Work;
use super::compare::{Bound, U, additions, compare, compare_exact};
use super::data::{self, Data, Ids};
use super::guard::Guarded;
use super::lookup::{Owned, Storage, feature_ids, table, table_bytes, upload_all, view, views};
use super::{Calls, Case, Failure, Rules};
use crate::by_storage;

/// A batch of search, aggregation from the exact selection, and the fused form with and without a top-K.
#[derive(Debug, Clone)]
pub struct DecoupledCase {
    pub seed: u64,
    pub storage: Storage,
    pub data: Data,
    pub histories: Vec<usize>,
    pub targets: Vec<usize>,
    pub tail: usize,
    pub table_rows: Vec<usize>,
    pub attention_widths: Vec<usize>,
    pub representation_widths: Vec<usize>,
    pub top_k: usize,
    pub multiply_target: bool,
    pub ids: Ids,
    /// With `IdPolicy::Zero`, every fifth id is outside.
    pub policy: IdPolicy,
}

impl Default for DecoupledCase {
    fn default() -> Self {
        Self {
            seed: 1,
            storage: Storage::F32,
            data: Data::Normal,
            histories: vec![37],
            targets: vec![5],
            tail: 0,
            table_rows: vec![50, 7],
            attention_widths: vec![8, 4],
            representation_widths: vec![16, 5],
            top_k: 10,
            multiply_target: false,
            ids: Ids::Skewed,
            policy: IdPolicy::Error,
        }
    }
}

/// Everything a run gives, floating-point numbers as bits.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoupledOutput {
    positions: Vec<u32>,
    scores: Vec<u32>,
    counts: Vec<u32>,
    aggregate: Vec<u32>,
    attend: Vec<u32>,
    attend_all: Vec<u32>,
}

struct Inputs {
    attention: Vec<Owned<Host>>,
    representation: Vec<Owned<Host>>,
    ids: Vec<u32>,
    target_ids: Vec<u32>,
}

/// `search`'s, from the reference, with scores rounded to `f32`: what `aggregate` is given.
struct ExactSelection {
    exact: SelectionReference,
    scores: Vec<f32>,
}

impl DecoupledCase {
    pub fn op(&self) -> Decoupled {
        let scales: Vec<f32> = (1..=self.table_rows.len()).map(|f| 0.3 / f as f32).collect();
        Decoupled::new(scales)
            .with_top_k(Some(self.top_k))
            .with_multiply_target(self.multiply_target)
            .with_ids(self.policy)
    }

    pub fn batch(&self) -> Batch {
        data::batch(&self.histories, &self.targets, self.tail)
    }

    pub fn work(&self, operation: &str) -> Work {
        let batch = self.batch();
        let (attention, representation) = (&self.attention_widths, &self.representation_widths);
        let all = operation == "decoupled_attend to all";
        let op = self.op().with_top_k(if all { None } else { Some(self.top_k) });
        let [search_bytes, aggregate_bytes] = by_storage!(self.storage, T => {
            [op.search_bytes::<T>(&batch, attention), op.aggregate_bytes::<T>(&batch, representation)]
        });
        let search = Work { flops: op.search_flops(&batch, attention), bytes: search_bytes };
        let aggregate = Work { flops: op.aggregate_flops(&batch, representation), bytes: aggregate_bytes };
        match operation {
            "decoupled_search" => search,
            "decoupled_aggregate" => aggregate,
            _ => Work { flops: search.flops + aggregate.flops, bytes: search.bytes + aggregate.bytes },
        }
    }

    pub fn table_bytes(&self, operation: &str) -> u64 {
        let [attention, representation] = [&self.attention_widths, &self.representation_widths]
            .map(|widths| by_storage!(self.storage, T => table_bytes::<T>(&self.table_rows, widths)));
        match operation {
            "decoupled_search" => attention,
            "decoupled_aggregate" => representation,
            _ => attention + representation,
        }
    }

    fn inputs(&self) -> Inputs {
        let (batch, mut rng) = (self.batch(), data::rng(self.seed));
        let mut ids = feature_ids(&mut rng, self.ids, batch.histories().rows(), &self.table_rows);
        let mut target_ids = feature_ids(&mut rng, self.ids, batch.targets().rows(), &self.table_rows);
        if self.policy == IdPolicy::Zero {
            ids.iter_mut().step_by(5).for_each(|id| *id = u32::MAX - *id);
            target_ids.iter_mut().skip(1).step_by(5).for_each(|id| *id = u32::MAX - *id);
        }
        let mut tables = |widths: &[usize]| -> Vec<Owned<Host>> {
            let shapes = self.table_rows.iter().zip(widths);
            shapes.map(|(&rows, &width)| table(&mut rng, self.data, self.storage, rows, width)).collect()
        };
        let (attention, representation) =
            (tables(&self.attention_widths), tables(&self.representation_widths));
        Inputs { attention, representation, ids, target_ids }
    }

    fn selection(&self, inputs: &Inputs) -> Result<ExactSelection, Failure> {
        let attention = views(&Cpu::new(), &inputs.attention);
        let (ids, target_ids) = (Host::view(&inputs.ids[..]), Host::view(&inputs.target_ids[..]));
        let search = SearchInputs { attention: &attention, ids, target_ids };
        let exact = reference::decoupled_search(&self.op(), &self.batch(), &search)?;
        let scores = exact.scores.iter().map(|&score| score as f32).collect();
        Ok(ExactSelection { exact, scores })
    }
}

impl Case for DecoupledCase {
    type Output = DecoupledOutput;

    fn run_with<B: Backend>(&self, backend: &B, calls: &mut dyn Calls) -> Result<DecoupledOutput, Failure> {
        let (op, batch, inputs) = (self.op(), self.batch(), self.inputs());
        let device_batch = backend.batch(batch.histories(), batch.targets())?;
        let attention = upload_all(backend, &inputs.attention)?;
        let representation = upload_all(backend, &inputs.representation)?;
        let (attention, representation) = (views(backend, &attention), views(backend, &representation));
        let (ids, target_ids) = (backend.upload(&inputs.ids)?, backend.upload(&inputs.target_ids)?);
        let (ids, target_ids) = (backend.view(&ids), backend.view(&target_ids));
        let (candidates, unused) = (batch.targets().total(), self.tail);
        let k = self.top_k;
        let mut positions = Guarded::<B, u32>::new(backend, candidates * k, unused * k)?;
        let mut scores = Guarded::<B, f32>::new(backend, candidates * k, unused * k)?;
        let mut counts = Guarded::<B, u32>::new(backend, candidates, unused)?;
        let search = SearchInputs { attention: &attention, ids, target_ids };
        calls.make("decoupled_search", &mut || {
            let kept = SelectionMut {
                positions: positions.view_mut(backend)?,
                scores: scores.view_mut(backend)?,
                counts: counts.view_mut(backend)?,
            };
            Ok(backend.decoupled_search_into(&op, &device_batch, search, kept)?)
        })?;

        let width = self.representation_widths.iter().sum::<usize>();
        let room = || Guarded::<B, f32>::new(backend, candidates * width, unused * width);
        let mut aggregate = room()?;
        if calls.wants("decoupled_aggregate") {
            let given = self.selection(&inputs)?;
            let positions = backend.upload(&given.exact.positions)?;
            let (scores, counts) = (backend.upload(&given.scores)?, backend.upload(&given.exact.counts)?);
            let selection = Selection {
                positions: backend.view(&positions),
                scores: backend.view(&scores),
                counts: backend.view(&counts),
            };
            let aggregated = AggregateInputs { representation: &representation, ids, target_ids };
            calls.make("decoupled_aggregate", &mut || {
                let out = aggregate.view_mut(backend)?;
                Ok(backend.decoupled_aggregate_into(&op, &device_batch, aggregated, selection, out)?)
            })?;
        }

        let fused =
            DecoupledInputs { attention: &attention, representation: &representation, ids, target_ids };
        let mut attend = room()?;
        calls.make("decoupled_attend", &mut || {
            Ok(backend.decoupled_attend_into(&op, &device_batch, fused, attend.view_mut(backend)?)?)
        })?;
        let mut attend_all = room()?;
        let all = op.clone().with_top_k(None);
        calls.make("decoupled_attend to all", &mut || {
            Ok(backend.decoupled_attend_into(&all, &device_batch, fused, attend_all.view_mut(backend)?)?)
        })?;

        let bits = |numbers: Vec<f32>| numbers.into_iter().map(f32::to_bits).collect();
        Ok(DecoupledOutput {
            positions: positions.finish(backend, "positions")?,
            scores: bits(scores.finish(backend, "scores")?),
            counts: counts.finish(backend, "counts")?,
            aggregate: bits(aggregate.finish(backend, "aggregate")?),
            attend: bits(attend.finish(backend, "attend")?),
            attend_all: bits(attend_all.finish(backend, "attend to all")?),
        })
    }

    fn compare(&self, output: &DecoupledOutput, rules: Rules) -> Result<(), Failure> {
        let (op, batch, inputs) = (self.op(), self.batch(), self.inputs());
        let selection = self.selection(&inputs)?;
        let floats = |bits: &[u32]| -> Vec<f32> { bits.iter().map(|&x| f32::from_bits(x)).collect() };
        // A score is a sum of Σ a terms, each of magnitude scale·max(A)², of factors that may be decoded.
        let terms = inputs.attention.iter().zip(&op.scales);
        let magnitude: f64 = terms
            .map(|(table, &scale)| table.width as f64 * f64::from(scale) * table.max_abs().powi(2))
            .sum();
        let width = self.attention_widths.iter().sum::<usize>() as f64;
        let score_error = (width + 8.0) * U * magnitude + f64::from(f32::MIN_POSITIVE);
        let used = batch.targets().total();
        compare_exact("counts", &output.counts, &selection.exact.counts[..used])?;
        let all_scores = self.all_scores(&inputs)?;
        for m in 0..used {
            self.compare_selection(m, output, &inputs, &all_scores, score_error)?;
        }

        let max_row = inputs.representation.iter().map(Owned::max_abs).fold(0.0, f64::max);
        let factor = if self.multiply_target { max_row } else { 1.0 };
        let longest = batch.histories().max_length();
        let weights_error = |score_error: f64| (2.0 * score_error).exp_m1() + (additions(longest) + 16.0) * U;
        let bound = |error: f64| Bound::uniform(max_row * factor * error, self.data == Data::Normal);
        let representation = views(&Cpu::new(), &inputs.representation);
        let attention = views(&Cpu::new(), &inputs.attention);
        let (ids, target_ids) = (Host::view(&inputs.ids[..]), Host::view(&inputs.target_ids[..]));
        let width = self.representation_widths.iter().sum::<usize>();

        let selection = Selection {
            positions: Host::view(&selection.exact.positions),
            scores: Host::view(&selection.scores),
            counts: Host::view(&selection.exact.counts),
        };
        let aggregated = AggregateInputs { representation: &representation, ids, target_ids };
        let exact = reference::decoupled_aggregate(&op, &batch, &aggregated, &selection)?;
        let got = floats(&output.aggregate);
        compare("aggregate", &got, &exact[..used * width], &bound(weights_error(4.0 * U)), rules)?;

        let fused =
            DecoupledInputs { attention: &attention, representation: &representation, ids, target_ids };
        let all = op.clone().with_top_k(None);
        let exact = reference::decoupled_attend(&all, &batch, &fused)?;
        let got = floats(&output.attend_all);
        compare("attend to all", &got, &exact[..used * width], &bound(weights_error(score_error)), rules)?;

        // Where the K-th and the next score are too close to tell apart, either selection is right.
        let exact = reference::decoupled_attend(&op, &batch, &fused)?;
        let got = floats(&output.attend);
        let is_plain = |scores: &Vec<(u32, f64)>| {
            let gap = scores.get(self.top_k).map_or(f64::INFINITY, |next| scores[self.top_k - 1].1 - next.1);
            gap == 0.0 || gap > 2.0 * score_error
        };
        let plain: Vec<usize> = (0..used).filter(|&m| is_plain(&all_scores[m])).collect();
        let places: Vec<usize> = plain.iter().flat_map(|m| m * width..(m + 1) * width).collect();
        let got: Vec<f32> = places.iter().map(|&place| got[place]).collect();
        let exact: Vec<f64> = places.iter().map(|&place| exact[place]).collect();
        let name = format!("attend, candidates {plain:?}");
        compare(&name, &got, &exact, &bound(weights_error(score_error)), rules)?;
        Ok(())
    }
}

impl DecoupledCase {
    /// For each candidate, every behaviour of its user as (position, score), best first.
    fn all_scores(&self, inputs: &Inputs) -> Result<Vec<Vec<(u32, f64)>>, Failure> {
        let batch = self.batch();
        let everything = batch.histories().max_length().max(1);
        let attention: Vec<Table<'_, Host>> =
            inputs.attention.iter().map(|table| view(&Cpu::new(), table)).collect();
        let search = SearchInputs {
            attention: &attention,
            ids: Host::view(&inputs.ids),
            target_ids: Host::view(&inputs.target_ids),
        };
        let all = reference::decoupled_search(&self.op().with_top_k(Some(everything)), &batch, &search)?;
        let candidate = |m: usize| {
            let slots = m * everything..m * everything + all.counts[m] as usize;
            all.positions[slots.clone()].iter().copied().zip(all.scores[slots].iter().copied()).collect()
        };
        Ok((0..batch.targets().total()).map(candidate).collect())
    }

    /// One candidate's selection: scores within their error, positions exact wherever scores can be told apart, ties
    /// by position.
    fn compare_selection(
        &self,
        m: usize,
        output: &DecoupledOutput,
        inputs: &Inputs,
        all_scores: &[Vec<(u32, f64)>],
        score_error: f64,
    ) -> Result<(), Failure> {
        let wrong = |what: String| Err(Failure(format!("search, candidate {m}: {what}")));
        let exact = &all_scores[m];
        let kept = output.counts[m] as usize;
        let slots = m * self.top_k..(m + 1) * self.top_k;
        let positions = &output.positions[slots.clone()];
        let scores: Vec<f32> = output.scores[slots].iter().map(|&bits| f32::from_bits(bits)).collect();
        for slot in kept..self.top_k {
            if positions[slot] != EMPTY_SLOT || scores[slot] != f32::NEG_INFINITY {
                return wrong(format!("slot {slot} is not empty: {} {}", positions[slot], scores[slot]));
            }
        }
        let apart = |a: usize, b: usize| match (exact.get(a), exact.get(b)) {
            (Some(a), Some(b)) => (a.1 - b.1).abs() > 2.0 * score_error,
            _ => true,
        };
        let mut seen = vec![false; exact.len()];
        for slot in 0..kept {
            let (position, score) = (positions[slot], f64::from(scores[slot]));
            let expected = exact[slot];
            if (score - expected.1).abs() > score_error {
                return wrong(format!("slot {slot} has score {score:e}, reference {:e}", expected.1));
            }
            if position as usize >= exact.len() || std::mem::replace(&mut seen[position as usize], true) {
                return wrong(format!("slot {slot} has position {position}, outside or kept twice"));
            }
            if (slot == 0 || apart(slot - 1, slot)) && apart(slot, slot + 1) && position != expected.0 {
                return wrong(format!("slot {slot} has position {position}, reference {}", expected.0));
            }
            if slot > 0 && scores[slot] > scores[slot - 1] {
                return wrong(format!("slot {slot} has a higher score than the one before"));
            }
            if slot > 0 && scores[slot] == scores[slot - 1] && position < positions[slot - 1] {
                return wrong(format!("slots {} and {slot} tie, but the later position is first", slot - 1));
            }
        }
        self.compare_duplicates(m, &positions[..kept], inputs).or_else(wrong)
    }

    /// Behaviours with the same ids score the same on every device: the earlier one is kept first.
    fn compare_duplicates(&self, m: usize, positions: &[u32], inputs: &Inputs) -> Result<(), String> {
        let features = self.table_rows.len();
        let batch = self.batch();
        let (history, _) = batch
            .requests()
            .find(|(_, targets)| targets.contains(&m))
            .ok_or_else(|| format!("candidate {m} belongs to nobody"))?;
        let ids = |l: usize| &inputs.ids[l * features..(l + 1) * features];
        let mut places: HashMap<&[u32], Vec<u32>> = HashMap::new();
        for (position, l) in history.clone().enumerate() {
            places.entry(ids(l)).or_default().push(position as u32);
        }
        let mut kept: HashMap<&[u32], usize> = HashMap::new();
        for &position in positions {
            let key = ids(history.start + position as usize);
            let before = kept.entry(key).or_default();
            if places[key][*before] != position {
                return Err(format!(
                    "kept {position} before {}, whose ids are the same",
                    places[key][*before]
                ));
            }
            *before += 1;
        }
        Ok(())
    }
}
