//! What the tasks of the backward pass read.

use std::ops::Range;

use crate::cpu::target_attention::lane_rows::WideInputs;
use crate::cpu::vector::WideRows;
use crate::ops::TargetAttention;

/// What every task reads.
pub(super) struct Pass<'a> {
    pub(super) op: &'a TargetAttention,
    pub(super) inputs: WideInputs<'a>,
    /// What softmax saved: `[M, H, d_v]` and `[M, H]`.
    pub(super) saved: Option<(WideRows<'a>, &'a [f32])>,
    /// `[M, H, d_v]`.
    pub(super) grad_out: WideRows<'a>,
    pub(super) grad_lse: Option<&'a [f32]>,
    /// Whether the gradient of the queries is asked for.
    pub(super) queries: bool,
}

/// A span of a user's behaviours, and all of the user's candidates.
#[derive(Clone)]
pub(super) struct SpanRows {
    pub(super) history: Range<usize>,
    pub(super) targets: Range<usize>,
    /// The length of the user's whole history.
    pub(super) length: usize,
}
