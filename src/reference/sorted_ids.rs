//! The reference of sorting a column of ids. Definition: [`SortedIds`].

use crate::error::{Error, Result};
use crate::host::Host;
use crate::ops::*;

/// A column of ids in order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SortedIdsReference {
    /// The different ids, ascending.
    pub ids: Vec<u32>,
    /// `[ids.len() + 1]`: the positions of id `i` are `positions[starts[i]..starts[i + 1]]`.
    pub starts: Vec<u32>,
    /// The positions, by id, then ascending.
    pub positions: Vec<u32>,
}

/// [`sort_ids`](LookupOps::sort_ids), one id at a time.
///
/// # Errors
/// Those of [`IdColumn::check`]; [`IndexOutOfRange`](crate::Error::IndexOutOfRange) by [`IdPolicy`].
pub fn sort_ids(column: &IdColumn<'_, Host>) -> Result<SortedIdsReference> {
    column.check()?;
    let more = column.more_ids.as_ref().map_or(&[][..], |ids| ids.as_slice());
    let mut pairs = Vec::new();
    let mut position = 0;
    for (argument, ids) in [("ids", column.ids.as_slice()), ("more_ids", more)] {
        for (row, ids) in ids.chunks_exact(column.features).enumerate() {
            let id = ids[column.feature];
            if (id as usize) < column.rows {
                pairs.push((id, position));
            } else if column.policy == IdPolicy::Error {
                let place = (row * column.features + column.feature) as u64;
                let (id, bound) = (u64::from(id), column.rows as u64);
                return Err(Error::IndexOutOfRange {
                    operation: "sort_ids",
                    argument,
                    position: place,
                    id,
                    bound,
                });
            }
            position += 1;
        }
    }
    pairs.sort();
    let mut sorted = SortedIdsReference { ids: vec![], starts: vec![], positions: vec![] };
    for (id, position) in pairs {
        if sorted.ids.last() != Some(&id) {
            sorted.ids.push(id);
            sorted.starts.push(sorted.positions.len() as u32);
        }
        sorted.positions.push(position);
    }
    sorted.starts.push(sorted.positions.len() as u32);
    Ok(sorted)
}
