//! The memory of a call.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::{DinLayout, DinLimits, DinParts, DinWanted};
use crate::ops::{Din, DinInputs, DinPooling};
use crate::webgpu::batch::DinLists;
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::MOST_ITERATIONS;
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::state::Wgpu;

/// How the pairs of a part are arranged.
pub(super) const PARTS: &str = include_str!("../../../../shaders/din/backward_parts.wgsl");

/// Rows that a thread of din/backward_sums.wgsl adds up: two steps add up the tiles of a part.
pub(super) const ROWS_PER_SUM: usize = 64;

/// What limits the parts of a batch.
pub(super) fn limits_of(layout: &DinLayout) -> DinLimits {
    let mut limits = layout.limits(layout.tile);
    // A thread of din/backward_history.wgsl goes over all candidates of a piece, and all units.
    limits.of_piece = (MOST_ITERATIONS / (layout.units[0] + 8)).min(limits.of_piece);
    limits
}

/// What the dispatches of a call share.
pub(super) struct Job<'a, T: Element> {
    pub(super) gpu: &'a Wgpu,
    pub(super) operation: &'static str,
    pub(super) op: &'a Din,
    pub(super) layout: &'a DinLayout,
    pub(super) plan: &'a DinParts,
    pub(super) wanted: DinWanted,
    pub(super) inputs: &'a DinInputs<'a, WgpuMemory, T>,
    pub(super) grad_out: Option<Region<'a, T>>,
    pub(super) pieces: Binding,
    pub(super) users: Binding,
    pub(super) network: Binding,
    /// Of the candidates of the batch.
    pub(super) states: Binding,
    /// Of the candidates, tiles and runs of a part.
    pub(super) candidates: Binding,
    pub(super) work: Binding,
    pub(super) pair_numbers: Binding,
    pub(super) tile_sums: Binding,
    pub(super) run_states: Binding,
    pub(super) target_parts: Binding,
    /// Partial sums of a layer's weight, and what is between two steps of adding up.
    pub(super) weight_parts: Binding,
    pub(super) between: Binding,
    /// The gradients of the network, of the latest parts and of all before.
    pub(super) recent: Binding,
    pub(super) totals: Binding,
}

impl<'a, T: Element> Job<'a, T> {
    /// Allocates the memory of a call; `network` is laid out.
    pub(super) fn new(
        gpu: &'a Wgpu,
        operation: &'static str,
        (op, layout, lists): (&'a Din, &'a DinLayout, &'a DinLists),
        (inputs, grad_out): (&'a DinInputs<'a, WgpuMemory, T>, Option<Region<'a, T>>),
        (wanted, network): (DinWanted, Binding),
    ) -> Result<Self> {
        let plan = &lists.parts;
        let scratch = |numbers: usize| gpu.scratch(operation, numbers as u64);
        let (tiles, runs) = (plan.most(|part| part.tiles), plan.most(|part| part.runs));
        let softmax = grad_out.is_some() && op.pooling == DinPooling::Softmax;
        let states = plan.parts.last().map_or(0, |part| part.targets.end);
        let unit_groups = layout.outer_groups(0)[0];
        let empty = Binding::clone;
        let nothing = gpu.nothing();
        Ok(Self {
            gpu,
            operation,
            op,
            layout,
            plan,
            wanted,
            inputs,
            grad_out,
            pieces: lists.pieces.clone(),
            users: lists.users.clone(),
            network,
            states: if softmax { scratch(states.saturating_mul(4))? } else { scratch(4)? },
            candidates: scratch(plan.most(|part| part.targets.len()) * layout.candidate * 4)?,
            work: scratch(tiles * layout.tile * 4)?,
            pair_numbers: scratch(tiles * 32)?,
            tile_sums: scratch(tiles * layout.tile_sums * 4)?,
            run_states: if softmax { scratch(runs * 4)? } else { empty(&nothing) },
            target_parts: scratch(if wanted.targets { runs * unit_groups * layout.width4 * 4 } else { 4 })?,
            weight_parts: scratch(layout.part_numbers(&wanted, plan))?,
            between: scratch(tiles.div_ceil(ROWS_PER_SUM) * 4 * layout.tile_sums)?,
            recent: scratch(layout.total_numbers())?,
            totals: scratch(layout.total_numbers())?,
        })
    }
}
