//! Histograms of similarities.

use crate::error::{Error, Result};
use crate::jagged::Batch;
use crate::memory::Memory;
use crate::ops::search::{Search, SearchScore, SimilarityInputs};
use crate::ops::selection::Selection;
use crate::ops::shape::{dim, elements, expect, product, sum};

const NAME: &str = "similarity_histogram";
const NEWEST: &str = "newest_histogram";

/// A histogram of each candidate's similarities: how many of its kept behaviours are how similar to it.
///
/// Over the kept behaviours of candidate `m` and their similarities `R`, the scores of the [`Selection`](crate::Selection), with `n` steps
/// from 0 to 1 and `2n + 1` bins:
///
/// ```text
/// bin(r)    = ⌈r·n⌉ + n, from 0 to 2n             r·n rounded to f32
/// out[m, i] = the number of kept behaviours whose R is in bin i
/// ```
///
/// Bin `i` is `((i − n − 1)/n, (i − n)/n]`: bin 0 holds −1, bin `n` what is at most 0 and above `-1/n`, bin `2n` what is above
/// `1 − 1/n`. A similarity that rounding put above 1 falls in the last bin, one below −1 in the first. The product is rounded to `f32`, as
/// the published code does, so that every backend counts alike. NaN is not counted, nor is `-∞`, with which a bias of a search removes a
/// behaviour. There is no gradient.
///
/// [`newest_histogram`](crate::SelectedOps::newest_histogram) counts the similarities of a user's newest `K` behaviours instead, which need
/// no search.
///
/// MUSE's SimTier has 10 steps (21 bins, and a 22nd for what rounding put above 1), and makes the feature
/// `log(1 + count)·embedding` of each bin.
///
/// ```
/// use longseq::prelude::*;
/// use longseq::{Cpu, EMPTY_SLOT, Host, Jagged, Selection, SimilarityHistogram};
///
/// let backend = Cpu::new();
/// let batch = backend.batch(&Jagged::from_lengths(&[9])?, &Jagged::from_lengths(&[1])?)?;
/// let (positions, scores) = ([3, 0, 8, EMPTY_SLOT], [1.0, 0.5, -0.25, f32::NEG_INFINITY]);
/// let kept = Selection::new(Host::view(&positions), Host::view(&scores), Host::view(&[3]));
/// // Two steps: -1, (-1, -0.5], (-0.5, 0], (0, 0.5], (0.5, 1].
/// let op = SimilarityHistogram::new(2).with_top_k(4);
/// assert_eq!(*backend.similarity_histogram(&op, &batch, kept)?, [0, 0, 1, 1, 1]);
/// # Ok::<(), longseq::Error>(())
/// ```
///
/// Source: MUSE, arXiv 2512.07216 (SimTier).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SimilarityHistogram {
    /// `n`: the steps from 0 to 1, 1 to [`MAX_STEPS`](Self::MAX_STEPS). Default 10.
    pub steps: usize,
    /// `K`: the slots of the selection for each candidate, or the newest behaviours that count. Default 50.
    pub top_k: usize,
}

impl Default for SimilarityHistogram {
    fn default() -> Self {
        Self { steps: 10, top_k: 50 }
    }
}

impl SimilarityHistogram {
    /// The most steps: the bins of a candidate fit the memory that a workgroup of any device shares.
    pub const MAX_STEPS: usize = 1024;

    /// So many steps from 0 to 1, 50 slots.
    pub fn new(steps: usize) -> Self {
        Self { steps, ..Self::default() }
    }

    /// Sets the slots of the selection for each candidate (the `top_k` of the search), or how many of the newest behaviours count.
    pub fn with_top_k(self, top_k: usize) -> Self {
        Self { top_k, ..self }
    }

    /// `2n + 1`: the number of bins.
    pub fn bins(&self) -> usize {
        2 * self.steps.min(Self::MAX_STEPS) + 1
    }

    /// The bin of a similarity; `None` if it is not counted.
    pub fn bin(&self, similarity: f32) -> Option<usize> {
        if similarity.is_nan() || similarity == f32::NEG_INFINITY {
            return None;
        }
        let steps = self.steps.min(Self::MAX_STEPS) as f32;
        Some(((similarity * steps).ceil().clamp(-steps, steps) + steps) as usize)
    }

    /// `M·(2n + 1)`: the number of elements of the output.
    ///
    /// # Errors
    /// [`Error::Parameter`] and [`Error::Limit`].
    pub fn output_length(&self, batch: &Batch) -> Result<usize> {
        self.validate(NAME)?;
        elements(NAME, "out", &[dim("M", batch.targets().rows()), dim("bins", self.bins())])
    }

    /// Checks the parameters alone, for the call that is named.
    fn validate(&self, operation: &'static str) -> Result<()> {
        for (argument, size) in [("steps", self.steps), ("top_k", self.top_k)] {
            if size == 0 {
                let (expected, got) = ("at least 1".into(), "0".into());
                return Err(Error::Parameter { operation, argument, expected, got });
            }
        }
        if self.steps > Self::MAX_STEPS {
            let (needed, limit) = (self.steps as u64, Self::MAX_STEPS as u64);
            return Err(Error::Limit { operation, argument: "steps", needed, limit });
        }
        Ok(())
    }

    /// Checks parameters and the selection against a batch.
    ///
    /// # Errors
    /// [`Error::Parameter`] if there are no steps or slots; [`Error::Shape`] for a selection of the wrong size; [`Error::Limit`] for too
    /// many steps. A count above `K` is [`Error::IndexOutOfRange`], which the call, or on a GPU the next wait,
    /// returns. Positions are not read.
    pub fn check<S: Memory>(&self, batch: &Batch, selection: &Selection<'_, S>) -> Result<()> {
        self.validate(NAME)?;
        selection.check(NAME, batch.targets().rows(), self.top_k)
    }

    /// Checks parameters and the rows that are compared against a batch.
    ///
    /// # Errors
    /// [`Error::Parameter`] and [`Error::Limit`] as [`check`](Self::check); those of [`Search::check`]; [`Error::Unsupported`] for scores
    /// other than dot products and cosines, which alone are similarities from -1 to 1.
    pub fn check_newest<S: Memory>(
        &self,
        search: &Search,
        batch: &Batch,
        inputs: &SimilarityInputs<'_, S>,
    ) -> Result<()> {
        self.validate(NEWEST)?;
        search.check(batch, inputs)?;
        match search.score {
            SearchScore::Dot { .. } | SearchScore::Cosine => Ok(()),
            score => Err(Error::Unsupported {
                operation: NEWEST,
                what: format!("{score:?}"),
                supported: "dot products and cosines".into(),
            }),
        }
    }

    /// Checks the output of the call that is named.
    ///
    /// # Errors
    /// [`Error::Shape`] if it is not `[M, 2n + 1]`.
    pub fn check_output(&self, operation: &'static str, batch: &Batch, out: usize) -> Result<()> {
        expect(operation, "out", out, &[dim("M", batch.targets().rows()), dim("bins", self.bins())]).map(drop)
    }

    /// Operations: a product, a rounding and an addition for each slot. This and [`bytes`](Self::bytes) are at most `u64::MAX`.
    pub fn flops(&self, batch: &Batch) -> u64 {
        product(&[3, batch.targets().total() as u64, self.top_k as u64])
    }

    /// The fewest bytes to move: each similarity, count and bin once.
    pub fn bytes(&self, batch: &Batch) -> u64 {
        let row = sum([self.top_k as u64, 1, self.bins() as u64]);
        product(&[4, batch.targets().total() as u64, row])
    }
}
