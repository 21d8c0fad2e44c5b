//! Parameters, shape rules and costs of search.

use crate::error::{Error, Result};
use crate::jagged::Batch;
use crate::memory::Memory;
use crate::ops::search::inputs::{SearchRows, SimilarityInputs};
use crate::ops::selection::SelectionMut;
use crate::ops::shape::{Dim, dim, elements, expect, product};

pub(super) const NAME: &str = "search";

/// Search: the first stage of a two-stage model, which keeps the `K` behaviours of a user that score best with each candidate.
/// The second stage attends to those alone.
///
/// ```text
/// dot:      score[m,l] = scale · ⟨q_m, k_l⟩ + bias_l
/// cosine:   score[m,l] = ⟨q_m, k_l⟩ / (max(‖q_m‖, 1e-12) · max(‖k_l‖, 1e-12));     a k_l of zeros is never kept
/// Hamming:  score[m,l] = bits − (number of bits in which q_m and k_l differ)
/// match:    score[m,l] = 1, for the behaviours with k_l = q_m alone;               the newest K, newest first
/// top[m]    = the K behaviours of highest score: score descending, then position ascending; NaN last
/// ```
///
/// The result is a [`Selection`](crate::Selection): positions `[M, K]` within the user's history, scores `[M, K]`, and counts
/// `[M]`. Fewer than `K` are kept where there are fewer; slots after the last one hold [`EMPTY_SLOT`](crate::EMPTY_SLOT) and `-∞`.
/// Scores of all pairs are never stored: memory does not grow with `C·L`. A score of `-∞`, for example from a bias, is the lowest
/// number and kept like any other where there is room. (Attention over the selection gives it no weight.)
///
/// * **dot** takes rows of `f32`, `f16`, `bf16`, and 8-bit rows with a scale and an offset each, or codes without. Scores must be within
///   `f32`, and so must `⟨q, k⟩`.
/// * **cosine** takes rows of `f32`, `f16`, `bf16`, and 8-bit codes, which need no scale. Rows may be of any size: squares of their
///   lengths may exceed `f32`. A candidate of zeros scores 0 with every behaviour. A row with a number that is not finite scores NaN.
/// * **Hamming** takes packed signs, from [`pack_signs`](crate::SearchOps::pack_signs) or from elsewhere; bits of a row's last word
///   past the width do not count.
/// * **match** takes a `u32` key per row, such as the category of an item.
///
/// `Wgpu` takes rows of up to 103,616 numbers and packed signs of up to 828,928 bits.
///
/// The score of tables, `Σ_f scale_f·⟨A_f, A_f⟩` of rows looked up by ids, is
/// [`decoupled_search`](crate::DecoupledOps::decoupled_search): one more score of the same family, with the same selection.
/// The choice has no gradient.
///
/// ```
/// use longseq::prelude::*;
/// use longseq::{Cpu, Host, Jagged, Search, SearchRows, SimilarityInputs};
///
/// let backend = Cpu::new();
/// // One user with four behaviours, the third of which is padding, and one candidate.
/// let (candidate, history) = ([0_i8, 7], [5_i8, 5, 3, 0, 0, 0, 0, 100]);
/// let batch = backend.batch(&Jagged::from_lengths(&[4])?, &Jagged::from_lengths(&[1])?)?;
/// let rows = |codes| SearchRows::Codes(Host::view(codes));
/// let op = Search::cosine(2).with_top_k(3);
/// let kept = backend.search(&op, &batch, SimilarityInputs::new(rows(&candidate), rows(&history)))?;
/// assert_eq!((&*kept.positions, &*kept.counts), (&[3, 0, 1][..], &[3][..]));
/// assert!((kept.scores[1] - 0.5_f32.sqrt()).abs() < 1e-6);
/// # Ok::<(), longseq::Error>(())
/// ```
///
/// Sources: Pi et al., "Search-based User Interest Modeling with Lifelong Sequential Behavior Data" (SIM), CIKM 2020, arXiv 2006.05639,
/// eq. 1 (match, dot); Chang et al., "TWIN: TWo-stage Interest Network", KDD 2023, arXiv 2302.02352, eq. 5 (dot with a bias); Chen et al.,
/// "End-to-End User Behavior Retrieval in Click-Through Rate Prediction Model" (ETA), arXiv 2108.04468, §3 (Hamming); MUSE, arXiv
/// 2512.07216 (cosine of 8-bit rows, 128 wide, `L` up to 100,000, `K` = 50).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Search {
    /// What ranks behaviours.
    pub score: SearchScore,
    /// `a`: the numbers of a row; with Hamming distances its bits. Not used with keys.
    pub width: usize,
    /// `K`: the number of behaviours to keep, 1 to [`MAX_TOP_K`](Self::MAX_TOP_K). Default 50.
    pub top_k: usize,
}

