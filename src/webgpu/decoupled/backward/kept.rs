//! Gradients from a selection.

use crate::error::Result;
use crate::gpu::fit;
use crate::ops::{Decoupled, Table, total_width};
use crate::webgpu::binding::Binding;
use crate::webgpu::decoupled::aggregate::KeptRows;
use crate::webgpu::decoupled::backward::kept_kernels::{
    KeptBagsParams, KeptCandidatesParams, KeptDotsParams, KeptIdsParams, KeptNumbersParams, ScaleRowsParams,
    ScoreGradientsParams, bags_kernel, candidates_kernel, dots_kernel, ids_kernel, numbers_kernel,
    scale_kernel, scores_kernel,
};
use crate::webgpu::decoupled::backward::tables::{Asked, Keys, SourceRows, from_word};
use crate::webgpu::launch::groups_of;
use crate::webgpu::lookup::{Gather, Pooling};
use crate::webgpu::memory::WgpuMemory;
use crate::webgpu::output::Output;
use crate::webgpu::shader::Format;
use crate::webgpu::state::Wgpu;
use crate::webgpu::tables::BoundTable;

/// A checked selection of a call.
pub(super) struct Kept<'a> {
    pub(super) gpu: &'a Wgpu,
    pub(super) operation: &'static str,
    pub(super) op: &'a Decoupled,
    pub(super) top_k: usize,
    pub(super) candidates: usize,
    /// `[M, K]`: (weight, row of the history or `NONE`).
    pub(super) kept: Binding,
    pub(super) ids: Binding,
    pub(super) target_ids: Binding,
}

/// Multiplies columns of rows: `[rows, row_width]`, `width` columns from `first_column` on.
pub(super) struct Columns {
    pub(super) rows: usize,
    pub(super) row_width: usize,
    pub(super) first_column: usize,
    pub(super) width: usize,
}

impl Columns {
    /// By a number, and by factors of the same shape.
    pub(super) fn scale(
        &self,
        gpu: &Wgpu,
        operation: &'static str,
        data: &Binding,
        (scale, factors): (f32, Option<&Binding>),
    ) -> Result<()> {
        let threads = self.rows.saturating_mul(self.width);
        fit(operation, "grads", self.rows.saturating_mul(self.row_width))?;
        let nothing = gpu.nothing();
        let params = ScaleRowsParams {
            threads: fit(operation, "grads", threads)?,
            base: data.base,
            row_width: self.row_width as u32,
            first_column: self.first_column as u32,
            width: self.width as u32,
            has_factors: u32::from(factors.is_some()),
            factors_base: factors.map_or(0, |factors| factors.base),
            scale,
        };
        let bindings = [factors.unwrap_or(&nothing), data];
        gpu.dispatch(operation, &scale_kernel(), &params, &bindings, groups_of(threads))
    }
}

