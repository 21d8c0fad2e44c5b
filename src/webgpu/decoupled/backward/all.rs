//! Gradients over all behaviours, of a chunk of them at a time.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::gpu::{Chunk, ChunkLimits, Chunks, SPAN, TILE_CANDIDATES, fit};
use crate::ops::{DecoupledInputs, total_width};
use crate::webgpu::batch::DeviceChunks;
use crate::webgpu::binding::Binding;
use crate::webgpu::decoupled::backward::Call;
use crate::webgpu::decoupled::backward::all_kernels::{
    AddRowsParams, AllBehavioursParams, AllCandidatesParams, AllIdsParams, AllMergeStatesParams,
    AllMergeSumsParams, AllPairsParams, AllStatesParams, add_rows_kernel, behaviours_kernel,
    candidates_kernel, ids_kernel, merge_states_kernel, merge_sums_kernel, pairs_kernel, states_kernel,
};
use crate::webgpu::decoupled::backward::kept::{Columns, gather, scale_features};
use crate::webgpu::decoupled::backward::tables::{Asked, Keys, SourceRows, from_word, sorted, sum};
use crate::webgpu::launch::groups_of;
use crate::webgpu::lookup::runs::Runs;
use crate::webgpu::lookup::table_gradient::Job;
use crate::webgpu::memory::WgpuMemory;
use crate::webgpu::state::Wgpu;

/// As in the shaders: behaviours that a workgroup of `all_behaviours` takes, its columns, and those of `all_candidates`.
const BLOCK_BEHAVIOURS: usize = 64;
const BEHAVIOUR_COLUMNS: usize = 32;
const CANDIDATE_COLUMNS: usize = 64;
/// Candidates that a thread of `all_behaviours` goes over: few enough for the loops of a thread.
const ROUND: usize = 1 << 13;
/// Numbers of a behaviour's rows, of both sets, of which scores are computed within the loops of a thread: 6.6 turns for each.
const MOST_COLUMNS: usize = 9000;
/// Words of a state.
const STATE: usize = 4;

