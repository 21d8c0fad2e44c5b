//! Errors in candle's type and longseq's words.

use candle_core::{Error, Result};

/// What an argument should have been, and what it was.
pub(crate) fn wrong(
    operation: &'static str,
    argument: &'static str,
    expected: impl Into<String>,
    got: impl Into<String>,
) -> Error {
    let (expected, got) = (expected.into(), got.into());
    Error::wrap(longseq::Error::Shape { operation, argument, expected, got })
}

/// Turns errors of longseq into candle's, which keep their words.
pub(crate) trait Wrapped<T> {
    fn wrapped(self) -> Result<T>;
}

impl<T> Wrapped<T> for longseq::Result<T> {
    fn wrapped(self) -> Result<T> {
        self.map_err(Error::wrap)
    }
}
