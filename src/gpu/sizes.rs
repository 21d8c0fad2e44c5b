//! Sizes as kernels receive them: 32-bit integers, of which the largest stands for "none".

use crate::error::{Error, Result};
use crate::ops::DIN_LAYERS;

/// The value that stands for "none" in kernels.
pub(crate) const NONE: u32 = u32::MAX;

/// The largest number of units of a hidden layer of DIN that the kernels support.
const MAX_UNITS: usize = 256;

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

/// Checks that the kernels support the hidden layers of DIN's network.
pub(crate) fn check_units(operation: &'static str, units: &[usize]) -> Result<()> {
    match units.iter().zip(&DIN_LAYERS).find(|&(&units, _)| units > MAX_UNITS) {
        None => Ok(()),
        Some((&units, names)) => {
            let (needed, limit) = (units as u64, MAX_UNITS as u64);
            Err(Error::Limit { operation, argument: names.bias, needed, limit })
        }
    }
}
