//! TIN with its positions.

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use longseq::Tin;

use crate::handle::{Batch, Longseq};
use crate::place::Place;
use crate::tin::TinTensors;

/// Temporal Interest Network: target attention over behaviours and candidates that know their position in time.
///
/// Formula: [`Tin`], with positions counted from the newest behaviour. Weights: `positions` `[P, d]`. They get gradients, as do candidates and
/// behaviours.
///
/// Source: Zhou et al., "Temporal Interest Network for User Response Prediction", WWW 2024, arXiv 2308.08487, §4.
pub struct TinLayer {
    op: Tin,
    positions: Tensor,
}

impl TinLayer {
    /// A layer over rows of `op.width` numbers, with `op.positions` positions.
    ///
    /// # Errors
    /// Those of candle, such as positions of another shape.
    pub fn new(op: Tin, builder: VarBuilder<'_>) -> Result<Self> {
        let small = Init::Randn { mean: 0.0, stdev: 0.01 };
        let positions = builder.get_with_hints((op.positions, op.width), "positions", small)?;
        Ok(Self { op, positions })
    }

    /// The interest of each candidate's user in it, `[M, d]`, from candidates `[M, d]` and behaviours `[N, d]`.
    ///
    /// # Errors
    /// Those of [`Longseq::tin`].
    pub fn forward<B: Place>(
        &self,
        longseq: &Longseq<B>,
        batch: &Batch<B>,
        targets: &Tensor,
        history: &Tensor,
    ) -> Result<Tensor> {
        longseq.tin(&self.op, batch, TinTensors::new(targets, history, &self.positions))
    }
}
