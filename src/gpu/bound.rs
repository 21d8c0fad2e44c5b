//! The bounds of ids and other indices that kernels check.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Error;
use crate::jagged::Batch;
use crate::memory::Memory;
use crate::ops::{IdPolicy, InterestChannels, Table};

/// The exclusive upper bound of an index, by its position in the argument.
#[derive(Debug, Clone)]
pub(crate) enum Bound {
    /// One bound per column; position `p` is in column `p % columns`.
    Columns(Vec<u64>),
    /// The length of the history of the candidate that owns the position, with the given number of columns per candidate.
    History(Arc<Batch>, usize),
    /// None: the list is to ascend, and what is reported is not above the element before it.
    Ascending,
    /// None: axes of candidates, so many each, are not to depend on those before them, and what is reported does.
    Axes(usize),
}

impl Bound {
    /// The bound at a position.
    pub(crate) fn at(&self, position: u64) -> u64 {
        match self {
            Self::Columns(bounds) => {
                bounds.get(position as usize % bounds.len().max(1)).copied().unwrap_or(0)
            }
            Self::History(batch, columns) => {
                let candidate = position as usize / columns.max(&1);
                let owns = |(_, targets): &(_, Range<usize>)| targets.contains(&candidate);
                batch.requests().find(owns).map_or(0, |(history, _)| history.len() as u64)
            }
            Self::Ascending | Self::Axes(_) => 0,
        }
    }

    /// The error for what was found at a position.
    pub(crate) fn error(
        &self,
        operation: &'static str,
        argument: &'static str,
        position: u64,
        id: u64,
    ) -> Error {
        if let Self::Ascending = self {
            let (expected, got) = ("an ascending list".into(), format!("{id} at position {position}"));
            return Error::Parameter { operation, argument, expected, got };
        }
        if let Self::Axes(channels) = self {
            let (channels, axis) = ((*channels).max(1), position as usize);
            return InterestChannels::dependent_axis(operation, axis / channels, axis % channels);
        }
        Error::IndexOutOfRange { operation, argument, position, id, bound: self.at(position) }
    }

    /// Whether an error is one of those that a bound finds on the device.
    #[cfg(feature = "cuda")]
    pub(crate) fn found(error: &Error) -> bool {
        matches!(error, Error::IndexOutOfRange { .. } | Error::Parameter { .. })
    }

    /// Whether positions have as many columns as those of the other.
    #[cfg(feature = "cuda")]
    pub(crate) fn counts_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Columns(a), Self::Columns(b)) => a.len() == b.len(),
            (Self::History(_, k), Self::History(_, l)) => k == l,
            (Self::Ascending, Self::Ascending) => true,
            (Self::Axes(a), Self::Axes(b)) => a == b,
            _ => false,
        }
    }

    /// Whether both have the same bound at every position. Batches are compared by identity.
    #[cfg(feature = "cuda")]
    pub(crate) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Columns(a), Self::Columns(b)) => a == b,
            (Self::History(a, k), Self::History(b, l)) => Arc::ptr_eq(a, b) && k == l,
            (Self::Ascending, Self::Ascending) => true,
            (Self::Axes(a), Self::Axes(b)) => a == b,
            _ => false,
        }
    }
}

/// The bound of ids into `tables`, one table per column; `None` if the policy reports nothing.
pub(crate) fn id_bound<S: Memory>(policy: IdPolicy, tables: &[Table<'_, S>]) -> Option<Bound> {
    match policy {
        IdPolicy::Error => Some(Bound::Columns(tables.iter().map(|table| table.rows as u64).collect())),
        IdPolicy::Zero | IdPolicy::Skip => None,
    }
}

/// Whether a user has behaviours but no candidates, so that no kernel reads the user's ids.
pub(crate) fn has_unread_history(batch: &Batch) -> bool {
    batch.requests().any(|(history, targets)| targets.is_empty() && !history.is_empty())
}