/// The gradients of tables, attention and then representation.
pub(super) fn backward(
    call: Call<'_>,
    inputs: &DecoupledInputs<'_, WgpuMemory>,
    grad_out: &Binding,
    asked: [&mut Asked<'_>; 2],
) -> Result<()> {
    let widths = [total_width(inputs.attention), total_width(inputs.representation)];
    let columns = widths[0].saturating_add(widths[1]);
    if columns > MOST_COLUMNS {
        let (needed, limit) = (columns as u64, MOST_COLUMNS as u64);
        return Err(Error::Limit { operation: call.operation, argument: "tables", needed, limit });
    }
    let chunks = call.batch.chunks(call.gpu, call.operation, &ChunkLimits::new(widths))?;
    let wanted = [asked[0].is_any(), asked[1].is_any()];
    let memory = Memory::new(call, &chunks.chunks, widths, (wanted, &asked))?;
    let [ids, target_ids] = call.bind_ids()?;
    let scales = call.op.split_scales();
    let all = All { call, inputs, grad_out, wanted, widths, scales, chunks, memory, ids, target_ids };
    all.run(asked)
}

/// Scratch memory; it is zero at first.
struct Memory {
    candidates: usize,
    behaviours: usize,
    /// `[M, Σ a]`, `[M, Σ r]`: the candidates' rows; of representation with `multiply_target`.
    queries: Binding,
    products: Binding,
    states: Binding,
    /// `[N]`.
    kept: Binding,
    keys: Keys,
    /// Of a chunk: gathered rows, pairs, partial results.
    rows: [Binding; 2],
    pairs: Binding,
    partial: Binding,
    /// `[M + n, width]`: the gradients of candidates, and of the behaviours of a chunk.
    grads: [Binding; 2],
    /// The rows of a sparse gradient of a chunk.
    part: Binding,
}

impl Memory {
    fn new(
        call: Call<'_>,
        chunks: &Chunks,
        [a, r]: [usize; 2],
        ([attention, representation], asked): ([bool; 2], &[&mut Asked<'_>; 2]),
    ) -> Result<Self> {
        let Call { gpu, operation, op, batch, .. } = call;
        let (candidates, behaviours) = (batch.as_ref().targets().total(), batch.as_ref().histories().total());
        let rows = chunks.most(|chunk| chunk.behaviours.len());
        let (pairs, partials) = (chunks.most(|chunk| chunk.pairs), chunks.most(|chunk| chunk.partials));
        let is_cut = chunks.chunks.len() > 1;
        let features = op.features();
        fit(operation, "history_ids", candidates.saturating_add(behaviours).saturating_mul(features))?;
        let words = |wanted: bool, count: usize| match wanted {
            true => {
                fit(operation, "scratch memory", count)?;
                gpu.scratch(operation, count as u64)
            }
            false => Ok(gpu.nothing()),
        };
        let keys = Keys {
            candidates: words(true, candidates * features)?,
            behaviours: words(true, behaviours * features)?,
            lengths: [candidates, behaviours],
            features,
        };
        let jobs = asked.iter().flat_map(|asked| asked.jobs.iter().flatten());
        let widest = jobs.map(|job| job.width).max().unwrap_or(0);
        let part = candidates + rows;
        asked.iter().try_for_each(|asked| asked.check_room(gpu, part))?;
        Ok(Self {
            candidates,
            behaviours,
            queries: words(true, candidates.saturating_mul(a))?,
            products: words(op.multiply_target, candidates.saturating_mul(r))?,
            states: words(true, candidates.saturating_mul(STATE))?,
            kept: words(true, behaviours)?,
            keys,
            rows: [
                words(true, rows.saturating_mul(a))?,
                words(attention || op.multiply_target, rows.saturating_mul(r))?,
            ],
            pairs: words(true, pairs.saturating_mul(2))?,
            partial: words(true, partials.saturating_mul(STATE.max(a).max(r)))?,
            grads: [
                words(attention, part.saturating_mul(a))?,
                words(representation, part.saturating_mul(r))?,
            ],
            part: words(is_cut, part.saturating_mul(widest))?,
        })
    }
}

/// What all chunks read.
struct All<'p> {
    call: Call<'p>,
    inputs: &'p DecoupledInputs<'p, WgpuMemory>,
    grad_out: &'p Binding,
    /// Whether gradients of attention and of representation tables are.
    wanted: [bool; 2],
    widths: [usize; 2],
    /// On the candidates' attention rows, and on the sums of their products.
    scales: (Vec<f32>, f32),
    chunks: Arc<DeviceChunks>,
    memory: Memory,
    ids: Binding,
    target_ids: Binding,
}

impl All<'_> {
    fn gpu(&self) -> (&Wgpu, &'static str) {
        (self.call.gpu, self.call.operation)
    }

    fn run(&self, mut asked: [&mut Asked<'_>; 2]) -> Result<()> {
        let chunks = &self.chunks.chunks.chunks;
        self.read_candidates()?;
        for chunk in chunks {
            self.gather(chunk)?;
            self.states(chunk)?;
        }
        self.keys()?;
        let is_cut = chunks.len() > 1;
        let whole = if is_cut { self.begin_sums(&asked)? } else { Vec::new() };
        for (index, chunk) in chunks.iter().enumerate() {
            if is_cut {
                self.gather(chunk)?;
            }
            self.pairs(chunk)?;
            let is_last = index + 1 == chunks.len();
            if is_last {
                self.finish_candidates()?;
            }
            self.sum(&mut asked, &whole, chunk, is_last)?;
        }
        Ok(())
    }

    /// The candidates' attention rows times the scales, and `grad_out ⊙ target`.
    fn read_candidates(&self) -> Result<()> {
        let ((gpu, operation), memory) = (self.gpu(), &self.memory);
        let (ids, tables) = ((&self.target_ids, memory.candidates), self.inputs.attention);
        gather(gpu, operation, tables, ids, &memory.queries)?;
        scale_features(gpu, operation, &self.scales.0, tables, (&memory.queries, memory.candidates))?;
        if self.call.op.multiply_target {
            gather(gpu, operation, self.inputs.representation, ids, &memory.products)?;
            self.multiply_by_grad(&memory.products, 1.0)?;
        }
        Ok(())
    }

    /// Multiplies rows `[M, Σ r]` by the gradients of the output, and then by a power of two.
    fn multiply_by_grad(&self, data: &Binding, scale: f32) -> Result<()> {
        let ((gpu, operation), width) = (self.gpu(), self.widths[1]);
        let columns = Columns { rows: self.memory.candidates, row_width: width, first_column: 0, width };
        columns.scale(gpu, operation, data, (scale, Some(self.grad_out)))
    }

    fn gather(&self, chunk: &Chunk) -> Result<()> {
        let (gpu, operation) = self.gpu();
        let ids = from_word(&self.ids, chunk.behaviours.start * self.call.op.features());
        let rows = (&ids, chunk.behaviours.len());
        gather(gpu, operation, self.inputs.attention, rows, &self.memory.rows[0])?;
        if self.wanted[0] || self.call.op.multiply_target {
            gather(gpu, operation, self.inputs.representation, rows, &self.memory.rows[1])?;
        }
        Ok(())
    }

    /// The rows that weights multiply.
    fn grads(&self) -> &Binding {
        if self.call.op.multiply_target { &self.memory.products } else { self.grad_out }
    }

    /// Adds a chunk to the softmax of the candidates.
    fn states(&self, chunk: &Chunk) -> Result<()> {
        let ((gpu, operation), memory) = (self.gpu(), &self.memory);
        let (grads, [keys, values]) = (self.grads(), &memory.rows);
        let params = AllStatesParams {
            tiles: chunk.tiles.len() as u32,
            first_tile: chunk.tiles.start as u32,
            attention_width: self.widths[0] as u32,
            representation_width: self.widths[1] as u32,
            grads_base: grads.base,
            has_values: u32::from(self.wanted[0]),
            first_behaviour: chunk.behaviours.start as u32,
            score_factor: self.scales.1,
        };
        let DeviceChunks { spans, tiles, merges, .. } = &*self.chunks;
        let bindings = [spans, tiles, &memory.queries, grads, keys, values, &memory.partial, &memory.kept];
        gpu.dispatch(operation, &states_kernel(), &params, &bindings, chunk.tiles.len() as u64)?;
        let params = AllMergeStatesParams {
            merges: chunk.merges.len() as u32,
            first_merge: chunk.merges.start as u32,
        };
        let bindings = [merges, &memory.partial, &memory.states];
        let groups = (chunk.merges.len() as u64).div_ceil(4);
        gpu.dispatch(operation, &merge_states_kernel(), &params, &bindings, groups)
    }

    /// The ids of what is kept.
    fn keys(&self) -> Result<()> {
        let ((gpu, operation), memory) = (self.gpu(), &self.memory);
        let features = memory.keys.features;
        let threads = (memory.behaviours + memory.candidates) * features;
        let params = AllIdsParams {
            behaviours: (memory.behaviours * features) as u32,
            threads: threads as u32,
            features: features as u32,
            ids_base: self.ids.base,
            target_ids_base: self.target_ids.base,
        };
        let Keys { candidates, behaviours, .. } = &memory.keys;
        let bindings = [&memory.kept, &memory.states, &self.ids, &self.target_ids, behaviours, candidates];
        gpu.dispatch(operation, &ids_kernel(), &params, &bindings, groups_of(threads))
    }

    /// The gradients of a chunk's rows, and what they add to the candidates'.
    fn pairs(&self, chunk: &Chunk) -> Result<()> {
        let ((gpu, operation), memory) = (self.gpu(), &self.memory);
        let (grads, [keys, values]) = (self.grads(), &memory.rows);
        let params = AllPairsParams {
            tiles: chunk.tiles.len() as u32,
            first_tile: chunk.tiles.start as u32,
            attention_width: self.widths[0] as u32,
            representation_width: self.widths[1] as u32,
            grads_base: grads.base,
            has_values: u32::from(self.wanted[0]),
            score_factor: self.scales.1,
        };
        let DeviceChunks { spans, tiles, .. } = &*self.chunks;
        let bindings = [spans, tiles, &memory.queries, grads, keys, values, &memory.states, &memory.pairs];
        gpu.dispatch(operation, &pairs_kernel(), &params, &bindings, chunk.tiles.len() as u64)?;
        for (set, rows) in [&memory.queries, grads].into_iter().enumerate() {
            if self.wanted[set] {
                self.behaviours(chunk, set, rows)?;
                if set == 0 || self.call.op.multiply_target {
                    self.candidates(chunk, set)?;
                }
            }
        }
        Ok(())
    }

    /// The gradients of the rows of behaviours in one set of tables.
    fn behaviours(&self, chunk: &Chunk, set: usize, rows: &Binding) -> Result<()> {
        let ((gpu, operation), width) = (self.gpu(), self.widths[set]);
        let column_blocks = width.div_ceil(BEHAVIOUR_COLUMNS);
        let blocks = chunk.spans.len() * (SPAN / BLOCK_BEHAVIOURS) * column_blocks;
        let most = self.call.batch.as_ref().targets().max_length();
        for first in (0..most).step_by(ROUND) {
            let params = AllBehavioursParams {
                blocks: fit(operation, "workgroups", blocks)?,
                first_span: chunk.spans.start as u32,
                column_blocks: column_blocks as u32,
                width: width as u32,
                rows_base: rows.base,
                out_row: self.memory.candidates as u32,
                // The first number of a pair is the weight.
                factor: 1 - set as u32,
                first_target: first as u32,
                end_target: (first + ROUND) as u32,
            };
            let bindings = [&self.chunks.spans, &self.memory.pairs, rows, &self.memory.grads[set]];
            gpu.dispatch(operation, &behaviours_kernel(), &params, &bindings, blocks as u64)?;
        }
        Ok(())
    }

    /// What a chunk adds to the gradients of the rows of candidates.
    fn candidates(&self, chunk: &Chunk, set: usize) -> Result<()> {
        let ((gpu, operation), width, memory) = (self.gpu(), self.widths[set], &self.memory);
        let column_blocks = width.div_ceil(CANDIDATE_COLUMNS);
        let blocks = chunk.tiles.len() * column_blocks;
        let params = AllCandidatesParams {
            blocks: fit(operation, "workgroups", blocks)?,
            first_tile: chunk.tiles.start as u32,
            column_blocks: column_blocks as u32,
            width: width as u32,
            factor: 1 - set as u32,
        };
        let DeviceChunks { spans, tiles, merges, .. } = &*self.chunks;
        let bindings = [spans, tiles, &memory.pairs, &memory.rows[set], &memory.partial];
        gpu.dispatch(operation, &candidates_kernel(), &params, &bindings, blocks as u64)?;
        let threads = chunk.merges.len() * TILE_CANDIDATES * width;
        let params = AllMergeSumsParams {
            threads: fit(operation, "partial results", threads)?,
            first_merge: chunk.merges.start as u32,
            width: width as u32,
        };
        let bindings = [merges, &memory.partial, &memory.grads[set]];
        gpu.dispatch(operation, &merge_sums_kernel(), &params, &bindings, groups_of(threads))
    }

    /// The gradients of the candidates' rows, from halves of sums over all behaviours.
    fn finish_candidates(&self) -> Result<()> {
        let ((gpu, operation), memory) = (self.gpu(), &self.memory);
        if self.wanted[0] {
            let rows = (&memory.grads[0], memory.candidates);
            let doubled: Vec<f32> = self.scales.0.iter().map(|scale| 2.0 * scale).collect();
            scale_features(gpu, operation, &doubled, self.inputs.attention, rows)?;
        }
        if self.wanted[1] && self.call.op.multiply_target {
            self.multiply_by_grad(&memory.grads[1], 2.0)?;
        }
        Ok(())
    }

    /// Writes the ids of the gradients, which chunks add to, and zeros. Returns the ids in order.
    fn begin_sums(&self, asked: &[&mut Asked<'_>; 2]) -> Result<Vec<Vec<Option<Runs>>>> {
        let (gpu, operation) = self.gpu();
        let mut whole = Vec::with_capacity(2);
        for asked in asked {
            let mut own = Vec::with_capacity(asked.jobs.len());
            for (feature, job) in asked.jobs.iter().enumerate() {
                let Some(job) = job else {
                    own.push(None);
                    continue;
                };
                let table = (feature, asked.tables[feature].rows);
                let runs = sorted(gpu, operation, &self.memory.keys, table, asked.with_candidates)?;
                job.begin(gpu, &runs)?;
                if job.sparse.is_some() {
                    self.add_rows(job, &runs, None)?;
                }
                own.push(Some(runs));
            }
            whole.push(own);
        }
        Ok(whole)
    }

    /// Adds the rows of a chunk to a gradient of the ids of `whole`, or clears the rows of a sparse one.
    fn add_rows(&self, job: &Job, whole: &Runs, part: Option<&Runs>) -> Result<()> {
        let (gpu, operation) = self.gpu();
        if job.length == 0 {
            return Ok(());
        }
        let runs = part.unwrap_or(whole);
        let threads = runs.ids * job.width;
        let params = AddRowsParams {
            threads: fit(operation, "grads", threads)?,
            width: job.width as u32,
            out_base: job.rows.binding.base,
            dense: u32::from(job.sparse.is_none()),
            is_clear: u32::from(part.is_none()),
        };
        let bindings = [
            &self.memory.part,
            &runs.sorted.ids,
            &runs.live,
            &whole.sorted.ids,
            &whole.live,
            &job.rows.binding,
        ];
        gpu.dispatch(operation, &add_rows_kernel(), &params, &bindings, groups_of(threads))
    }

    /// Sums the gradients of a chunk by id; those of the candidates are in the last.
    fn sum(
        &self,
        asked: &mut [&mut Asked<'_>; 2],
        whole: &[Vec<Option<Runs>>],
        chunk: &Chunk,
        is_last: bool,
    ) -> Result<()> {
        let ((gpu, operation), memory) = (self.gpu(), &self.memory);
        let features = memory.keys.features;
        let keys = Keys {
            candidates: memory.keys.candidates.clone(),
            behaviours: from_word(&memory.keys.behaviours, chunk.behaviours.start * features),
            lengths: [if is_last { memory.candidates } else { 0 }, chunk.behaviours.len()],
            features,
        };
        let skipped = if is_last { 0 } else { memory.candidates };
        let mut sets = Vec::with_capacity(2);
        for ((asked, grads), width) in asked.iter_mut().zip(&memory.grads).zip(self.widths) {
            let rows = from_word(grads, skipped * width);
            sets.push((&mut **asked, SourceRows { rows, bags: None }));
        }
        sum(gpu, operation, &keys, &mut sets, |[set, feature], job, runs, bags| {
            let whole = whole.get(set).and_then(|runs| runs[feature].as_ref());
            let Some(whole) = whole else {
                job.begin(gpu, runs)?;
                return job.sums(gpu, runs, bags, (&job.rows.binding, job.sparse.is_none()));
            };
            job.sums(gpu, runs, bags, (&self.memory.part, false))?;
            self.add_rows(job, whole, Some(runs))
        })
    }
}
