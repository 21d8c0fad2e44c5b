//! What candidates give to rows of a history that they keep, sorted by row, so that each row adds up its own.

use crate::error::Result;
use crate::host::filled;

/// What a candidate gives a row of a user's history: a factor times a row of the candidate.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    /// Among the rows of the user's history.
    pub(super) row: usize,
    /// Among the rows of all candidates.
    pub(super) query: usize,
    pub(super) factor: f32,
}

/// The entries of a user in the order of rows; those of a row in the order in which they came.
pub(super) struct Sorted {
    /// Where the entries of each row begin, and the end.
    starts: Vec<usize>,
    queries: Vec<usize>,
    factors: Vec<f32>,
}

impl Sorted {
    /// Sorts by counting.
    pub(super) fn new<'a>(
        operation: &'static str,
        rows: usize,
        entries: impl Iterator<Item = &'a Entry> + Clone,
    ) -> Result<Self> {
        let mut starts = filled(operation, rows + 1, 0)?;
        for entry in entries.clone() {
            starts[entry.row + 1] += 1;
        }
        for row in 0..rows {
            starts[row + 1] += starts[row];
        }
        let mut places = starts.clone();
        let (mut queries, mut factors) =
            (filled(operation, starts[rows], 0)?, filled(operation, starts[rows], 0.0)?);
        for entry in entries {
            let place = &mut places[entry.row];
            (queries[*place], factors[*place]) = (entry.query, entry.factor);
            *place += 1;
        }
        Ok(Self { starts, queries, factors })
    }

    /// The entries of a row.
    pub(super) fn of(&self, row: usize) -> (&[usize], &[f32]) {
        let entries = self.starts[row]..self.starts[row + 1];
        (&self.queries[entries.clone()], &self.factors[entries])
    }
}
