//! What a search compares.

use crate::memory::{Memory, View};
use crate::ops::shape::copy_views;

/// Rows of candidates or of behaviours, as a search reads them.
#[non_exhaustive]
pub enum SearchRows<'a, S: Memory> {
    /// `[rows, a]`, 32-bit floats.
    F32(View<'a, S, f32>),
    /// `[rows, a]`, 16-bit IEEE floats.
    F16(View<'a, S, half::f16>),
    /// `[rows, a]`, bfloat16.
    Bf16(View<'a, S, half::bf16>),
    /// `value = scale[row]·code + offset[row]`, as in an 8-bit [`Table`](crate::Table); for dot products.
    Int8 {
        /// `[rows, a]`.
        codes: View<'a, S, i8>,
        /// `[rows]`.
        scale: View<'a, S, f32>,
        /// `[rows]`.
        offset: View<'a, S, f32>,
    },
    /// `[rows, a]`, 8-bit integers that are the values themselves. A cosine needs no scale; with dot products, one scale for all
    /// rows of a side goes into that of the score.
    Codes(View<'a, S, i8>),
    /// `[rows, ⌈bits/32⌉]` packed signs: bit `i` of a row is bit `i mod 32` of its word `⌊i/32⌋`.
    Signs(View<'a, S, u32>),
    /// `[rows]` keys.
    Keys(View<'a, S, u32>),
}

/// The inputs of a search: candidates and behaviours, stored alike.
#[non_exhaustive]
pub struct SimilarityInputs<'a, S: Memory> {
    /// `M` rows, one per candidate.
    pub queries: SearchRows<'a, S>,
    /// `N` rows, one per behaviour.
    pub keys: SearchRows<'a, S>,
    /// `[N]`: a number that is added to each score of a behaviour, with dot products. (TWIN's cross features.)
    pub bias: Option<View<'a, S, f32>>,
}

copy_views!(SearchRows, SimilarityInputs);

impl<S: Memory> SearchRows<'_, S> {
    /// The name of the storage, for errors.
    pub(super) fn storage(&self) -> &'static str {
        match self {
            Self::F32(_) => "f32 rows",
            Self::F16(_) => "f16 rows",
            Self::Bf16(_) => "bf16 rows",
            Self::Int8 { .. } => "int8 rows with scales and offsets",
            Self::Codes(_) => "int8 codes",
            Self::Signs(_) => "packed signs",
            Self::Keys(_) => "keys",
        }
    }
}

impl<'a, S: Memory> SimilarityInputs<'a, S> {
    /// Rows of candidates (`M`) and of behaviours (`N`).
    pub fn new(queries: SearchRows<'a, S>, keys: SearchRows<'a, S>) -> Self {
        Self { queries, keys, bias: None }
    }

    /// Adds a bias `[N]` to the scores.
    pub fn with_bias(self, bias: View<'a, S, f32>) -> Self {
        Self { bias: Some(bias), ..self }
    }
}
