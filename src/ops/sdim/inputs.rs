//! Inputs of SDIM.

use crate::element::Element;
use crate::memory::{Memory, View};
use crate::ops::shape::copy_views;

/// The source of the signatures of some rows.
///
/// Rows are items, as a rule, whose signatures change only with the model. A service computes those of all items once
/// ([`sdim_signatures_into`](crate::SdimOps::sdim_signatures_into)) and keeps them on the device; then calls name the item of each row,
/// and hash nothing:
///
/// ```
/// use longseq::prelude::*;
/// use longseq::{Cpu, Hash, Host, Jagged, Sdim, SdimEncodeInputs, SdimQueryInputs};
///
/// let backend = Cpu::new();
/// let op = Sdim::new(2).with_groups(1, 2).with_normalise(false);
/// let rotations = [1.0_f32, 0.0, 0.0, 1.0]; // bit t is the sign of element t
/// // When the model changes: the rows of three items are hashed.
/// let items = [5.0_f32, -1.0, 5.0, 1.0, -5.0, 1.0];
/// let mut kept = backend.zeros::<u8>(3 * op.groups)?; // [items, G]
/// let out = backend.view_mut(&mut kept);
/// backend.sdim_signatures_into(&op, Host::view(&items), Host::view(&rotations), out)?;
/// let signatures = backend.view(&kept);
///
/// // A user's behaviours, of items 2, 0 and 0.
/// let ids = Host::view(&[2, 0, 0]);
/// let rows = [-5.0_f32, 1.0, 5.0, -1.0, 5.0, -1.0];
/// let behaviours = SdimEncodeInputs::new(Host::view(&rows), Hash::Items8 { signatures, ids });
/// let histories = backend.jagged(&Jagged::from_lengths(&[3])?)?;
/// let table = backend.sdim_encode(&op, &histories, behaviours)?;
///
/// // A request, whose candidates are items 0 and 1: neither rows nor rotations are needed.
/// let targets = backend.jagged(&Jagged::from_lengths(&[2])?)?;
/// let ids = Host::view(&[0, 1]);
/// let query = SdimQueryInputs::new(backend.view(&table), Hash::Items8 { signatures, ids });
/// assert_eq!(*backend.sdim_query::<f32>(&op, &targets, query)?, [10.0, -2.0, 0.0, 0.0]);
/// # Ok::<(), longseq::Error>(())
/// ```
///
/// An id of `items` or more, also one of a row in a gap between histories, is [`IndexOutOfRange`](crate::Error::IndexOutOfRange) in
/// `ids`; so is a signature of `2^τ` or more in `signatures`, if an id names its item.
#[non_exhaustive]
pub enum Hash<'a, S: Memory> {
    /// Signatures are computed with these rotations, `[d, G, τ]`.
    Rotations(View<'a, S, f32>),
    /// Given signatures `[rows, G]`, each below `2^τ`; for `τ ≤ 8`.
    Signatures8(View<'a, S, u8>),
    /// Given signatures `[rows, G]`, each below `2^τ`.
    Signatures16(View<'a, S, u16>),
    /// The signatures of items, each below `2^τ`, and the item of each row: row `r` has those of item `ids[r]`; for `τ ≤ 8`.
    Items8 {
        /// `[items, G]`.
        signatures: View<'a, S, u8>,
        /// `[rows]`, each below `items`.
        ids: View<'a, S, u32>,
    },
    /// The signatures of items, each below `2^τ`, and the item of each row: row `r` has those of item `ids[r]`.
    Items16 {
        /// `[items, G]`.
        signatures: View<'a, S, u16>,
        /// `[rows]`, each below `items`.
        ids: View<'a, S, u32>,
    },
}

/// The inputs of `encode`, `append` and `remove`.
#[non_exhaustive]
pub struct SdimEncodeInputs<'a, S: Memory, T: Element> {
    /// `[N, d]`, one row per behaviour.
    pub history: View<'a, S, T>,
    /// The source of the behaviours' signatures.
    pub hash: Hash<'a, S>,
    /// `[N]`: what each row is multiplied by before it is added; `None`: 1. Signatures are those of the rows as they are.
    pub weights: Option<View<'a, S, f32>>,
}

/// The inputs of `query`.
#[non_exhaustive]
pub struct SdimQueryInputs<'a, S: Memory, T: Element> {
    /// `[B, G, 2^τ, d]`, the result of `encode`; `[U, G, 2^τ, d]` with [`users`](Self::users).
    pub table: View<'a, S, f32>,
    /// `[B]`: whose table the candidates of each request read, each below `U`; `None`: request `b` reads table `b`.
    pub users: Option<View<'a, S, u32>>,
    /// `[M, d]`, one row per candidate; not needed if signatures are given.
    pub targets: Option<View<'a, S, T>>,
    /// The source of the candidates' signatures.
    pub hash: Hash<'a, S>,
}

