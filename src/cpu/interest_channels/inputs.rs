//! What tasks read.

use crate::cpu::interest_channels::axes::Axes;
use crate::cpu::vector::WideRows;
use crate::ops::InterestChannels;

/// What every task reads.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub(super) op: &'a InterestChannels,
    pub(super) axes: &'a Axes,
    /// `[N, d]`.
    pub(super) history: WideRows<'a>,
}
