//! ETA: a search by hashes, and attention over what it kept.

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use longseq::{Search, SelectedAttention, Signs};

use super::selected_attention::SelectedAttentionLayer;
use crate::handle::{Batch, Longseq};
use crate::place::Place;
use crate::search::{SearchTensor, SelectionTensors};

/// ETA: the signs of random projections stand for rows, the behaviours whose signs differ least from a candidate's are kept, and candidates attend to
/// those.
///
/// Formulas: [`Signs`] (the hash), [`Search`] (the Hamming distance), [`SelectedAttentionLayer`] (the attention). Weights: `rotations` `[width, bits]`,
/// drawn from the standard normal distribution, which are saved and loaded with the others but get no gradient, and those of
/// [`SelectedAttentionLayer`]. Candidates and behaviours get gradients through the attention alone.
///
/// The hash is of the rows as they come, as in the paper and in FuxiCTR's code, so that signs of items need be made once per item, when embeddings
/// change: [`Longseq::pack_signs`] with [`rotations`](Self::rotations), and [`attend`](Self::attend) with a search of the caller's.
///
/// Source: Chen et al., "End-to-End User Behavior Retrieval in Click-Through Rate Prediction Model", arXiv 2108.04468, §3.2 (SimHash and Hamming
/// distance) and §3.3 (multi-head attention over the `K` nearest). Of equal distances the older behaviour is kept; the published codes leave that
/// to `topk`.
pub struct EtaLayer {
    signs: Signs,
    top_k: usize,
    rotations: Tensor,
    attention: SelectedAttentionLayer,
}

impl EtaLayer {
    /// A layer over rows of `width` numbers with hashes of so many bits, which keeps `op.top_k` behaviours.
    ///
    /// # Errors
    /// Those of candle, such as rotations of another shape.
    pub fn new(width: usize, bits: usize, op: SelectedAttention, builder: VarBuilder<'_>) -> Result<Self> {
        let normal = Init::Randn { mean: 0.0, stdev: 1.0 };
        let rotations = builder.get_with_hints((width, bits), "rotations", normal)?.detach();
        let attention = SelectedAttentionLayer::new(width, op, builder)?;
        Ok(Self { signs: Signs::new(width, bits), top_k: op.top_k, rotations, attention })
    }

    /// `[width, bits]`.
    pub fn rotations(&self) -> &Tensor {
        &self.rotations
    }

    /// The behaviours of each candidate with the fewest different signs, `[M, K]`; scores are the numbers of equal signs.
    ///
    /// # Errors
    /// Those of [`Longseq::pack_signs`] and [`Longseq::search`].
    pub fn search<B: Place>(
        &self,
        longseq: &Longseq<B>,
        batch: &Batch<B>,
        targets: &Tensor,
        history: &Tensor,
    ) -> Result<SelectionTensors> {
        let queries = longseq.pack_signs(&self.signs, targets, &self.rotations)?;
        let keys = longseq.pack_signs(&self.signs, history, &self.rotations)?;
        let op = Search::hamming(self.signs.bits).with_top_k(self.top_k);
        longseq.search(&op, batch, SearchTensor::Signs(&queries), SearchTensor::Signs(&keys), None)
    }

    /// The interest of each candidate's user in it, `[M, width]`, from candidates `[M, width]`, behaviours `[N, width]` and what a search kept.
    ///
    /// # Errors
    /// Those of [`SelectedAttentionLayer::forward`].
    pub fn attend<B: Place>(
        &self,
        longseq: &Longseq<B>,
        batch: &Batch<B>,
        targets: &Tensor,
        history: &Tensor,
        selection: &SelectionTensors,
    ) -> Result<Tensor> {
        self.attention.forward(longseq, batch, targets, history, selection)
    }

    /// Both: search, and attention over what it kept.
    ///
    /// # Errors
    /// Those of [`search`](Self::search) and [`attend`](Self::attend).
    pub fn forward<B: Place>(
        &self,
        longseq: &Longseq<B>,
        batch: &Batch<B>,
        targets: &Tensor,
        history: &Tensor,
    ) -> Result<Tensor> {
        let kept = self.search(longseq, batch, targets, history)?;
        self.attend(longseq, batch, targets, history, &kept)
    }
}
