//! Gradients from a selection: kernels of `kernels/decoupled/backward.cu`.

use std::sync::Arc;

use crate::cuda::batch::{CudaBatch, DevicePlan};
use crate::cuda::call::Call;
use crate::cuda::decoupled::backward::tables::{Asked, Keys, SourceRows};
use crate::cuda::decoupled::rows::{Ids, Rows, rows};
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::Kernel;
use crate::cuda::lookup::backward::STEP;
use crate::cuda::memory::CudaMemory;
use crate::cuda::selection::{Found, count_record, position_record};
use crate::cuda::tables::MOST_TABLES;
use crate::cuda::twin::twins;
use crate::error::Result;
use crate::gpu::fit;
use crate::ops::*;

/// Checks a selection, and finds the behaviour, the number and the ids of each slot. A block per candidate, as all of these.
const KEEP: Kernel = Kernel::new("decoupled_backward", "decoupled_keep", 128, 32);
/// Goes over the rows of the kept behaviours.
const KEPT_ROWS: Kernel = Kernel::new("decoupled_backward", "decoupled_kept_rows", 128, 62);
/// Computes the gradients of scores.
const SCORES: Kernel = Kernel::new("decoupled_backward", "decoupled_score_gradients", 128, 32);
const WORD: usize = size_of::<u32>();

twins! {
    /// `kernels/decoupled/backward.cu`
    pub(in crate::cuda) struct DecoupledKeepParams {
        tiles: u64,
        positions: u64,
        scores: u64,
        counts: u64,
        numbers: u64,
        ids: u64,
        target_ids: u64,
        bad_counts: u64,
        bad_positions: u64,
        kept: u64,
        bags: u64,
        slot_ids: u64,
        candidate_ids: u64,
        top_k: u32,
        features: u32,
        candidates: u32,
        factor: f32,
    }
}

twins! {
    /// `kernels/decoupled/backward.cu`
    pub(in crate::cuda) struct DecoupledKeptRowsParams {
        tiles: u64,
        counts: u64,
        kept: u64,
        bags: u64,
        grad_out: u64,
        products: u64,
        sums: u64,
        dots: u64,
        top_k: u32,
        multiply: u32,
        add: u32,
        unused: u32,
        rows: Rows,
        scales: [f32; MOST_TABLES],
    }
}

twins! {
    /// `kernels/decoupled/backward.cu`
    pub(in crate::cuda) struct DecoupledScoreGradientsParams {
        tiles: u64,
        kept: u64,
        bags: u64,
        dots: u64,
        out: u64,
        out_bags: u64,
        top_k: u32,
        candidates: u32,
        factor: f32,
        unused: u32,
    }
}

/// A selection whose slots have their behaviours and numbers.
pub(super) struct Kept {
    plan: Arc<DevicePlan>,
    found: Found,
    ids: Ids,
    top_k: u32,
    /// `[M, K]`.
    kept: u64,
    /// Of candidates and slots: the row of the gradients, and a number.
    pub(super) bags: u64,
    pub(super) keys: Keys,
    /// The factors on attention rows, and that on the gradients of scores.
    split: (Vec<f32>, f32),
}

/// Where the rows and products of [`Kept::rows`] go; 0 where they are not wanted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct KeptRows {
    pub(super) grad_out: u64,
    pub(super) products: u64,
    pub(super) sums: u64,
    pub(super) dots: u64,
    /// Whether dots are of products.
    pub(super) multiply: bool,
}

impl Kept {
    /// Checks a selection of `[M, K]`. `numbers` are those of the slots; 0: softmax weights. Unless something is `wanted`, nothing else is
    /// done.
    pub(super) fn new(
        gpu: &Cuda,
        call: &mut Call<'_>,
        (op, top_k): (&Decoupled, usize),
        batch: &CudaBatch,
        (ids, found): (Ids, Found),
        numbers: u64,
        wanted: bool,
    ) -> Result<Self> {
        let operation = call.operation;
        let plan = batch.candidates(gpu, operation)?;
        let (used, features) = (batch.as_ref().targets().total(), op.features());
        let slots = used.saturating_mul(top_k);
        // Rows of gradients are those of slots and twice those of candidates; loops step past the end.
        let rows = slots.saturating_add(used.saturating_mul(2));
        fit(operation, "positions", rows.saturating_add(STEP))?;
        let split = op.split_scales_of_gradients();
        let mut words = |count: usize| match wanted {
            true => call.scratch(count.saturating_mul(WORD)),
            false => Ok(0),
        };
        let kept = words(slots)?;
        let bags = words(2 * (used + slots))?;
        let slot_ids = words(slots.saturating_mul(features))?;
        let candidate_ids = words(used.saturating_mul(features))?;
        let params = DecoupledKeepParams {
            tiles: plan.tiles.pointer(),
            positions: found.positions,
            scores: found.scores,
            counts: found.counts,
            numbers,
            ids: ids.behaviours.pointer,
            target_ids: ids.candidates.pointer,
            bad_counts: count_record(call, batch, top_k)?,
            bad_positions: position_record(call, batch, top_k)?,
            kept,
            bags,
            slot_ids,
            candidate_ids,
            // Without candidates it may be larger, and nothing reads it.
            top_k: u32::try_from(top_k).unwrap_or(u32::MAX),
            features: fit(operation, "scales", features)?,
            candidates: used as u32,
            factor: split.1,
        };
        call.launch(&KEEP.blocks(plan.plan.tiles.len()), &params)?;
        let keys = Keys { candidates: candidate_ids, behaviours: slot_ids, lengths: [used, slots], features };
        Ok(Self { plan, found, ids, top_k: params.top_k, kept, bags, keys, split })
    }

