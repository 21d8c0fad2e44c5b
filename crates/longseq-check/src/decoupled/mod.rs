//! Cases of decoupled search and aggregation.

mod backward;
mod backward_compare;
mod backward_large;
mod backward_refusals;
pub mod backward_tests;
mod bounds;
mod compare;
mod extremes;
mod overflow;
mod scales;
mod scores;
pub mod tests;

pub use backward::{DecoupledBackwardCase, DecoupledGradientOutput, FORMULA as BACKWARD_FORMULA};
pub use backward_large::rows_near_the_limits;
pub use overflow::check_overflowing_scores;
pub use scales::check_scales_near_the_limits;
pub use scores::Scores;

use longseq::reference::SelectionReference;
use longseq::*;

use crate::by_storage;
use crate::case::{Calls, Case, Failure, Rules};
use crate::data::{self, Data, Ids};
use crate::guard::Guarded;
use crate::lookup::{Owned, Storage, Stored, feature_ids, table, table_bytes, upload_all, views};
use crate::named::Work;

/// The formula, as `explain` prints it.
pub const FORMULA: &str = "\
s[m, l] = Σ_f scale_f · ⟨A_f[target_ids[m, f]], A_f[ids[l, f]]⟩   over the history l of candidate m's user
search: the K behaviours of largest s, ties by position
aggregate: out[m] = Σ_k softmax_k(s) · [R_0[ids[l_k, 0]], R_1[ids[l_k, 1]], …]   (times the candidate's own rows on request)
attend: aggregate(search), or over the whole history without a K";

/// A batch of search, aggregation from the exact selection, and the fused form with and without a top-K.
#[derive(Debug, Clone)]
pub struct DecoupledCase {
    /// Where the data come from.
    pub seed: u64,
    /// How tables store their rows.
    pub storage: Storage,
    /// What the numbers look like.
    pub data: Data,
    /// The length of each user's history.
    pub histories: Vec<usize>,
    /// The number of each user's candidates.
    pub targets: Vec<usize>,
    /// Rows at the end of every input and output that belong to nobody.
    pub tail: usize,
    /// The rows of each feature's table.
    pub table_rows: Vec<usize>,
    /// The widths of the attention tables.
    pub attention_widths: Vec<usize>,
    /// The widths of the representation tables.
    pub representation_widths: Vec<usize>,
    /// How many behaviours are kept.
    pub top_k: usize,
    /// Whether results are multiplied with the candidate's own rows.
    pub multiply_target: bool,
    /// How often each id occurs.
    pub ids: Ids,
    /// With `IdPolicy::Zero`, every fifth id is outside.
    pub policy: IdPolicy,
    /// Scores by position, for one feature whose attention table has width 1 and a row more than the longest history.
    pub scores: Option<Scores>,
    /// With `scores`: what the representations hold of the behaviours that [`Scores::Some`] marks.
    pub held: Option<f32>,
    /// What the numbers look like in representation tables; `None`: as `data`.
    pub representation_data: Option<Data>,
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
            scores: None,
            held: None,
            representation_data: None,
        }
    }
}

/// The results of a run, floating-point numbers as bits.
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

/// The selection of the reference's search, with scores rounded to `f32`: the input of `aggregate`.
struct ExactSelection {
    exact: SelectionReference,
    scores: Vec<f32>,
}

impl DecoupledCase {
    /// How the tables store their rows.
    pub fn storage(&self) -> &'static str {
        self.storage.name()
    }

    /// The operation.
    pub fn op(&self) -> Decoupled {
        let scale = if self.scores.is_some() { 1.0 } else { 0.3 };
        let scales: Vec<f32> = (1..=self.table_rows.len()).map(|f| scale / f as f32).collect();
        Decoupled::new(scales)
            .with_top_k(Some(self.top_k))
            .with_multiply_target(self.multiply_target)
            .with_ids(self.policy)
    }

    /// The batch.
    pub fn batch(&self) -> Batch {
        data::batch(&self.histories, &self.targets, self.tail)
    }

    /// The least that the call must do.
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

    /// Bytes of the tables that the call reads.
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
        let mut tables = |widths: &[usize], data: Data| -> Vec<Owned<Host>> {
            let shapes = self.table_rows.iter().zip(widths);
            shapes.map(|(&rows, &width)| table(&mut rng, data, self.storage, rows, width)).collect()
        };
        let attention = tables(&self.attention_widths, self.data);
        let representation =
            tables(&self.representation_widths, self.representation_data.unwrap_or(self.data));
        let mut inputs = Inputs { attention, representation, ids, target_ids };
        if let Some(scores) = self.scores {
            self.give_scores(scores, &mut inputs);
        }
        inputs
    }

    /// A behaviour's id is its position, whose attention row is its score; the candidates' row, the table's last, is 1.
    fn give_scores(&self, scores: Scores, inputs: &mut Inputs) {
        let (batch, longest) = (self.batch(), self.table_rows[0] - 1);
        for (l, position) in batch.histories().ranges().flat_map(|rows| rows.clone().zip(0..)) {
            inputs.ids[l] = position;
        }
        inputs.target_ids.fill(longest as u32);
        let rows = (0..longest).map(|position| scores.at(position, longest)).chain([1.0]);
        inputs.attention[0].data = Stored::F32(rows.collect());
        if let (Some(held), Stored::F32(rows)) = (self.held, &mut inputs.representation[0].data) {
            let marked = (0..longest).filter(|&position| scores::is_marked(position));
            let width = self.representation_widths[0];
            marked.for_each(|position| rows[position * width..(position + 1) * width].fill(held));
        }
    }

    fn selection(&self, inputs: &Inputs) -> Result<ExactSelection, Failure> {
        let attention = views(&Cpu::new(), &inputs.attention);
        let (ids, target_ids) = (Host::view(&inputs.ids[..]), Host::view(&inputs.target_ids[..]));
        let search = SearchInputs::new(&attention, ids, target_ids);
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
        let search = SearchInputs::new(&attention, ids, target_ids);
        calls.make("decoupled_search", &mut || {
            let kept = SelectionMut::new(
                positions.view_mut(backend)?,
                scores.view_mut(backend)?,
                counts.view_mut(backend)?,
            );
            Ok(backend.decoupled_search_into(&op, &device_batch, search, kept)?)
        })?;

        let width = self.representation_widths.iter().sum::<usize>();
        let output = || Guarded::<B, f32>::new(backend, candidates * width, unused * width);
        let mut aggregate = output()?;
        if calls.wants("decoupled_aggregate") {
            let given = self.selection(&inputs)?;
            let positions = backend.upload(&given.exact.positions)?;
            let (scores, counts) = (backend.upload(&given.scores)?, backend.upload(&given.exact.counts)?);
            let selection =
                Selection::new(backend.view(&positions), backend.view(&scores), backend.view(&counts));
            let aggregated = AggregateInputs::new(&representation, ids, target_ids);
            calls.make("decoupled_aggregate", &mut || {
                let out = aggregate.view_mut(backend)?;
                Ok(backend.decoupled_aggregate_into(&op, &device_batch, aggregated, selection, out)?)
            })?;
        }

        let fused = DecoupledInputs::new(&attention, &representation, ids, target_ids);
        let mut attend = output()?;
        calls.make("decoupled_attend", &mut || {
            Ok(backend.decoupled_attend_into(&op, &device_batch, fused, attend.view_mut(backend)?)?)
        })?;
        let mut attend_all = output()?;
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
        self.compare_with_reference(output, rules)
    }
}
