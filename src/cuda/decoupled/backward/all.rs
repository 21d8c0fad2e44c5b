//! Gradients over all behaviours: kernels of `kernels/decoupled/all_pairs.cu`, `kernels/decoupled/all_sums.cu`.

use std::sync::Arc;

use bytemuck::Zeroable;

use crate::cuda::batch::CudaBatch;
use crate::cuda::call::Call;
use crate::cuda::decoupled::backward::all_kernels::{
    ADD_ROWS, BEHAVIOURS, CANDIDATES, DecoupledAddRowsParams, DecoupledAllIdsParams,
    DecoupledMergeStatesParams, DecoupledMergeSumsParams, DecoupledPairSumsParams, DecoupledPairsParams,
    DecoupledScaleParams, IDS, MERGE_STATES, MERGE_SUMS, PAIRS, SCALE, STATES,
};
use crate::cuda::decoupled::backward::chunks::DeviceChunks;
use crate::cuda::decoupled::backward::tables::{Asked, Keys, SourceRows, Summing};
use crate::cuda::decoupled::rows::Ids;
use crate::cuda::handle::Cuda;
use crate::cuda::lookup::backward::{Job, STEP};
use crate::cuda::lookup::gather;
use crate::cuda::memory::CudaMemory;
use crate::error::Result;
use crate::gpu::{Chunk, ChunkLimits, SPAN, TILE_CANDIDATES, fit};
use crate::ops::*;

const THREADS: usize = 128;
const WORD: usize = size_of::<u32>();
/// Words of a state.
const STATE: usize = 4;
/// As in the kernels: behaviours that a block of [`BEHAVIOURS`] takes, its columns, and those of [`CANDIDATES`].
const BLOCK_BEHAVIOURS: usize = 64;
const BEHAVIOUR_COLUMNS: usize = 32;
const CANDIDATE_COLUMNS: usize = 64;