    fn slot_bags(&self) -> u64 {
        self.bags + (self.keys.lengths[0] * 2 * WORD) as u64
    }

    /// Goes over the rows of the kept behaviours; their numbers are those of `bags`.
    pub(super) fn rows(
        &self,
        gpu: &Cuda,
        call: &Call<'_>,
        op: &Decoupled,
        tables: &[Table<'_, CudaMemory>],
        to: KeptRows,
    ) -> Result<()> {
        let mut add = 0;
        for mut group in rows(gpu, call.operation, op, tables, self.ids, 0)? {
            group.target_ids = self.ids.candidates.pointer;
            let first = group.first_feature as usize;
            let mut scales = [1.0; MOST_TABLES];
            scales.iter_mut().zip(&self.split.0[first..]).for_each(|(to, scale)| *to = *scale);
            let params = DecoupledKeptRowsParams {
                tiles: self.plan.tiles.pointer(),
                counts: self.found.counts,
                kept: self.kept,
                bags: self.slot_bags(),
                grad_out: to.grad_out,
                products: to.products,
                sums: to.sums,
                dots: to.dots,
                top_k: self.top_k,
                multiply: u32::from(to.multiply),
                add,
                unused: 0,
                rows: group,
                scales,
            };
            call.launch(&KEPT_ROWS.blocks(self.plan.plan.tiles.len()), &params)?;
            add = 1;
        }
        Ok(())
    }

    /// From the products of [`rows`](Self::rows) to the gradients of scores, at `out` (0: not wanted), and as numbers of the slots.
    fn score_gradients(&self, call: &mut Call<'_>, dots: u64, out: u64, as_numbers: bool) -> Result<u64> {
        let [used, slots] = self.keys.lengths;
        let out_bags = if as_numbers { call.scratch(2 * (used + slots) * WORD)? } else { 0 };
        let params = DecoupledScoreGradientsParams {
            tiles: self.plan.tiles.pointer(),
            kept: self.kept,
            bags: self.slot_bags(),
            dots,
            out,
            out_bags,
            top_k: self.top_k,
            candidates: used as u32,
            factor: self.split.1,
            unused: 0,
        };
        call.launch(&SCORES.blocks(self.plan.plan.tiles.len()), &params)?;
        Ok(out_bags)
    }

    /// Two rows per candidate.
    fn two_rows(&self, call: &mut Call<'_>, width: usize) -> Result<[u64; 2]> {
        let bytes = self.keys.lengths[0].saturating_mul(width).saturating_mul(WORD);
        let first = call.scratch(bytes.saturating_mul(2))?;
        Ok([first, first + bytes as u64])
    }

    /// What gradients of representation tables are sums of, and where the gradients of scores are as numbers, if `numbers` are wanted;
    /// those of the caller go to `scores`.
    pub(super) fn representation(
        &self,
        gpu: &Cuda,
        call: &mut Call<'_>,
        op: &Decoupled,
        (asked, grad_out): (&Asked<'_>, u64),
        (scores, numbers): (u64, bool),
    ) -> Result<(SourceRows, u64)> {
        let mut to = KeptRows { grad_out, multiply: op.multiply_target, ..KeptRows::default() };
        let mut from = SourceRows { rows: grad_out, bags: self.bags };
        if op.multiply_target {
            let [products, sums] = self.two_rows(call, asked.width())?;
            to.products = products;
            to.sums = if asked.is_any() { sums } else { 0 };
            from.rows = products;
        }
        let wants_scores = scores != 0 || numbers;
        if wants_scores {
            to.dots = call.scratch(self.keys.lengths[1].saturating_mul(WORD))?;
        }
        if wants_scores || op.multiply_target {
            self.rows(gpu, call, op, asked.tables, to)?;
        }
        let numbers = match wants_scores {
            true => self.score_gradients(call, to.dots, scores, numbers)?,
            false => 0,
        };
        Ok((from, numbers))
    }

    /// What gradients of attention tables are sums of; the numbers of `bags` are the gradients of scores.
    pub(super) fn attention(
        &self,
        gpu: &Cuda,
        call: &mut Call<'_>,
        op: &Decoupled,
        asked: &Asked<'_>,
    ) -> Result<SourceRows> {
        let [products, sums] = self.two_rows(call, asked.width())?;
        let to = KeptRows { products, sums, ..KeptRows::default() };
        self.rows(gpu, call, op, asked.tables, to)?;
        Ok(SourceRows { rows: products, bags: self.bags })
    }

    /// The same selection with other numbers.
    pub(super) fn with_numbers(&self, bags: u64) -> Self {
        let (plan, split) = (self.plan.clone(), self.split.clone());
        Self { plan, split, bags, ..*self }
    }
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    vec![KEEP, KEPT_ROWS, SCORES]
}
