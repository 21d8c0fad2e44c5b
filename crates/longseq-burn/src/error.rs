//! Errors in longseq's type and words.

use longseq::Error;

/// What an argument should have been, and what it was.
pub(crate) fn wrong(
    operation: &'static str,
    argument: &'static str,
    expected: impl Into<String>,
    got: impl Into<String>,
) -> Error {
    Error::Shape { operation, argument, expected: expected.into(), got: got.into() }
}
