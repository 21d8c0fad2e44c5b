//! Where the windows of shared, local and parameter memory lie among generic addresses ("Generic Addressing").
//! Device and constant memory are addressed directly, far below.

/// Generic address of the first byte of shared memory.
pub(crate) const SHARED_BASE: u64 = 1 << 56;
/// Generic address of the first byte of a thread's local memory.
pub(crate) const LOCAL_BASE: u64 = 2 << 56;
/// Generic address of the first byte of the kernel's parameters.
pub(crate) const PARAMETER_BASE: u64 = 3 << 56;
/// Length of a window.
pub(crate) const WINDOW: u64 = 1 << 32;
