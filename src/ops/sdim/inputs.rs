//! Inputs of SDIM.

use crate::element::Element;
use crate::memory::{Memory, View};
use crate::ops::shape::copy_views;

/// The source of the signatures of some rows.
pub enum Hash<'a, S: Memory> {
    /// Signatures are computed with these rotations, `[d, G, τ]`.
    Rotations(View<'a, S, f32>),
    /// Given signatures `[rows, G]`, each below `2^τ`; for `τ ≤ 8`.
    Signatures8(View<'a, S, u8>),
    /// Given signatures `[rows, G]`, each below `2^τ`.
    Signatures16(View<'a, S, u16>),
}

/// The inputs of `encode` and `append`.
pub struct SdimHistory<'a, S: Memory, T: Element> {
    /// `[N, d]`, one row per behaviour.
    pub rows: View<'a, S, T>,
    /// The signatures of the behaviours.
    pub hash: Hash<'a, S>,
}

/// The inputs of `query`.
pub struct SdimQuery<'a, S: Memory, T: Element> {
    /// `[B, G, 2^τ, d]`, the result of `encode`.
    pub table: View<'a, S, f32>,
    /// `[M, d]`, one row per candidate; not needed if signatures are given.
    pub targets: Option<View<'a, S, T>>,
    /// The signatures of the candidates.
    pub hash: Hash<'a, S>,
}

/// The inputs of the table-free `attend`.
pub struct SdimInputs<'a, S: Memory, T: Element> {
    /// The behaviours.
    pub history: SdimHistory<'a, S, T>,
    /// `[M, d]`, one row per candidate; not needed if signatures are given.
    pub targets: Option<View<'a, S, T>>,
    /// The signatures of the candidates.
    pub hash: Hash<'a, S>,
}

copy_views!(Hash, SdimHistory<T>, SdimQuery<T>, SdimInputs<T>);

impl<'a, S: Memory, T: Element> SdimHistory<'a, S, T> {
    /// Behaviours `[N, d]` and the source of their signatures.
    pub fn new(rows: View<'a, S, T>, hash: Hash<'a, S>) -> Self {
        Self { rows, hash }
    }
}

impl<'a, S: Memory, T: Element> SdimQuery<'a, S, T> {
    /// A table and the source of the candidates' signatures. Rotations also need [`with_targets`](Self::with_targets).
    pub fn new(table: View<'a, S, f32>, hash: Hash<'a, S>) -> Self {
        Self { table, hash, targets: None }
    }

    /// Sets the candidates `[M, d]`, which are hashed with the rotations.
    pub fn with_targets(self, targets: View<'a, S, T>) -> Self {
        Self { targets: Some(targets), ..self }
    }
}

impl<'a, S: Memory, T: Element> SdimInputs<'a, S, T> {
    /// Behaviours and the source of the candidates' signatures. Rotations also need [`with_targets`](Self::with_targets).
    pub fn new(history: SdimHistory<'a, S, T>, hash: Hash<'a, S>) -> Self {
        Self { history, hash, targets: None }
    }

    /// Sets the candidates `[M, d]`, which are hashed with the rotations.
    pub fn with_targets(self, targets: View<'a, S, T>) -> Self {
        Self { targets: Some(targets), ..self }
    }
}
