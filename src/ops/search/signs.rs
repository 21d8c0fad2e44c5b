//! Packed signs of rotations.

use crate::error::{Error, Result};
use crate::ops::sdim::Sdim;
use crate::ops::shape::{dim, elements, expect};

const NAME: &str = "pack_signs";

/// Packed signs of random projections (SimHash), which [`Search::hamming`](crate::Search::hamming) compares.
///
/// ```text
/// bit[i](x)  = 1 if ⟨x, R[:,i]⟩ > 0 else 0          a projection of exactly 0, and of NaN, gives 0
/// word[j](x) = Σ_t bit[32·j + t](x)·2^t             bits past the last one are 0
/// ```
///
/// With `R ∈ R^{d×bits}` drawn once from the standard normal distribution, two rows at an angle `θ` differ in `bits·θ/π` bits on
/// average. Arithmetic is `f32`: a projection within rounding error of 0 may have either sign. Projections must be within `f32`.
///
/// ```
/// use longseq::prelude::*;
/// use longseq::{Cpu, Host, Jagged, Search, SearchRows, Signs, SimilarityInputs};
///
/// let (backend, op) = (Cpu::new(), Signs::new(16, 64));
/// let rotations = op.rotations(1)?; // draw once, store with the model
/// let history: Vec<f32> = (0..1000 * 16).map(|i| (i as f32).sin()).collect();
/// let keys = backend.pack_signs(&op, Host::view(&history), Host::view(&rotations))?; // [1000, 2]
/// let queries = backend.pack_signs(&op, Host::view(&history[80..96]), Host::view(&rotations))?;
///
/// let batch = backend.batch(&Jagged::from_lengths(&[1000])?, &Jagged::from_lengths(&[1])?)?;
/// let [queries, keys] = [&queries, &keys].map(|signs| SearchRows::Signs(backend.view(signs)));
/// let kept = backend.search(&Search::hamming(64), &batch, SimilarityInputs::new(queries, keys))?;
/// assert_eq!((kept.positions[0], kept.scores[0]), (5, 64.0)); // the row itself
/// # Ok::<(), longseq::Error>(())
/// ```
///
/// Source: Chen et al., "End-to-End User Behavior Retrieval in Click-Through Rate Prediction Model" (ETA), arXiv 2108.04468, §3.2;
/// Charikar, "Similarity Estimation Techniques from Rounding Algorithms", STOC 2002.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Signs {
    /// `d`: the numbers of a row.
    pub width: usize,
    /// The number of rotations, and of bits of a packed row.
    pub bits: usize,
}

impl Signs {
    /// `bits` signs of rows of `width` numbers.
    pub const fn new(width: usize, bits: usize) -> Self {
        Self { width, bits }
    }

    /// `⌈bits/32⌉`: the words of a packed row.
    pub const fn words(&self) -> usize {
        self.bits.div_ceil(32)
    }

    /// Draws rotations `[d, bits]` from the standard normal distribution, as [`Sdim::rotations`] does.
    ///
    /// # Errors
    /// [`Error::Parameter`], [`Error::Limit`] and [`Error::OutOfMemory`].
    pub fn rotations(&self, seed: u64) -> Result<Vec<f32>> {
        self.validate()?;
        Sdim::new(self.width).with_groups(self.bits, 1).rotations(seed)
    }

    fn validate(&self) -> Result<()> {
        match [("width", self.width), ("bits", self.bits)].into_iter().find(|(_, size)| *size == 0) {
            None => Ok(()),
            Some((argument, _)) => {
                let (expected, got) = ("at least 1".into(), "0".into());
                Err(Error::Parameter { operation: NAME, argument, expected, got })
            }
        }
    }

    /// Checks the sizes of rows `[rows, d]` and rotations `[d, bits]`, and returns the number of rows.
    ///
    /// # Errors
    /// [`Error::Parameter`], [`Error::Shape`] and [`Error::Limit`].
    pub fn check(&self, rows: usize, rotations: usize) -> Result<usize> {
        self.validate()?;
        let (count, width) = (rows / self.width, dim("d", self.width));
        expect(NAME, "rows", rows, &[dim("rows", count), width])?;
        expect(NAME, "rotations", rotations, &[width, dim("bits", self.bits)])?;
        elements(NAME, "out", &[dim("rows", count), dim("⌈bits/32⌉", self.words())])?;
        Ok(count)
    }

    /// Checks the size of the output for so many rows.
    ///
    /// # Errors
    /// [`Error::Shape`] if it is not `[rows, ⌈bits/32⌉]`.
    pub fn check_output(&self, rows: usize, out: usize) -> Result<()> {
        expect(NAME, "out", out, &[dim("rows", rows), dim("⌈bits/32⌉", self.words())])?;
        Ok(())
    }
}