/// Multiplies each feature's part of rows `[rows, Σ a]` by the feature's scale.
pub(super) fn scale_features(
    gpu: &Wgpu,
    operation: &'static str,
    scales: &[f32],
    tables: &[Table<'_, WgpuMemory>],
    (data, rows): (&Binding, usize),
) -> Result<()> {
    let row_width = total_width(tables);
    let mut first_column = 0;
    for (table, &scale) in tables.iter().zip(scales) {
        let columns = Columns { rows, row_width, first_column, width: table.width };
        columns.scale(gpu, operation, data, (scale, None))?;
        first_column += table.width;
    }
    Ok(())
}

/// The rows of ids, `[rows, Σ width]`.
pub(super) fn gather(
    gpu: &Wgpu,
    operation: &'static str,
    tables: &[Table<'_, WgpuMemory>],
    (ids, rows): (&Binding, usize),
    out: &Binding,
) -> Result<()> {
    let (features, width) = (tables.len(), total_width(tables));
    let pooling = Pooling::Each;
    let gather = Gather {
        operation,
        ids,
        features,
        rows,
        pooling,
        width,
        multiply: false,
        padded: false,
        report: None,
    };
    gather.run(gpu, tables, &[], out)
}

impl Kept<'_> {
    /// Candidates and slots.
    pub(super) fn positions(&self) -> usize {
        self.candidates + self.slots()
    }

    fn slots(&self) -> usize {
        self.candidates * self.top_k
    }

    /// The slots with given numbers for their weights.
    pub(super) fn with_numbers(&self, numbers: &Binding) -> Result<Binding> {
        let slots = self.slots();
        let numbered = self.gpu.scratch(self.operation, 2 * slots as u64)?;
        let params = KeptNumbersParams { slots: slots as u32, numbers_base: numbers.base };
        let bindings = [&self.kept, numbers, &numbered];
        self.gpu.dispatch(self.operation, &numbers_kernel(), &params, &bindings, groups_of(slots))?;
        Ok(numbered)
    }

    /// The ids of what is kept.
    pub(super) fn keys(&self) -> Result<Keys> {
        let Self { gpu, operation, candidates, ref kept, .. } = *self;
        let features = self.op.features();
        let threads = self.slots().saturating_mul(features);
        fit(operation, "positions", threads)?;
        let behaviours = gpu.scratch(operation, threads as u64)?;
        let params =
            KeptIdsParams { threads: threads as u32, features: features as u32, ids_base: self.ids.base };
        let bindings = [kept, &self.ids, &behaviours];
        gpu.dispatch(operation, &ids_kernel(), &params, &bindings, groups_of(threads))?;
        let candidate_ids = gpu.scratch(operation, (candidates * features) as u64)?;
        let params = KeptCandidatesParams {
            candidates: candidates as u32,
            top_k: self.top_k as u32,
            features: features as u32,
            target_ids_base: self.target_ids.base,
        };
        let bindings = [kept, &self.target_ids, &candidate_ids];
        gpu.dispatch(operation, &candidates_kernel(), &params, &bindings, candidates as u64)?;
        Ok(Keys { candidates: candidate_ids, behaviours, lengths: [candidates, self.slots()], features })
    }

    /// The row of each position, and its number times a factor.
    fn bags(&self, numbered: &Binding, with_candidates: bool, factor: f32) -> Result<Binding> {
        let candidates = if with_candidates { self.candidates } else { 0 };
        let threads = candidates + self.slots();
        let bags = self.gpu.scratch(self.operation, 2 * threads as u64)?;
        let params = KeptBagsParams {
            threads: threads as u32,
            candidates: candidates as u32,
            top_k: self.top_k as u32,
            factor,
        };
        let bindings = [numbered, &bags];
        self.gpu.dispatch(self.operation, &bags_kernel(), &params, &bindings, groups_of(threads))?;
        Ok(bags)
    }

    /// The products of the rows of kept behaviours and rows `[M, Σ r]`.
    fn dots(&self, tables: &[Table<'_, WgpuMemory>], grads: &Binding) -> Result<Binding> {
        let Self { gpu, operation, ref kept, ref ids, .. } = *self;
        let (slots, grad_width) = (self.slots(), total_width(tables));
        let dots = gpu.scratch(operation, slots as u64)?;
        let mut first_column = 0;
        for (feature, table) in tables.iter().enumerate() {
            let bound = BoundTable::new(gpu, operation, table)?;
            let params = KeptDotsParams {
                slots: slots as u32,
                top_k: self.top_k as u32,
                ids_base: ids.base,
                features: tables.len() as u32,
                feature: feature as u32,
                table_rows: bound.rows,
                width: bound.width,
                table_base: bound.data.base,
                scale_base: bound.scale.base,
                offset_base: bound.offset.base,
                grad_base: grads.base,
                grad_width: grad_width as u32,
                first_column: first_column as u32,
            };
            let whole = [grad_width, first_column, table.width, grads.base as usize];
            let grad = Format::f32(whole.iter().all(|columns| columns.is_multiple_of(4)));
            let bindings = [kept, ids, &bound.data, &bound.scale, &bound.offset, grads, &dots];
            let kernel = dots_kernel(bound.format, bound.int8, grad);
            gpu.dispatch(operation, &kernel, &params, &bindings, (slots as u64).div_ceil(4))?;
            first_column += table.width;
        }
        Ok(dots)
    }

    /// Two rows per candidate.
    fn two_rows(&self, width: usize) -> Result<[Binding; 2]> {
        let words = self.candidates.saturating_mul(width);
        fit(self.operation, "grads", words.saturating_mul(2))?;
        let first = self.gpu.scratch(self.operation, 2 * words as u64)?;
        let second = from_word(&first, words);
        Ok([first, second])
    }

    fn rows<'s>(&'s self, kept: &'s Binding) -> KeptRows<'s> {
        KeptRows { top_k: self.top_k, candidates: self.candidates, kept, ids: &self.ids }
    }

    /// What gradients of representation tables are sums of, and the slots with the gradients of their scores, if those are wanted, or
    /// the caller's are: `scores`.
    pub(super) fn representation(
        &self,
        asked: &Asked<'_>,
        grad_out: &Binding,
        (scores, wanted): (Option<&Output>, bool),
    ) -> Result<(SourceRows, Option<Binding>)> {
        let Self { gpu, operation, candidates, .. } = *self;
        let (tables, width) = (asked.tables, asked.width());
        let mut rows = grad_out.clone();
        if self.op.multiply_target {
            let columns = Columns { rows: candidates, row_width: width, first_column: 0, width };
            let [products, sums] = self.two_rows(width)?;
            gather(gpu, operation, tables, (&self.target_ids, candidates), &products)?;
            columns.scale(gpu, operation, &products, (1.0, Some(grad_out)))?;
            if asked.is_any() {
                self.rows(&self.kept).sum(gpu, operation, tables, &sums)?;
                columns.scale(gpu, operation, &sums, (1.0, Some(grad_out)))?;
            }
            rows = products;
        }
        let bags = match asked.is_any() {
            true => Some(self.bags(&self.kept, asked.with_candidates, 1.0)?),
            false => None,
        };
        let mut numbered = None;
        if wanted || scores.is_some() {
            let dots = self.dots(tables, &rows)?;
            numbered = Some(self.score_gradients(&dots, scores)?);
        }
        Ok((SourceRows { rows, bags }, numbered))
    }

    fn score_gradients(&self, dots: &Binding, scores: Option<&Output>) -> Result<Binding> {
        let Self { gpu, operation, candidates, .. } = *self;
        let numbered = gpu.scratch(operation, 2 * self.slots() as u64)?;
        let none = gpu.no_output(operation)?;
        let out = scores.map_or(&none, |scores| &scores.binding);
        let params = ScoreGradientsParams {
            candidates: candidates as u32,
            top_k: self.top_k as u32,
            scores_base: out.base,
            has_scores: u32::from(scores.is_some()),
        };
        let bindings = [&self.kept, dots, &numbered, out];
        gpu.dispatch(operation, &scores_kernel(), &params, &bindings, candidates as u64)?;
        Ok(numbered)
    }

    /// What gradients of attention tables are sums of; the numbers of the slots are the gradients of their scores.
    pub(super) fn attention(&self, asked: &Asked<'_>, numbered: &Binding) -> Result<SourceRows> {
        let Self { gpu, operation, op, candidates, .. } = *self;
        let tables = asked.tables;
        let [queries, sums] = self.two_rows(asked.width())?;
        gather(gpu, operation, tables, (&self.target_ids, candidates), &queries)?;
        self.rows(numbered).sum(gpu, operation, tables, &sums)?;
        // Both at once. A row times a large or tiny scale could leave the range of f32.
        let (scales, factor) = op.split_scales_of_gradients();
        scale_features(gpu, operation, &scales, tables, (&queries, 2 * candidates))?;
        Ok(SourceRows { rows: queries, bags: Some(self.bags(numbered, true, factor)?) })
    }
}
