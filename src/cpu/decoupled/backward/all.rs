//! Gradients of attention over every behaviour. One pass over the scores gives each candidate's softmax; in a second, a bounded
//! number of behaviours at a time are gathered and get their gradients, as keys and values of target attention do, and each id adds
//! up those of its behaviours.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cpu::decoupled::aggregate::{Combine, Sums};
use crate::cpu::decoupled::backward::Pass;
use crate::cpu::decoupled::backward::kept::scale_features;
use crate::cpu::decoupled::scores::Scorer;
use crate::cpu::gradient_rows::{Asked, GradientRows, Ids, begin_sums, write};
use crate::cpu::pieces::{self, PieceRows};
use crate::cpu::selection::{BLOCK, blocks};
use crate::cpu::spans::spans;
use crate::cpu::tables::{prefetch_rows, read_rows};
use crate::cpu::target_attention::{GatheredAttention, GatheredGradients};
use crate::cpu::threads::{map, split_rows};
use crate::cpu::tile_pooling::TilePooling;
use crate::cpu::vector::{Kernel, LANES, Lanes, Row, add};
use crate::error::Result;
use crate::host::{Host, filled, reserve};
use crate::jagged::Batch;
use crate::ops::*;

/// The numbers of the gradients of behaviours that are held at a time.
const HELD: usize = 1 << 22;

/// A task has at least about this many behaviours.
const LEAST: usize = 512;

/// The gradients of tables, attention and then representation.
pub(super) fn backward<'a>(
    pass: &Pass<'_>,
    batch: &Batch,
    inputs: &DecoupledInputs<'a, Host>,
    grad_out: &[f32],
    asked: [Asked<'a>; 2],
) -> Result<()> {
    let wanted = asked.each_ref().map(Asked::is_any);
    let states = States::new(pass, batch, inputs, wanted[0] || pass.op.multiply_target)?;
    let grad_out = &grad_out[..batch.targets().total() * total_width(inputs.representation)];
    let mut products = Vec::new();
    if pass.op.multiply_target {
        products = read_targets(pass, batch, inputs.representation)?;
        products.iter_mut().zip(grad_out).for_each(|(product, grad)| *product *= grad);
    }
    let mut queries = read_targets(pass, batch, inputs.attention)?;
    let scales = pass.op.split_scales();
    scale_rows(&scales.0, inputs.attention, &mut queries);
    All { pass, batch, inputs, grad_out, wanted, states, scales, queries, products }.run(asked)
}

/// The rows of the candidates, `[C of all users, Σ width]`.
fn read_targets(pass: &Pass<'_>, batch: &Batch, tables: &[Table<'_, Host>]) -> Result<Vec<f32>> {
    let used = batch.targets().total();
    let mut rows = filled(pass.operation, used.saturating_mul(total_width(tables)), 0.0)?;
    let ids = &pass.target_ids[..used * tables.len()];
    pass.instructions.run(Gather { tables, ids, rows: &mut rows });
    Ok(rows)
}

