//! A list of kept entries, one for each range.

use crate::error::{Error, Result};
use crate::host::reserve;

/// The kept entry of each range, each at most once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slots {
    pub(super) of_ranges: Vec<u32>,
    pub(super) count: usize,
}

impl Slots {
    /// Names the entries of as many ranges, which errors call `argument`.
    pub(super) fn new(
        operation: &'static str,
        argument: &'static str,
        slots: &[u32],
        count: usize,
    ) -> Result<Self> {
        if let Some(position) = slots.iter().position(|&slot| slot as usize >= count) {
            let (position, id, bound) = (position as u64, slots[position].into(), count as u64);
            return Err(Error::IndexOutOfRange { operation, argument, position, id, bound });
        }
        let mut order = reserve(operation, slots.len())?;
        order.extend(slots.iter().zip(0usize..));
        order.sort_unstable();
        if let Some(&[(slot, first), (_, second)]) =
            order.windows(2).find(|pair| pair[0].0 == pair[1].0).and_then(|pair| pair.first_chunk())
        {
            let (expected, got) = ("each slot once".into(), format!("{slot} at {first} and {second}"));
            return Err(Error::Parameter { operation, argument, expected, got });
        }
        let mut of_ranges = reserve(operation, slots.len())?;
        of_ranges.extend_from_slice(slots);
        Ok(Self { of_ranges, count })
    }
}
