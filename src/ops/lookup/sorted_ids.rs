//! A column of ids in order: which positions read which row of a table.

use crate::error::{Error, Result};
use crate::memory::{Memory, View, ViewMut};
use crate::ops::lookup::inputs::IdPolicy;
use crate::ops::shape::{copy_views, dim, expect};

const NAME: &str = "sort_ids";

/// One feature's ids: column `feature` of `ids [n, F]`, followed by the same column of `more_ids [m, F]`, if there are any
/// (decoupled embeddings: behaviours, then candidates).
#[non_exhaustive]
pub struct IdColumn<'a, S: Memory> {
    /// `[n, F]`.
    pub ids: View<'a, S, u32>,
    /// `[m, F]`: positions `n..n + m`.
    pub more_ids: Option<View<'a, S, u32>>,
    /// `F`.
    pub features: usize,
    /// Which column.
    pub feature: usize,
    /// The number of rows of the table that the ids name.
    pub rows: usize,
    /// What happens to ids outside the table: an error, or they are left out (such an id has no gradient).
    pub policy: IdPolicy,
}

/// A column of ids in order, each id with the positions that hold it: what
/// [`sort_ids_into`](crate::LookupOps::sort_ids_into) wrote.
///
/// Positions of equal ids ascend (the sort is stable), so sums over them have a fixed order. One serves every table that is read
/// with these ids, and every backward pass over them.
#[non_exhaustive]
pub struct SortedIds<'a, S: Memory> {
    /// `[capacity]`: the different ids, ascending.
    pub ids: View<'a, S, u32>,
    /// `[capacity + 1]`: the positions of id `i` are `positions[starts[i]..starts[i + 1]]`.
    pub starts: View<'a, S, u32>,
    /// `[n + m]`, or more.
    pub positions: View<'a, S, u32>,
    /// `[1]`: how many different ids there are.
    pub count: View<'a, S, u32>,
}

/// [`SortedIds`] to be written. What lies beyond the count of ids, and beyond the number of positions, is not written.
#[non_exhaustive]
pub struct SortedIdsMut<'a, S: Memory> {
    /// `[capacity]`; a capacity of `min(n + m, rows)` always suffices, and is asked for.
    pub ids: ViewMut<'a, S, u32>,
    /// `[capacity + 1]`.
    pub starts: ViewMut<'a, S, u32>,
    /// `[n + m]`, or more.
    pub positions: ViewMut<'a, S, u32>,
    /// `[1]`.
    pub count: ViewMut<'a, S, u32>,
}

/// The owned buffers of [`SortedIds`].
#[non_exhaustive]
pub struct SortedIdsBuffers<S: Memory> {
    /// `[capacity]`.
    pub ids: S::Buffer<u32>,
    /// `[capacity + 1]`.
    pub starts: S::Buffer<u32>,
    /// `[n + m]`, or more.
    pub positions: S::Buffer<u32>,
    /// `[1]`.
    pub count: S::Buffer<u32>,
}

copy_views!(IdColumn, SortedIds);

impl<'a, S: Memory> IdColumn<'a, S> {
    /// Column `feature` of `ids [n, features]`, which name rows of a table of `rows` rows.
    pub fn new(ids: View<'a, S, u32>, features: usize, feature: usize, rows: usize) -> Self {
        Self { ids, more_ids: None, features, feature, rows, policy: IdPolicy::default() }
    }

    /// Appends the same column of other ids `[m, features]`.
    pub fn with_more_ids(self, more_ids: View<'a, S, u32>) -> Self {
        Self { more_ids: Some(more_ids), ..self }
    }

    /// Sets what happens to ids outside the table.
    pub fn with_policy(self, policy: IdPolicy) -> Self {
        Self { policy, ..self }
    }

