//! The mean of a user's behaviours, which is the same for all candidates.

use candle_core::{Result, Tensor};

use super::Interest;
use crate::inputs::{Inputs, Padded};

pub(super) struct Mean;

impl Interest for Mean {
    fn ours(&self, inputs: &Inputs<'_>) -> Result<Tensor> {
        inputs.means()?.index_select(&inputs.users, 0)
    }

    fn eager(&self, padded: &Padded<'_>) -> Result<Tensor> {
        let sums = padded.history()?.broadcast_mul(&padded.real)?.sum_keepdim(1)?;
        let means = sums.broadcast_div(&padded.lengths)?;
        means.broadcast_as(padded.targets.shape())?.contiguous()
    }
}