/// What ranks behaviours. Formulas: [`Search`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum SearchScore {
    /// The dot product, scaled, with an optional bias.
    Dot {
        /// The factor on the dot product.
        scale: f32,
    },
    /// The cosine.
    Cosine,
    /// The number of equal bits.
    Hamming,
    /// Equal keys, newest first.
    Match,
}

impl Default for Search {
    fn default() -> Self {
        Self::dot(64)
    }
}

impl Search {
    /// The most behaviours that a search keeps for a candidate; on GPU backends also of
    /// [`decoupled_search`](crate::DecoupledOps::decoupled_search).
    pub const MAX_TOP_K: usize = 4096;
    /// The lower bound of the lengths that a cosine divides by.
    pub const MIN_NORM: f32 = 1e-12;
    /// The most bits of a Hamming distance: beyond, `f32` does not count exactly.
    pub const MAX_BITS: usize = 1 << 24;

    const fn new(score: SearchScore, width: usize) -> Self {
        Self { score, width, top_k: 50 }
    }

    /// Dot products of rows of `width` numbers, with a scale of 1.
    pub const fn dot(width: usize) -> Self {
        Self::new(SearchScore::Dot { scale: 1.0 }, width)
    }

    /// Cosines of rows of `width` numbers.
    pub const fn cosine(width: usize) -> Self {
        Self::new(SearchScore::Cosine, width)
    }

    /// Equal bits of packed signs.
    pub const fn hamming(bits: usize) -> Self {
        Self::new(SearchScore::Hamming, bits)
    }

    /// The newest behaviours whose key is the candidate's.
    pub const fn matching() -> Self {
        Self::new(SearchScore::Match, 1)
    }

    /// Sets the number of behaviours to keep, 1 to [`MAX_TOP_K`](Self::MAX_TOP_K) on every backend.
    pub const fn with_top_k(self, top_k: usize) -> Self {
        Self { top_k, ..self }
    }

    /// Ranks by dot products with this factor, as TWIN does with `1/√d`.
    pub const fn with_scale(self, scale: f32) -> Self {
        Self { score: SearchScore::Dot { scale }, ..self }
    }

    /// `⌈bits/32⌉`: the words of a row of packed signs.
    pub const fn words(&self) -> usize {
        self.width.div_ceil(32)
    }

    /// `M·K`: the number of slots of a selection.
    ///
    /// # Errors
    /// [`Error::Parameter`] and [`Error::Limit`].
    pub fn selection_length(&self, batch: &Batch) -> Result<usize> {
        self.validate()?;
        elements(NAME, "positions", &[dim("M", batch.targets().rows()), dim("K", self.top_k)])
    }

    /// Checks the parameters alone.
    fn validate(&self) -> Result<()> {
        let wrong = |argument, expected: &str, got: String| {
            Err(Error::Parameter { operation: NAME, argument, expected: expected.into(), got })
        };
        if self.top_k == 0 {
            return wrong("top_k", "at least 1", "0".into());
        }
        if self.width == 0 && self.score != SearchScore::Match {
            return wrong("width", "at least 1", "0".into());
        }
        if let SearchScore::Dot { scale } = self.score
            && !scale.is_finite()
        {
            return wrong("scale", "a finite number", scale.to_string());
        }
        let most_bits = if self.score == SearchScore::Hamming { Self::MAX_BITS } else { usize::MAX };
        let limits = [("top_k", self.top_k, Self::MAX_TOP_K), ("width", self.width, most_bits)];
        match limits.into_iter().find(|(_, needed, limit)| needed > limit) {
            None => Ok(()),
            Some((argument, needed, limit)) => {
                let (needed, limit) = (needed as u64, limit as u64);
                Err(Error::Limit { operation: NAME, argument, needed, limit })
            }
        }
    }

