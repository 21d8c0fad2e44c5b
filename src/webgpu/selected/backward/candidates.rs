//! What belongs to candidates: the gradients of their scores, of queries and of similarities.

use std::ops::Range;

use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::groups_of;
use crate::webgpu::selected::backward::call::{Call, from_word};
use crate::webgpu::selected::backward::kernels::{
    SelectedScoresParams, SelectedWeightsParams, SumHeadsParams, heads_kernel, scores_kernel, weights_kernel,
};
use crate::webgpu::selected::groups::Group;
use crate::webgpu::selected::inputs::GroupInputs;
use crate::webgpu::selected::parts::{Parts, lanes};
use crate::webgpu::selected::sums::SlotNumbers;

/// The slots of a group's candidates.
pub(super) struct Slots<'a, T: Element> {
    pub(super) call: &'a Call<'a, T>,
    pub(super) targets: Range<usize>,
    /// Behaviours.
    pub(super) rows: usize,
    pub(super) inputs: GroupInputs,
    pub(super) grad_out: Binding,
    /// `[C, K]`: (similarity, row of the group's history).
    pub(super) kept: Binding,
    /// `[C, K, H]` each: weights, gradients of scores, and what heads add to the gradients of similarities, if these are asked for.
    pub(super) numbers: Binding,
    /// The first number, and the numbers from one kind to the next.
    first: usize,
    stride: usize,
}

impl<'a, T: Element> Slots<'a, T> {
    /// Computes the numbers, and what candidates add to the gradients of `γ`.
    pub(super) fn new(
        call: &'a Call<'a, T>,
        group: &Group,
        kept: Binding,
        gamma_parts: &Binding,
    ) -> Result<Self> {
        let Call { gpu, operation, op, asked, .. } = *call;
        let targets = group.targets.clone();
        let first_slot = targets.start * op.top_k;
        let ids = call.all.map(|all| from_word(&all.ids, first_slot * all.features));
        let inputs = call.inputs.bind(gpu, (operation, op), group, &kept, ids.as_ref())?;
        let grad_row = op.heads * op.value_width;
        let grad_out = call.grad_out.rows(targets.start, targets.len(), grad_row);
        let grad_out = gpu.bind(operation, "grad_out.out", &grad_out)?;
        let slots = targets.len().saturating_mul(op.top_k).saturating_mul(op.heads);
        fit(operation, "positions", slots.saturating_mul(4))?;
        let (numbers, first, stride) = match call.all {
            Some(all) => (all.numbers.clone(), first_slot * op.heads, all.count),
            None => (gpu.scratch(operation, (asked.kinds() * slots) as u64)?, 0, slots),
        };
        let rows = group.history.len();
        let made = Self { call, targets, rows, inputs, grad_out, kept, numbers, first, stride };
        let pairs = made.pairs(slots)?;
        made.weights(&pairs, gamma_parts)?;
        gpu.give_back(&pairs.buffer);
        Ok(made)
    }

    /// The first number of each kind.
    pub(super) fn first_of(&self, kind: usize) -> u32 {
        (self.first + kind * self.stride) as u32
    }

    /// α, scores and products of the slots.
    fn pairs(&self, slots: usize) -> Result<Binding> {
        let Call { gpu, operation, op, asked, parts: Parts { slots: most, part, parts }, .. } = *self.call;
        let pairs = gpu.scratch(operation, 4 * slots as u64)?;
        let GroupInputs { kept, queries, keys, values, bias, gammas, has_bias, has_gammas, .. } =
            &self.inputs;
        let params = SelectedScoresParams {
            heads: op.heads as u32,
            kv_heads: op.kv_heads as u32,
            top_k: op.top_k as u32,
            parts: parts as u32,
            part: part as u32,
            width: op.width as u32,
            key_lanes: lanes(op.width, 16),
            value_width: op.value_width as u32,
            value_lanes: lanes(op.value_width, 16),
            queries_base: queries.base,
            keys_base: keys.base,
            values_base: values.base,
            bias_base: bias.base,
            gammas_base: gammas.base,
            grad_out_base: self.grad_out.base,
            has_bias: u32::from(*has_bias),
            has_gammas: u32::from(*has_gammas),
            wants_scores: u32::from(asked.gammas),
            wants_products: u32::from(asked.scores()),
            scale: op.effective_scale(),
        };
        let whole = self.inputs.has_whole_vec4s(op) && self.grad_out.has_whole_vec4s(op.value_width);
        let kernel = scores_kernel(self.inputs.formats::<T>(whole), most);
        let bindings = [kept, queries, keys, values, bias, gammas, &self.grad_out, &pairs];
        let groups = self.targets.len() as u64 * (parts * op.heads) as u64;
        gpu.dispatch(operation, &kernel, &params, &bindings, groups)?;
        Ok(pairs)
    }