/// The inputs of the table-free `attend`.
#[non_exhaustive]
pub struct SdimAttendInputs<'a, S: Memory, T: Element> {
    /// `[N, d]`, one row per behaviour.
    pub history: View<'a, S, T>,
    /// The source of the behaviours' signatures.
    pub history_hash: Hash<'a, S>,
    /// `[M, d]`, one row per candidate; not needed if signatures are given.
    pub targets: Option<View<'a, S, T>>,
    /// The source of the candidates' signatures.
    pub target_hash: Hash<'a, S>,
}

copy_views!(Hash, SdimEncodeInputs<T>, SdimQueryInputs<T>, SdimAttendInputs<T>);

impl<'a, S: Memory, T: Element> SdimEncodeInputs<'a, S, T> {
    /// Behaviours `[N, d]` and the source of their signatures.
    pub fn new(history: View<'a, S, T>, hash: Hash<'a, S>) -> Self {
        Self { history, hash, weights: None }
    }

    /// Sets the weight of each behaviour, `[N]`: its row is added `w` times.
    ///
    /// Here behaviours count half as much with every day, and one is taken back with the weight that it has by then:
    ///
    /// ```
    /// use longseq::prelude::*;
    /// use longseq::{Cpu, Hash, Host, Jagged, Sdim, SdimEncodeInputs};
    ///
    /// let backend = Cpu::new();
    /// let op = Sdim::new(1).with_groups(1, 1); // two buckets
    /// let one = backend.jagged(&Jagged::from_lengths(&[1])?)?;
    /// let mut table = backend.zeros::<f32>(2)?;
    /// let (signature, factors) = ([0_u8], [0.5]);
    /// let hash = Hash::Signatures8(Host::view(&signature));
    /// for row in [[4.0_f32], [6.0]] {
    ///     backend.sdim_decay(&op, backend.view_mut(&mut table), Host::view(&factors))?; // once a day
    ///     let today = SdimEncodeInputs::new(Host::view(&row), hash);
    ///     backend.sdim_append(&op, &one, today, backend.view_mut(&mut table))?;
    /// }
    /// assert_eq!(*table, [8.0, 0.0]);
    /// let gone = SdimEncodeInputs::new(Host::view(&[4.0_f32]), hash).with_weights(Host::view(&factors));
    /// backend.sdim_remove(&op, &one, gone, backend.view_mut(&mut table))?;
    /// assert_eq!(*table, [6.0, 0.0]);
    /// # Ok::<(), longseq::Error>(())
    /// ```
    pub fn with_weights(self, weights: View<'a, S, f32>) -> Self {
        Self { weights: Some(weights), ..self }
    }
}

impl<'a, S: Memory, T: Element> SdimQueryInputs<'a, S, T> {
    /// A table and the source of the candidates' signatures. Rotations also need [`with_targets`](Self::with_targets).
    pub fn new(table: View<'a, S, f32>, hash: Hash<'a, S>) -> Self {
        Self { table, users: None, hash, targets: None }
    }

    /// Sets the candidates `[M, d]`, which are hashed with the rotations.
    pub fn with_targets(self, targets: View<'a, S, T>) -> Self {
        Self { targets: Some(targets), ..self }
    }

    /// Sets whose table each request reads, `[B]`: tables of all users are kept, and a batch of requests copies none of them.
    pub fn with_users(self, users: View<'a, S, u32>) -> Self {
        Self { users: Some(users), ..self }
    }
}

impl<'a, S: Memory, T: Element> SdimAttendInputs<'a, S, T> {
    /// Behaviours and the sources of the behaviours' and the candidates' signatures. Rotations for the candidates also need
    /// [`with_targets`](Self::with_targets).
    pub fn new(history: View<'a, S, T>, history_hash: Hash<'a, S>, target_hash: Hash<'a, S>) -> Self {
        Self { history, history_hash, targets: None, target_hash }
    }

    /// The inputs of an `encode` of the same behaviours.
    pub fn encode(&self) -> SdimEncodeInputs<'a, S, T> {
        SdimEncodeInputs::new(self.history, self.history_hash)
    }

    /// Sets the candidates `[M, d]`, which are hashed with the rotations.
    pub fn with_targets(self, targets: View<'a, S, T>) -> Self {
        Self { targets: Some(targets), ..self }
    }
}