    /// Checks the inputs.
    ///
    /// # Errors
    /// [`Error::Parameter`]; [`Error::Unsupported`] for rows that this score does not take, and for candidates that are stored
    /// otherwise than behaviours; [`Error::Shape`] and [`Error::Limit`].
    pub fn check<S: Memory>(&self, batch: &Batch, inputs: &SimilarityInputs<'_, S>) -> Result<()> {
        self.validate()?;
        self.check_rows("queries", &inputs.queries, dim("M", batch.targets().rows()))?;
        let (queries, keys) = (inputs.queries.storage(), inputs.keys.storage());
        if queries != keys {
            return Err(Error::Unsupported {
                operation: NAME,
                what: format!("a search among {keys} for {queries}"),
                supported: "candidates and behaviours that are stored alike".into(),
            });
        }
        let behaviours = dim("N", batch.histories().rows());
        self.check_rows("keys", &inputs.keys, behaviours)?;
        if let Some(bias) = &inputs.bias {
            if !matches!(self.score, SearchScore::Dot { .. }) {
                let (expected, got) = ("none, except for dot products".into(), "a bias".into());
                return Err(Error::Parameter { operation: NAME, argument: "bias", expected, got });
            }
            expect(NAME, "bias", bias.len(), &[behaviours])?;
        }
        Ok(())
    }

    /// Checks the outputs.
    ///
    /// # Errors
    /// [`Error::Shape`] for an output of the wrong size.
    pub fn check_outputs<S: Memory>(&self, batch: &Batch, out: &SelectionMut<'_, S>) -> Result<()> {
        out.check(NAME, batch.targets().rows(), self.top_k)
    }

    fn check_rows<S: Memory>(
        &self,
        argument: &'static str,
        given: &SearchRows<'_, S>,
        rows: Dim,
    ) -> Result<()> {
        let taken = match self.score {
            SearchScore::Dot { .. } => !matches!(given, SearchRows::Signs(_) | SearchRows::Keys(_)),
            SearchScore::Cosine => {
                !matches!(given, SearchRows::Int8 { .. } | SearchRows::Signs(_) | SearchRows::Keys(_))
            }
            SearchScore::Hamming => matches!(given, SearchRows::Signs(_)),
            SearchScore::Match => matches!(given, SearchRows::Keys(_)),
        };
        if !taken {
            return Err(Error::Unsupported {
                operation: NAME,
                what: format!("{argument} of {}", given.storage()),
                supported: self.supported().into(),
            });
        }
        let shape = [rows, dim("a", self.width)];
        match given {
            SearchRows::F32(view) => expect(NAME, argument, view.len(), &shape),
            SearchRows::F16(view) => expect(NAME, argument, view.len(), &shape),
            SearchRows::Bf16(view) => expect(NAME, argument, view.len(), &shape),
            SearchRows::Codes(view) => expect(NAME, argument, view.len(), &shape),
            SearchRows::Int8 { codes, scale, offset } => {
                expect(NAME, argument, codes.len(), &shape)?;
                expect(NAME, "scale", scale.len(), &shape[..1])?;
                expect(NAME, "offset", offset.len(), &shape[..1])
            }
            SearchRows::Signs(view) => {
                expect(NAME, argument, view.len(), &[rows, dim("⌈bits/32⌉", self.words())])
            }
            SearchRows::Keys(view) => expect(NAME, argument, view.len(), &[rows]),
        }
        .map(|_| ())
    }

    /// The rows that the score takes.
    fn supported(&self) -> &'static str {
        match self.score {
            SearchScore::Dot { .. } => "rows of f32, f16, bf16 or int8, and int8 codes",
            SearchScore::Cosine => "rows of f32, f16 or bf16, and int8 codes",
            SearchScore::Hamming => "packed signs",
            SearchScore::Match => "keys",
        }
    }

    /// Operations: `2·C·L·a` of rows, `2·C·L` of words of packed signs, `C·L` comparisons of keys, summed over users. This and
    /// [`bytes`](Self::bytes) are at most `u64::MAX`.
    pub fn flops(&self, batch: &Batch) -> u64 {
        let each = match self.score {
            SearchScore::Hamming => 2 * self.words() as u64,
            SearchScore::Match => 1,
            _ => product(&[2, self.width as u64]),
        };
        product(&[batch.pairs(), each])
    }

    /// The fewest bytes that a search moves: each behaviour's row, of `row` bytes, once.
    pub fn bytes(&self, batch: &Batch, row: usize) -> u64 {
        product(&[batch.histories().total_length() as u64, row as u64])
    }
}