    /// Weights and gradients of scores.
    fn weights(&self, pairs: &Binding, gamma_parts: &Binding) -> Result<()> {
        let Call { gpu, operation, op, asked, grad_lse, .. } = *self.call;
        let first = self.targets.start * op.heads;
        let groups = self.targets.len() * op.heads;
        let nothing = gpu.nothing();
        let grad_lse = grad_lse.map(|grad_lse| {
            gpu.bind(
                operation,
                "grad_out.lse",
                &grad_lse.rows(self.targets.start, self.targets.len(), op.heads),
            )
        });
        let grad_lse = grad_lse.transpose()?;
        let params = SelectedWeightsParams {
            heads: op.heads as u32,
            top_k: op.top_k as u32,
            gammas_base: self.inputs.gammas.base,
            grad_lse_base: grad_lse.as_ref().map_or(0, |grad_lse| grad_lse.base),
            first_weight: self.first_of(0),
            first_grad: self.first_of(1),
            first_similarity: self.first_of(2),
            first_gamma_part: 3 * first as u32,
            has_gammas: u32::from(self.inputs.has_gammas),
            has_grad_lse: u32::from(grad_lse.is_some()),
            wants_similarities: u32::from(asked.similarities),
            wants_gammas: u32::from(asked.gammas),
        };
        let grad_lse = grad_lse.as_ref().unwrap_or(&nothing);
        let bindings = [&self.kept, pairs, &self.inputs.gammas, grad_lse, &self.numbers, gamma_parts];
        gpu.dispatch(operation, &weights_kernel(), &params, &bindings, groups as u64)
    }

    /// The numbers of a kind.
    pub(super) fn numbers(&self, kind: usize) -> SlotNumbers<'_> {
        let op = self.call.op;
        SlotNumbers {
            top_k: op.top_k,
            heads: op.heads,
            kv_heads: op.kv_heads,
            kept: &self.kept,
            numbers: &self.numbers,
            first: self.first_of(kind),
        }
    }

    /// Writes the gradients of queries.
    pub(super) fn queries(&self, out: &Binding) -> Result<()> {
        let Call { gpu, operation, op, parts, .. } = *self.call;
        let (lists, rows) = ((self.targets.len(), parts), (&self.inputs.keys, op.width));
        let (names, scale) = ((operation, "grads.queries"), op.effective_scale());
        let numbers = SlotNumbers { kept: &self.inputs.kept, ..self.numbers(1) };
        match self.inputs.are_gathered {
            true => numbers.sum_rows::<f32>(gpu, names, lists, rows, scale, out),
            false => numbers.sum_rows::<T>(gpu, names, lists, rows, scale, out),
        }
    }

    /// Writes the gradients of similarities.
    pub(super) fn similarities(&self, out: &Binding) -> Result<()> {
        let Call { gpu, operation, op, .. } = *self.call;
        let slots = self.targets.len() * op.top_k;
        let params = SumHeadsParams {
            slots: slots as u32,
            heads: op.heads as u32,
            first_similarity: self.first_of(2),
            out_base: out.base,
        };
        gpu.dispatch(operation, &heads_kernel(), &params, &[&self.numbers, out], groups_of(slots))
    }
}
