//! A failed check, before the kernel and the line are known.

use super::finding::FindingKind;

/// A failed check; the launch makes a [`super::Finding`] of it.
#[derive(Debug)]
pub(crate) struct FaultInfo {
    pub(crate) kind: FindingKind,
    /// The lane of the running warp.
    pub(crate) lane: usize,
    pub(crate) address: Option<u64>,
    pub(crate) message: String,
}

/// Boxed, to keep results small.
pub(crate) type Fault = Box<FaultInfo>;

/// Builds a fault.
pub(crate) fn fault<T>(
    kind: FindingKind,
    lane: usize,
    address: impl Into<Option<u64>>,
    message: impl Into<String>,
) -> Result<T, Fault> {
    Err(Box::new(FaultInfo { kind, lane, address: address.into(), message: message.into() }))
}
