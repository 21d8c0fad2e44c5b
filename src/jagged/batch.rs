//! Histories and candidates of the same users.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::jagged::Jagged;

/// A batch of requests: the histories and the candidates of the same users.
///
/// ```
/// use longseq::{Batch, Jagged};
///
/// // Two users: 1000 and 20 behaviours, 3 and 2 candidates.
/// let batch = Batch::new(Jagged::from_lengths(&[1000, 20])?, Jagged::from_lengths(&[3, 2])?)?;
/// assert_eq!(batch.users(), 2);
/// # Ok::<(), longseq::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    histories: Jagged,
    targets: Jagged,
}

impl Batch {
    /// Pairs histories with targets.
    ///
    /// # Errors
    /// [`Error::Shape`] if they have different numbers of users, or the targets are sub-ranges: candidates are one user after the
    /// other; [`Error::Parameter`] if one of them has [slots](Jagged::with_slots).
    pub fn new(histories: Jagged, targets: Jagged) -> Result<Self> {
        histories.check_no_slots("Batch::new", "histories")?;
        targets.check_offsets("Batch::new", "targets")?;
        if histories.users() != targets.users() {
            return Err(Error::Shape {
                operation: "Batch::new",
                argument: "targets",
                expected: format!("{} users, as many as there are histories", histories.users()),
                got: format!("{} users", targets.users()),
            });
        }
        Ok(Self { histories, targets })
    }

    /// Histories with one candidate each, which stands for the row of results of the user: that of the slot, where they have slots.
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    pub(crate) fn per_user(histories: &Jagged) -> Result<Self> {
        Ok(Self { histories: histories.clone(), targets: histories.rows_of_results()? })
    }

    /// The behaviours (rows of keys, values, history, ids) of each user.
    pub fn histories(&self) -> &Jagged {
        &self.histories
    }

    /// The candidates (rows of queries, targets, outputs) of each user.
    pub fn targets(&self) -> &Jagged {
        &self.targets
    }

    /// The number of users.
    pub fn users(&self) -> usize {
        self.histories.users()
    }

    /// For each user, the rows of the history and the rows of the targets.
    pub fn requests(&self) -> impl ExactSizeIterator<Item = (Range<usize>, Range<usize>)> + Clone + '_ {
        self.histories.ranges().zip(self.targets.ranges())
    }

    /// The number of pairs of a candidate and a behaviour of its user: Σ over users of behaviours × candidates; at most
    /// `u64::MAX`.
    pub fn pairs(&self) -> u64 {
        let pairs = self.requests().map(|(history, targets)| history.len() as u64 * targets.len() as u64);
        pairs.fold(0, u64::saturating_add)
    }
}

impl AsRef<Batch> for Batch {
    fn as_ref(&self) -> &Batch {
        self
    }
}