/// Multiplies each feature's part of rows `[_, Σ a]` by the feature's scale.
fn scale_rows(scales: &[f32], tables: &[Table<'_, Host>], rows: &mut [f32]) {
    rows.chunks_exact_mut(total_width(tables)).for_each(|row| scale_features(scales, tables, row));
}

/// What all chunks read.
struct All<'p, 'a> {
    pass: &'p Pass<'p>,
    batch: &'p Batch,
    inputs: &'p DecoupledInputs<'a, Host>,
    /// `[M, Σ r]`.
    grad_out: &'p [f32],
    /// Whether gradients of attention and of representation tables are.
    wanted: [bool; 2],
    states: States,
    /// On the candidates' attention rows, and on the sums of their products.
    scales: (Vec<f32>, f32),
    /// `[M, Σ a]`: the candidates' attention rows times the scales.
    queries: Vec<f32>,
    /// `[M, Σ r]`: `grad_out ⊙ target`, with `multiply_target`.
    products: Vec<f32>,
}

impl All<'_, '_> {
    fn widths(&self) -> [usize; 2] {
        [total_width(self.inputs.attention), total_width(self.inputs.representation)]
    }

    fn run(&self, [mut attention, mut representation]: [Asked<'_>; 2]) -> Result<()> {
        let Pass { operation, instructions, op, .. } = *self.pass;
        let (features, widths) = (op.features(), self.widths());
        let held = HELD / widths.iter().fold(0usize, |sum, &width| sum.saturating_add(width));
        let chunks = Chunk::cut(self.batch, held.max(LEAST));
        let (candidates, candidate_ids) = self.candidates()?;
        if chunks.len() > 1 {
            let (_, behaviours) = self.behaviours(&chunks)?;
            let ids = Ids { features, behaviours: &behaviours, candidates: &candidate_ids };
            begin_sums(operation, &ids, &mut [&mut attention, &mut representation])?;
        }
        let mut target_grads = vec![];
        if self.wanted[0] {
            target_grads = filled(operation, self.queries.len(), 0.0)?;
        }
        let mut target_means = Vec::new();
        for (i, chunk) in chunks.iter().enumerate() {
            let [keys, values] = self.gradients(chunk, &mut target_grads)?;
            // The candidates' gradients are known after the last chunk.
            let is_last = i + 1 == chunks.len();
            if is_last {
                scale_rows(&self.scales.0, self.inputs.attention, &mut target_grads);
                if op.multiply_target {
                    target_means
                        .extend(self.states.means.iter().zip(self.grad_out).map(|(mean, grad)| mean * grad));
                }
            }
            let (index, behaviours) = self.behaviours(std::slice::from_ref(chunk))?;
            let candidate_ids = if is_last { &candidate_ids[..] } else { &[] };
            let ids = Ids { features, behaviours: &behaviours, candidates: candidate_ids };
            let set = |rows, targets: Option<_>| GradientRows {
                weights: None,
                index: &index,
                rows,
                candidates: targets.filter(|_| is_last).map(|rows| (&candidates[..], rows)),
            };
            let own = op.multiply_target.then_some(&target_means[..]);
            let mut sets = [
                (&mut attention, set(&keys[..], Some(&target_grads[..]))),
                (&mut representation, set(&values[..], own)),
            ];
            write(operation, instructions, &ids, &mut sets)?;
        }
        Ok(())
    }

    /// The candidates that have any behaviour left, and their ids.
    fn candidates(&self) -> Result<(Vec<u32>, Vec<u32>)> {
        let Pass { operation, op, target_ids, .. } = *self.pass;
        let (features, sums) = (op.features(), &self.states.sum);
        let (mut candidates, mut ids) =
            (reserve(operation, sums.len())?, reserve(operation, sums.len() * features)?);
        // NaN is not equal to 0.
        for (m, _) in sums.iter().enumerate().filter(|(_, sum)| **sum != 0.0) {
            candidates.push(m as u32);
            ids.extend_from_slice(&target_ids[m * features..(m + 1) * features]);
        }
        Ok((candidates, ids))
    }

    /// The behaviours of chunks that any candidate keeps, counted from the first one of the chunks, and their ids.
    fn behaviours(&self, chunks: &[Chunk]) -> Result<(Vec<u32>, Vec<u32>)> {
        let Pass { operation, op, .. } = *self.pass;
        let features = op.features();
        let rows: usize = chunks.iter().map(Chunk::rows).sum();
        let (mut index, mut ids) = (reserve(operation, rows)?, reserve(operation, rows * features)?);
        let mut first = 0;
        for (user, history) in chunks.iter().flat_map(|chunk| &chunk.parts) {
            let candidates = self.batch.targets().range(*user).len();
            for (l, row) in history.clone().zip(first..) {
                if (self.states.removed[l].load(Ordering::Relaxed) as usize) < candidates {
                    index.push(row);
                    ids.extend_from_slice(&self.inputs.history_ids[l * features..(l + 1) * features]);
                }
            }
            first += history.len() as u32;
        }
        Ok((index, ids))
    }

    /// The gradients of a chunk's attention and representation rows, where asked for; adds to those of the candidates' attention
    /// rows.
    fn gradients(&self, chunk: &Chunk, target_grads: &mut [f32]) -> Result<[Vec<f32>; 2]> {
        let Pass { operation, instructions, op, .. } = *self.pass;
        let widths = self.widths();
        let attention = GatheredAttention {
            widths,
            scale: self.scales.1,
            queries: &self.queries,
            grad_out: if op.multiply_target { &self.products } else { self.grad_out },
            out: (!self.states.means.is_empty()).then_some(&self.states.means),
            state: [&self.states.max, &self.states.sum],
        };
        let spans = spans(chunk.ranges(), LEAST);
        let rows = |set: usize| {
            filled(operation, if self.wanted[set] { chunk.rows() * widths[set] } else { 0 }, 0.0)
        };
        let (mut keys, mut values) = (rows(0)?, rows(1)?);
        let lengths = || spans.iter().map(|span| span.rows.len());
        let key_grads = self.wanted[0].then(|| split_rows(lengths(), &mut keys, widths[0]));
        let value_grads = self.wanted[1].then(|| split_rows(lengths(), &mut values, widths[1]));
        let (mut key_grads, mut value_grads) =
            (key_grads.map(Vec::into_iter), value_grads.map(Vec::into_iter));
        let starts: Vec<usize> = chunk.ranges().map(|range| range.start).collect();
        let mut tasks = Vec::with_capacity(spans.len());
        for span in &spans {
            let (key_grads, value_grads) =
                (key_grads.as_mut().and_then(Iterator::next), value_grads.as_mut().and_then(Iterator::next));
            tasks.push((span, key_grads, value_grads));
        }
        let partials = map(tasks, |(span, keys, values)| {
            let (user, part) = &chunk.parts[span.owner];
            let (user, first) = (*user, part.start + (span.rows.start - starts[span.owner]));
            let history = first..first + span.rows.len();
            let targets = self.batch.targets().range(user);
            let out = GatheredGradients { keys, values, queries: self.wanted[0] };
            let gather = |tables: &[Table<'_, Host>]| {
                let mut rows = vec![0.0; history.len() * total_width(tables)];
                let ids = &self.inputs.history_ids[history.start * tables.len()..history.end * tables.len()];
                instructions.run(Gather { tables, ids, rows: &mut rows });
                rows
            };
            // The gradients of values alone do not depend on values.
            let values = if self.wanted[0] { gather(self.inputs.representation) } else { Vec::new() };
            let rows = (&gather(self.inputs.attention)[..], &values[..]);
            (user, attention.span(instructions, targets, rows, out))
        });
        for own in partials.chunk_by(|a, b| a.0 == b.0) {
            let (user, first) = &own[0];
            let mut sum = first.clone();
            own[1..].iter().for_each(|(_, partial)| add(&mut sum, partial));
            let start = self.batch.targets().range(*user).start * widths[0];
            add(&mut target_grads[if sum.is_empty() { 0 } else { start }..], &sum);
        }
        Ok([keys, values])
    }
}

/// Behaviours whose gradients are held at a time.
struct Chunk {
    /// Users that have candidates, and some of their behaviours.
    parts: Vec<(usize, Range<usize>)>,
}

impl Chunk {
    /// Cuts the histories of a batch into chunks of up to `held` behaviours; at least one.
    fn cut(batch: &Batch, held: usize) -> Vec<Self> {
        let mut chunks = vec![Self { parts: Vec::new() }];
        let mut left = held;
        for (user, (history, _)) in
            batch.requests().enumerate().filter(|(_, (_, targets))| !targets.is_empty())
        {
            let mut start = history.start;
            while start < history.end {
                if left == 0 {
                    chunks.push(Self { parts: Vec::new() });
                    left = held;
                }
                let end = history.end.min(start + left);
                if let Some(chunk) = chunks.last_mut() {
                    chunk.parts.push((user, start..end));
                }
                (left, start) = (left - (end - start), end);
            }
        }
        chunks
    }

    fn rows(&self) -> usize {
        self.parts.iter().map(|(_, history)| history.len()).sum()
    }

    /// The places of each part among the chunk's rows.
    fn ranges(&self) -> impl Iterator<Item = Range<usize>> + Clone + '_ {
        self.parts.iter().scan(0, |end, (_, history)| {
            let start = *end;
            *end += history.len();
            Some(start..*end)
        })
    }
}

/// The softmax of each candidate over its whole history.
struct States {
    /// `[M]`: the largest score, and `Σ exp(score − max)`, which is 0 where nothing is left.
    max: Vec<f32>,
    sum: Vec<f32>,
    /// `[M, Σ r]`: the weighted mean of the representations, or nothing if it is not needed.
    means: Vec<f32>,
    /// `[N]`: for how many candidates a score of `-∞` removes the behaviour.
    removed: Vec<AtomicU32>,
}

impl States {
    fn new(pass: &Pass<'_>, batch: &Batch, inputs: &DecoupledInputs<'_, Host>, means: bool) -> Result<Self> {
        let Pass { operation, instructions, op, .. } = *pass;
        let DecoupledInputs { attention, representation, history_ids, target_ids } = *inputs;
        let search = &SearchInputs { attention, history_ids, target_ids };
        let (used, width) = (batch.targets().total(), if means { total_width(representation) } else { 0 });
        let mut removed = reserve(operation, batch.histories().total())?;
        removed.resize_with(batch.histories().total(), || AtomicU32::new(0));
        let mut states = Self {
            max: filled(operation, used, f32::NEG_INFINITY)?,
            sum: filled(operation, used, 0.0)?,
            means: filled(operation, used.saturating_mul(width), 0.0)?,
            removed,
        };
        let plan = pieces::cut(batch, pieces::ROWS, pieces::STEP);
        let rows = || plan.tiles.iter().map(|tile| tile.rows);
        let means = split_rows(rows(), &mut states.means, width);
        let (max, sum) = (split_rows(rows(), &mut states.max, 1), split_rows(rows(), &mut states.sum, 1));
        let removed = &states.removed;
        pieces::run(
            &plan,
            means.into_iter().zip(max).zip(sum).collect(),
            |piece| instructions.run(PieceStates { op, search, representation, width, piece, removed }),
            |all, next| instructions.run(Combine { all, next }),
            |sums, ((means, max), sum)| instructions.run(WriteStates { sums, width, means, max, sum }),
        );
        Ok(states)
    }
}

/// One piece: the softmax of some candidates over a span, and the behaviours that are removed.
struct PieceStates<'a> {
    op: &'a Decoupled,
    search: &'a SearchInputs<'a, Host>,
    representation: &'a [Table<'a, Host>],
    /// `Σ r`, or 0 if means are not needed.
    width: usize,
    piece: PieceRows,
    removed: &'a [AtomicU32],
}