    /// Checks the column and returns `n + m`, the number of its positions.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a feature that is not one of `features`; [`Error::Shape`] for ids that are not whole rows;
    /// [`Error::Limit`] for more positions than a `u32` can tell apart.
    pub fn check(&self) -> Result<usize> {
        let features = self.features;
        if self.feature >= features {
            let (expected, got) = (format!("one of {features} features"), format!("{}", self.feature));
            return Err(Error::Parameter { operation: NAME, argument: "feature", expected, got });
        }
        let rows = |argument, ids: Option<View<'_, S, u32>>| {
            let length = ids.map_or(0, |ids| ids.len());
            expect(NAME, argument, length, &[dim("N", length / features), dim("F", features)])?;
            Ok(length / features)
        };
        let positions = rows("ids", Some(self.ids))?.saturating_add(rows("more_ids", self.more_ids)?);
        let limit = u64::from(u32::MAX);
        if positions as u64 > limit {
            return Err(Error::Limit { operation: NAME, argument: "ids", needed: positions as u64, limit });
        }
        Ok(positions)
    }

    /// The number of different ids that there can be: `min(n + m, rows)`.
    ///
    /// # Errors
    /// Those of [`check`](Self::check).
    pub fn capacity(&self) -> Result<usize> {
        Ok(self.check()?.min(self.rows))
    }

    /// Checks the column and where it is to be written, and returns the number of positions.
    ///
    /// # Errors
    /// Those of [`check`](Self::check); [`Error::Shape`] for an output that is too small.
    pub fn check_outputs(&self, out: &SortedIdsMut<'_, S>) -> Result<usize> {
        let positions = self.check()?;
        let lengths = [out.ids.len(), out.starts.len(), out.positions.len(), out.count.len()];
        check_lengths(NAME, ["ids", "starts", "positions", "count"], lengths, positions.min(self.rows))?;
        if out.positions.len() < positions {
            return Err(too_small(NAME, "positions", positions, out.positions.len()));
        }
        Ok(positions)
    }
}

impl<'a, S: Memory> SortedIds<'a, S> {
    /// Ids `[capacity]`, starts `[capacity + 1]`, positions, count `[1]`.
    pub fn new(
        ids: View<'a, S, u32>,
        starts: View<'a, S, u32>,
        positions: View<'a, S, u32>,
        count: View<'a, S, u32>,
    ) -> Self {
        Self { ids, starts, positions, count }
    }

    /// Checks the sizes; what the buffers hold is checked where they are.
    pub(crate) fn check(&self, operation: &'static str) -> Result<()> {
        let lengths = [self.ids.len(), self.starts.len(), self.positions.len(), self.count.len()];
        check_lengths(operation, ["sorted"; 4], lengths, 0)
    }
}

impl<'a, S: Memory> SortedIdsMut<'a, S> {
    /// Ids `[capacity]`, starts `[capacity + 1]`, positions `[n + m]`, count `[1]`.
    pub fn new(
        ids: ViewMut<'a, S, u32>,
        starts: ViewMut<'a, S, u32>,
        positions: ViewMut<'a, S, u32>,
        count: ViewMut<'a, S, u32>,
    ) -> Self {
        Self { ids, starts, positions, count }
    }
}

impl<S: Memory> SortedIdsBuffers<S> {
    /// Buffers `[capacity]`, `[capacity + 1]`, `[n + m]` and `[1]`.
    pub fn new(
        ids: S::Buffer<u32>,
        starts: S::Buffer<u32>,
        positions: S::Buffer<u32>,
        count: S::Buffer<u32>,
    ) -> Self {
        Self { ids, starts, positions, count }
    }

    /// Views of the buffers for reading.
    pub fn sorted(&self) -> SortedIds<'_, S> {
        let (ids, starts) = (View::new(S::data(&self.ids)), View::new(S::data(&self.starts)));
        SortedIds::new(ids, starts, View::new(S::data(&self.positions)), View::new(S::data(&self.count)))
    }

    /// Views of the buffers for writing.
    pub fn sorted_mut(&mut self) -> SortedIdsMut<'_, S> {
        let ids = ViewMut::new(S::data_mut(&mut self.ids));
        let starts = ViewMut::new(S::data_mut(&mut self.starts));
        let positions = ViewMut::new(S::data_mut(&mut self.positions));
        SortedIdsMut::new(ids, starts, positions, ViewMut::new(S::data_mut(&mut self.count)))
    }
}

/// Checks the lengths of ids, starts, positions and count.
fn check_lengths(
    operation: &'static str,
    names: [&'static str; 4],
    [ids, starts, _, count]: [usize; 4],
    least: usize,
) -> Result<()> {
    if ids < least {
        return Err(too_small(operation, names[0], least, ids));
    }
    expect(operation, names[1], starts, &[dim("capacity + 1", ids.saturating_add(1))])?;
    expect(operation, names[3], count, &[dim("count", 1)])?;
    Ok(())
}

fn too_small(operation: &'static str, argument: &'static str, least: usize, got: usize) -> Error {
    let (expected, got) = (format!("at least {least} elements"), format!("{got} elements"));
    Error::Shape { operation, argument, expected, got }
}
