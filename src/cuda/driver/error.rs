//! Errors of the driver as errors of this crate.

use cudarc::driver::DriverError;

use crate::error::Error;

/// The crate's error for a driver error during `operation`.
pub(in crate::cuda) fn driver_error(operation: &'static str, error: DriverError) -> Error {
    let name = error.error_name().map_or_else(|_| "unknown".into(), |name| name.to_string_lossy().into());
    Error::Driver { operation, code: error.0 as u32, name }
}
