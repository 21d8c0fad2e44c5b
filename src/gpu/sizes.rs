//! Sizes as kernels receive them: 32-bit integers, of which the largest stands for "none".

use crate::error::{Error, Result};

/// The value that stands for "none" in kernels.
pub(crate) const NONE: u32 = u32::MAX;

/// `value` as a `u32` below [`NONE`], or [`Error::Limit`].
pub(crate) fn fit(operation: &'static str, argument: &'static str, value: usize) -> Result<u32> {
    let limit = NONE - 1;
    u32::try_from(value).ok().filter(|&value| value <= limit).ok_or(Error::Limit {
        operation,
        argument,
        needed: value as u64,
        limit: limit.into(),
    })
}
