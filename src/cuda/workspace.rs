//! The workspace: memory from which calls take their scratch.

use crate::cuda::memory::CudaBuffer;

/// Memory from which calls take their scratch, one call at a time.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    pub(super) buffer: Option<CudaBuffer<u8>>,
    /// The most bytes that a call has used.
    pub(super) most: usize,
}
