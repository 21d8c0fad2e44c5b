//! The windows of shared, local and parameter memory in the generic address space ("Generic Addressing"). Generic
//! addresses of device and constant memory equal their own addresses, which are far below the windows.

/// Generic address of the first byte of shared memory.
pub(crate) const SHARED_BASE: u64 = 1 << 56;
/// Generic address of the first byte of a thread's local memory.
pub(crate) const LOCAL_BASE: u64 = 2 << 56;
/// Generic address of the first byte of the kernel's parameters.
pub(crate) const PARAMETER_BASE: u64 = 3 << 56;
/// Size of a window.
pub(crate) const WINDOW: u64 = 1 << 32;
