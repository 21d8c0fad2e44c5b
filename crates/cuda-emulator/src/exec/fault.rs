//! A failed check, before it is known which kernel and line it belongs to.

use super::finding::FindingKind;

/// What the interpreter turns into a [`super::Finding`].
#[derive(Debug)]
pub(crate) struct FaultInfo {
    pub(crate) kind: FindingKind,
    /// The lane of the running warp, or the thread of the block where `whole_block` holds.
    pub(crate) lane: usize,
    pub(crate) address: Option<u64>,
    pub(crate) message: String,
}

/// Boxed, so that results stay small.
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