impl Kernel for PieceStates<'_> {
    type Output = Sums;

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> Sums {
        let Self { op, search, representation, width, piece: PieceRows { targets, history, .. }, removed } =
            self;
        let features = op.features();
        let mut scorer = Scorer::new(l, op, search, targets.clone());
        let mut groups = Vec::new();
        for i in 0..scorer.groups() {
            let used = LANES.min(targets.len() - i * LANES);
            groups.push(TilePooling::new(Weighting::Softmax, used, width));
        }
        let (mut scores, mut weights) = ([[0.0; LANES]; BLOCK], [[0.0; LANES]; BLOCK]);
        let mut rows = vec![0.0; BLOCK * width];
        for (block, next) in blocks(&history) {
            let ids = &search.history_ids[block.start * features..block.end * features];
            if width > 0 {
                prefetch_rows(representation, ids);
            }
            scorer.gather(l, block.clone(), next);
            if width > 0 {
                read_rows(l, representation, ids, &mut rows, width);
            }
            let scores = &mut scores[..block.len()];
            for (i, group) in groups.iter_mut().enumerate() {
                scorer.scores(l, i, scores);
                count_removed(l, scores, &removed[block.clone()]);
                let rows = &rows[..block.len() * width];
                group.add(l, scores, &mut weights[..block.len()], rows, width.max(1));
            }
        }
        Sums { targets, groups }
    }
}

