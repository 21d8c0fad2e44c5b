//! SDIM with its rotations.

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use longseq::Sdim;

use crate::handle::{Batch, JaggedRows, Longseq};
use crate::place::Place;
use crate::sdim::{HashTensor, SdimTensors};

/// SDIM: behaviours that share random signatures with a candidate, normalised and averaged.
///
/// Formula: [`Sdim`]. It has `rotations` `[d, G, τ]` of `f32`, drawn from the standard normal distribution: nothing is learnt, but they are part of the
/// model, and are saved and loaded with it. (An optimiser of candle's leaves them alone: they get no gradient.) Behaviours get gradients;
/// candidates, which are hashed, have none.
///
/// Source: Cao et al., "Sampling Is All You Need on Modeling Long-Term User Behaviors for CTR Prediction", CIKM 2022, arXiv 2205.10249,
/// eq. 12.
pub struct SdimLayer {
    op: Sdim,
    rotations: Tensor,
}

impl SdimLayer {
    /// A layer over rows of `op.width` numbers.
    ///
    /// # Errors
    /// Those of candle, such as rotations of another shape.
    pub fn new(op: Sdim, builder: VarBuilder<'_>) -> Result<Self> {
        let normal = Init::Randn { mean: 0.0, stdev: 1.0 };
        let rotations = builder.get_with_hints((op.width, op.groups, op.bits), "rotations", normal)?;
        Ok(Self { op, rotations: rotations.detach() })
    }

    /// The interest of each candidate's user in it, `[M, d]`, from candidates `[M, d]` and behaviours `[N, d]`: in training, and wherever the
    /// history is at hand.
    ///
    /// # Errors
    /// Those of [`Longseq::sdim_attend`].
    pub fn forward<B: Place>(
        &self,
        longseq: &Longseq<B>,
        batch: &Batch<B>,
        targets: &Tensor,
        history: &Tensor,
    ) -> Result<Tensor> {
        longseq.sdim_attend(&self.op, batch, SdimTensors::new(targets, history, &self.rotations))
    }

    /// The table of each user, `[B, G, 2^τ, d]` of `f32`, which serves any candidates: what is kept between requests.
    ///
    /// # Errors
    /// Those of [`Longseq::sdim_encode`].
    pub fn encode<B: Place>(
        &self,
        longseq: &Longseq<B>,
        histories: &JaggedRows<B>,
        history: &Tensor,
    ) -> Result<Tensor> {
        longseq.sdim_encode(&self.op, histories, history, HashTensor::Rotations(&self.rotations))
    }

    /// The same as [`forward`](Self::forward), from tables: its cost does not depend on the histories.
    ///
    /// # Errors
    /// Those of [`Longseq::sdim_query`].
    pub fn query<B: Place>(
        &self,
        longseq: &Longseq<B>,
        rows: &JaggedRows<B>,
        table: &Tensor,
        targets: &Tensor,
    ) -> Result<Tensor> {
        let hash = HashTensor::Rotations(&self.rotations);
        longseq.sdim_query(&self.op, rows, table, Some(targets), hash)
    }
}