/// The gradients of tables, attention and then representation.
pub(super) fn backward(
    gpu: &Cuda,
    call: &mut Call<'_>,
    op: &Decoupled,
    batch: &CudaBatch,
    (inputs, ids): (&DecoupledInputs<'_, CudaMemory>, Ids),
    grad_out: u64,
    asked: [&Asked<'_>; 2],
) -> Result<()> {
    let widths = [total_width(inputs.attention), total_width(inputs.representation)];
    let chunks = batch.chunks(gpu, call.operation, &ChunkLimits::new(widths))?;
    let memory = Memory::new(call, op, batch, &chunks, widths, asked)?;
    let summing = Summing::new(call, &asked, memory.most_positions)?;
    let scales = op.split_scales();
    let all = All { gpu, op, inputs, ids, asked, chunks, memory, widths, scales, grad_out };
    all.run(call, &summing)
}

/// Scratch memory, as addresses.
struct Memory {
    candidates: usize,
    behaviours: usize,
    /// The most candidates and behaviours whose ids are sorted together.
    most_positions: usize,
    /// `[M, Σ a]`, `[M, Σ r]`: the candidates' rows; of representation with `multiply_target`.
    queries: u64,
    products: u64,
    states: u64,
    /// `[N]`.
    kept: u64,
    keys: Keys,
    /// Of a chunk: gathered rows, pairs, partial results.
    rows: [u64; 2],
    weights: u64,
    score_grads: u64,
    partial: u64,
    /// `[M + n, width]`: the gradients of candidates, and of the behaviours of a chunk.
    grads: [u64; 2],
    /// A sparse gradient of a chunk: rows, ids, count.
    part: [u64; 3],
}

impl Memory {
    fn new(
        call: &mut Call<'_>,
        op: &Decoupled,
        batch: &CudaBatch,
        chunks: &DeviceChunks,
        widths: [usize; 2],
        asked: [&Asked<'_>; 2],
    ) -> Result<Self> {
        let (candidates, behaviours) = (batch.as_ref().targets().total(), batch.as_ref().histories().total());
        let chunks = &chunks.chunks;
        let rows = chunks.most(|chunk| chunk.behaviours.len());
        let (pairs, partials) = (chunks.most(|chunk| chunk.pairs), chunks.most(|chunk| chunk.partials));
        let is_cut = chunks.chunks.len() > 1;
        let [attention, representation] = asked.map(Asked::is_any);
        let most_positions = candidates.saturating_add(if is_cut { behaviours } else { rows });
        fit(call.operation, "history_ids", most_positions.saturating_add(STEP))?;
        let mut words = |wanted: bool, count: usize| match wanted {
            true => call.scratch(count.saturating_mul(WORD)),
            false => Ok(0),
        };
        let [a, r] = widths;
        let features = op.features();
        let keys = Keys {
            candidates: words(true, candidates.saturating_mul(features))?,
            behaviours: words(true, behaviours.saturating_mul(features))?,
            lengths: [candidates, behaviours],
            features,
        };
        let widest = asked.iter().flat_map(|asked| asked.each()).map(|(_, job)| job.width).max().unwrap_or(0);
        let part = candidates + rows;
        Ok(Self {
            candidates,
            behaviours,
            most_positions,
            queries: words(true, candidates.saturating_mul(a))?,
            products: words(op.multiply_target, candidates.saturating_mul(r))?,
            states: words(true, candidates * STATE)?,
            kept: words(true, behaviours)?,
            keys,
            rows: [
                words(true, rows.saturating_mul(a))?,
                words(attention || op.multiply_target, rows.saturating_mul(r))?,
            ],
            weights: words(true, pairs)?,
            score_grads: words(attention, pairs)?,
            partial: words(true, partials.saturating_mul(STATE.max(a).max(r)))?,
            grads: [
                words(attention, part.saturating_mul(a))?,
                words(representation, part.saturating_mul(r))?,
            ],
            part: [words(is_cut, part.saturating_mul(widest))?, words(is_cut, part)?, words(is_cut, 1)?],
        })
    }
}

/// What all chunks read.
struct All<'p> {
    gpu: &'p Cuda,
    op: &'p Decoupled,
    inputs: &'p DecoupledInputs<'p, CudaMemory>,
    ids: Ids,
    asked: [&'p Asked<'p>; 2],
    chunks: Arc<DeviceChunks>,
    memory: Memory,
    widths: [usize; 2],
    /// On the candidates' attention rows, and on the sums of their products.
    scales: (Vec<f32>, f32),
    grad_out: u64,
}

/// The address of a row.
fn row_at(base: u64, row: usize, width: usize) -> u64 {
    base + (row * width * WORD) as u64
}

fn clear(call: &Call<'_>, out: u64, words: usize) -> Result<()> {
    let params = DecoupledAddRowsParams { out, items: words as u64, width: 1, ..Zeroable::zeroed() };
    call.launch(&ADD_ROWS.blocks(words.div_ceil(THREADS)), &params)
}

impl All<'_> {
    fn run(&self, call: &Call<'_>, summing: &Summing) -> Result<()> {
        let (memory, [a, r]) = (&self.memory, self.widths);
        let chunks = &self.chunks.chunks.chunks;
        let candidates = memory.candidates;
        self.read_candidates(call)?;
        clear(call, memory.states, candidates * STATE)?;
        clear(call, memory.kept, memory.behaviours)?;
        for (grads, (asked, width)) in memory.grads.iter().zip(self.asked.iter().zip([a, r])) {
            clear(call, *grads, if asked.is_any() { candidates * width } else { 0 })?;
        }
        for chunk in chunks {
            self.gather(call, chunk)?;
            self.states(call, chunk)?;
        }
        self.keys(call)?;
        let is_cut = chunks.len() > 1;
        if is_cut {
            self.begin_sums(call, summing)?;
        }
        for (index, chunk) in chunks.iter().enumerate() {
            if is_cut {
                self.gather(call, chunk)?;
            }
            self.pairs(call, chunk)?;
            let is_last = index + 1 == chunks.len();
            if is_last {
                self.finish_candidates(call)?;
            }
            self.sum(call, summing, chunk, is_last)?;
        }
        Ok(())
    }

    /// The candidates' attention rows times the scales, and `grad_out ⊙ target`.
    fn read_candidates(&self, call: &Call<'_>) -> Result<()> {
        let memory = &self.memory;
        let (ids, candidates) = (self.ids.candidates.pointer, memory.candidates);
        gather(self.gpu, call, self.inputs.attention, ids, candidates, memory.queries)?;
        self.scale_features(call, memory.queries, 1.0)?;
        if self.op.multiply_target {
            gather(self.gpu, call, self.inputs.representation, ids, candidates, memory.products)?;
            self.multiply_by_grad(call, memory.products, 1.0)?;
        }
        Ok(())
    }

    /// Multiplies each feature's part of rows `[M, Σ a]` by the feature's scale, and all by a power of two.
    fn scale_features(&self, call: &Call<'_>, data: u64, factor: f32) -> Result<()> {
        let mut first_column = 0;
        for (table, &scale) in self.inputs.attention.iter().zip(&self.scales.0) {
            let items = self.memory.candidates * table.width;
            let params = DecoupledScaleParams {
                data,
                factors: 0,
                items: items as u64,
                row_width: self.widths[0] as u32,
                first_column,
                width: table.width as u32,
                scale: factor * scale,
            };
            call.launch(&SCALE.blocks(items.div_ceil(THREADS)), &params)?;
            first_column += table.width as u32;
        }
        Ok(())
    }

    /// Multiplies rows `[M, Σ r]` by the gradients of the output, and then by a power of two.
    fn multiply_by_grad(&self, call: &Call<'_>, data: u64, scale: f32) -> Result<()> {
        let (width, factors) = (self.widths[1], self.grad_out);
        let items = self.memory.candidates * width;
        let (items_here, width) = (items as u64, width as u32);
        let params = DecoupledScaleParams {
            data,
            factors,
            items: items_here,
            row_width: width,
            first_column: 0,
            width,
            scale,
        };
        call.launch(&SCALE.blocks(items.div_ceil(THREADS)), &params)
    }

    fn gather(&self, call: &Call<'_>, chunk: &Chunk) -> Result<()> {
        let ids = row_at(self.ids.behaviours.pointer, chunk.behaviours.start, self.op.features());
        let [keys, values] = self.memory.rows;
        gather(self.gpu, call, self.inputs.attention, ids, chunk.behaviours.len(), keys)?;
        match values {
            0 => Ok(()),
            values => gather(self.gpu, call, self.inputs.representation, ids, chunk.behaviours.len(), values),
        }
    }

    fn pair_params(&self, chunk: &Chunk) -> DecoupledPairsParams {
        let memory = &self.memory;
        DecoupledPairsParams {
            spans: self.chunks.spans.pointer(),
            tiles: self.chunks.tiles.pointer() + (chunk.tiles.start * size_of::<[u32; 2]>()) as u64,
            queries: memory.queries,
            grads: if self.op.multiply_target { memory.products } else { self.grad_out },
            keys: memory.rows[0],
            values: if self.asked[0].is_any() { memory.rows[1] } else { 0 },
            states: memory.states,
            partial: memory.partial,
            kept: row_at(memory.kept, chunk.behaviours.start, 1),
            weights: memory.weights,
            score_grads: memory.score_grads,
            attention_width: self.widths[0] as u32,
            representation_width: self.widths[1] as u32,
            factor: self.scales.1,
            unused: 0,
        }
    }

    /// Where the merges of a chunk are.
    fn merges(&self, chunk: &Chunk) -> u64 {
        self.chunks.merges.pointer() + (chunk.merges.start * 5 * WORD) as u64
    }

    /// Adds a chunk to the softmax of the candidates.
    fn states(&self, call: &Call<'_>, chunk: &Chunk) -> Result<()> {
        call.launch(&STATES.blocks(chunk.tiles.len()), &self.pair_params(chunk))?;
        let (partial, states) = (self.memory.partial, self.memory.states);
        let params = DecoupledMergeStatesParams { merges: self.merges(chunk), partial, states };
        call.launch(&MERGE_STATES.blocks(chunk.merges.len()), &params)
    }

    /// The ids of what is kept.
    fn keys(&self, call: &Call<'_>) -> Result<()> {
        let Memory { candidates, behaviours, kept, states, keys, .. } = self.memory;
        let params = DecoupledAllIdsParams {
            kept,
            states,
            ids: self.ids.behaviours.pointer,
            target_ids: self.ids.candidates.pointer,
            behaviour_ids: keys.behaviours,
            candidate_ids: keys.candidates,
            behaviours: behaviours as u64,
            candidates: candidates as u64,
            features: self.op.features() as u32,
            unused: 0,
        };
        call.launch(&IDS.blocks(((behaviours + candidates) * keys.features).div_ceil(THREADS)), &params)
    }

    /// The gradients of a chunk's rows, and what they add to the candidates'.
    fn pairs(&self, call: &Call<'_>, chunk: &Chunk) -> Result<()> {
        let memory = &self.memory;
        let params = self.pair_params(chunk);
        call.launch(&PAIRS.blocks(chunk.tiles.len()), &params)?;
        let [attention, representation] = self.asked.map(Asked::is_any);
        let factors = [memory.score_grads, memory.weights];
        let rows = [memory.queries, params.grads];
        for set in
            [attention, representation].into_iter().enumerate().filter_map(|(set, is)| is.then_some(set))
        {
            let width = self.widths[set];
            let sums = DecoupledPairSumsParams {
                spans: self.chunks.spans.pointer() + (chunk.spans.start * 6 * WORD) as u64,
                tiles: 0,
                factors: factors[set],
                weights: memory.weights,
                rows: rows[set],
                out: row_at(memory.grads[set], memory.candidates, width),
                width: width as u32,
                column_blocks: width.div_ceil(BEHAVIOUR_COLUMNS) as u32,
            };
            let parts = chunk.spans.len() * (SPAN / BLOCK_BEHAVIOURS);
            call.launch(&BEHAVIOURS.blocks(parts * sums.column_blocks as usize), &sums)?;
            if set == 1 && !self.op.multiply_target {
                continue;
            }
            let sums = DecoupledPairSumsParams {
                spans: params.spans,
                tiles: params.tiles,
                rows: memory.rows[set],
                out: memory.partial,
                column_blocks: width.div_ceil(CANDIDATE_COLUMNS) as u32,
                ..sums
            };
            call.launch(&CANDIDATES.blocks(chunk.tiles.len() * sums.column_blocks as usize), &sums)?;
            let blocks = (TILE_CANDIDATES * width).div_ceil(THREADS);
            let merge = DecoupledMergeSumsParams {
                merges: self.merges(chunk),
                partial: memory.partial,
                out: memory.grads[set],
                width: width as u32,
                blocks: blocks as u32,
            };
            call.launch(&MERGE_SUMS.blocks(chunk.merges.len() * blocks), &merge)?;
        }
        Ok(())
    }

    /// The gradients of the candidates' rows, from halves of sums over all behaviours.
    fn finish_candidates(&self, call: &Call<'_>) -> Result<()> {
        let [attention, representation] = self.memory.grads;
        if self.asked[0].is_any() {
            self.scale_features(call, attention, 2.0)?;
        }
        if self.asked[1].is_any() && self.op.multiply_target {
            self.multiply_by_grad(call, representation, 2.0)?;
        }
        Ok(())
    }

    /// Writes the ids of the gradients, which chunks add to, and zeros.
    fn begin_sums(&self, call: &Call<'_>, summing: &Summing) -> Result<()> {
        for asked in self.asked {
            for (feature, job) in asked.each() {
                let table = (feature, job.rows);
                match job.sparse {
                    None => clear(call, job.out, job.rows * job.width)?,
                    Some([_, out_count]) => {
                        let runs = summing.sorted(call, &self.memory.keys, table, asked.with_candidates)?;
                        job.write_ids(call, &runs)?;
                        let items = runs.ids * job.width;
                        let params = DecoupledAddRowsParams {
                            out: job.out,
                            out_count,
                            items: items as u64,
                            width: job.width as u32,
                            ..Zeroable::zeroed()
                        };
                        call.launch(&ADD_ROWS.blocks(items.div_ceil(THREADS)), &params)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Sums the gradients of a chunk by id; those of the candidates are in the last.
    fn sum(&self, call: &Call<'_>, summing: &Summing, chunk: &Chunk, is_last: bool) -> Result<()> {
        let memory = &self.memory;
        let keys = Keys {
            behaviours: row_at(memory.keys.behaviours, chunk.behaviours.start, memory.keys.features),
            lengths: [if is_last { memory.candidates } else { 0 }, chunk.behaviours.len()],
            ..memory.keys
        };
        let mut sets = Vec::with_capacity(2);
        for ((asked, grads), width) in self.asked.iter().zip(memory.grads).zip(self.widths) {
            if asked.is_any() {
                let skipped = if is_last { 0 } else { memory.candidates };
                sets.push((*asked, SourceRows { rows: row_at(grads, skipped, width), bags: 0 }));
            }
        }
        let is_cut = self.chunks.chunks.chunks.len() > 1;
        summing.sum(call, &keys, &sets, |call, job, run| {
            if !is_cut {
                return run(job).map(drop);
            }
            let [rows, ids, count] = memory.part;
            let runs = run(&Job { out: rows, sparse: Some([ids, count]), ..*job })?;
            let items = runs.ids * job.width;
            let [out_ids, out_count] = job.sparse.unwrap_or([0; 2]);
            let params = DecoupledAddRowsParams {
                rows,
                ids,
                count,
                out: job.out,
                out_ids,
                out_count,
                items: items as u64,
                width: job.width as u32,
                unused: 0,
            };
            call.launch(&ADD_ROWS.blocks(items.div_ceil(THREADS)), &params)
        })
    }
}