/// Counts the candidates that have a score of `-∞` for each behaviour. Lanes without a candidate score 0.
#[inline(always)]
fn count_removed<L: Lanes>(l: L, scores: &[Row], removed: &[AtomicU32]) {
    let (lowest, zero, one) = (l.splat(f32::MIN), l.splat(0.0), l.splat(1.0));
    let mut any = zero;
    for score in scores {
        any = l.if_less(l.load(score), lowest, one, any);
    }
    if l.sum(any) > 0.0 {
        for (scores, removed) in scores.iter().zip(removed) {
            let count = scores.iter().filter(|&&score| score == f32::NEG_INFINITY).count();
            removed.fetch_add(count as u32, Ordering::Relaxed);
        }
    }
}

/// Writes the states of a tile.
struct WriteStates<'a> {
    sums: Sums,
    width: usize,
    means: &'a mut [f32],
    max: &'a mut [f32],
    sum: &'a mut [f32],
}

impl Kernel for WriteStates<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { sums, width, means, max, sum } = self;
        let states = max.chunks_mut(LANES).zip(sum.chunks_mut(LANES)).enumerate();
        for (mut group, (i, (max, sum))) in sums.groups.into_iter().zip(states) {
            let (all_max, all_sum) = group.softmax_state();
            max.copy_from_slice(&all_max[..max.len()]);
            sum.copy_from_slice(&all_sum[..sum.len()]);
            if width > 0 {
                group.finish(l);
                let means = means[i * LANES * width..].chunks_exact_mut(width).take(max.len());
                for (lane, means) in means.enumerate() {
                    for (mean, values) in means.iter_mut().zip(group.weighted_values()) {
                        *mean = values[lane];
                    }
                }
            }
        }
    }
}

/// Reads the rows of all ids `[n, F]` into `rows`, `[n, Σ width]`.
struct Gather<'a> {
    tables: &'a [Table<'a, Host>],
    ids: &'a [u32],
    rows: &'a mut [f32],
}

impl Kernel for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { tables, ids, rows } = self;
        let (features, width) = (tables.len(), total_width(tables));
        for (block, next) in blocks(&(0..ids.len() / features)) {
            if block.start == 0 {
                prefetch_rows(tables, &ids[..block.end * features]);
            }
            prefetch_rows(tables, &ids[next.start * features..next.end * features]);
            let rows = &mut rows[block.start * width..block.end * width];
            read_rows(l, tables, &ids[block.start * features..block.end * features], rows, width);
        }
    }
}
