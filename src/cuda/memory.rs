//! Buffers in CUDA memory, and the regions of them that kernels access.

use std::marker::PhantomData;
use std::sync::Arc;

use cudarc::driver::CudaStream;

use crate::cuda::driver::Allocation;
use crate::element::Scalar;
use crate::memory::Memory;

/// The memory of a CUDA device.
#[derive(Debug, Clone, Copy)]
pub struct CudaMemory;

impl Memory for CudaMemory {
    type Buffer<T: Scalar> = CudaBuffer<T>;
    type Data<T: Scalar> = CudaBuffer<T>;

    fn data<T: Scalar>(buffer: &CudaBuffer<T>) -> &CudaBuffer<T> {
        buffer
    }

    fn data_mut<T: Scalar>(buffer: &mut CudaBuffer<T>) -> &mut CudaBuffer<T> {
        buffer
    }

    fn length<T: Scalar>(data: &CudaBuffer<T>) -> usize {
        data.length
    }
}

/// Elements of type `T` on a CUDA device, for work on one stream.
///
/// It is freed in stream order: it may be dropped while work that uses it is still enqueued.
#[derive(Debug)]
pub struct CudaBuffer<T: Scalar> {
    pointer: u64,
    length: usize,
    stream: Arc<CudaStream>,
    /// `None` if a [`CudaSlice`](cudarc::driver::CudaSlice) of the caller owns the memory.
    _owned: Option<Allocation>,
    element: PhantomData<T>,
}

impl<T: Scalar> CudaBuffer<T> {
    pub(super) fn allocated(allocation: Allocation, length: usize, stream: Arc<CudaStream>) -> Self {
        Self { pointer: allocation.pointer(), length, stream, _owned: Some(allocation), element: PhantomData }
    }

    /// A buffer over memory that the caller owns.
    pub(super) fn foreign(pointer: u64, length: usize, stream: Arc<CudaStream>) -> Self {
        Self { pointer, length, stream, _owned: None, element: PhantomData }
    }

    pub(super) fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// The address of the first element on the device, for the caller's own kernels on the same stream.
    pub fn device_pointer(&self) -> u64 {
        self.pointer
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// The memory that a view covers: an address and a length.
#[derive(Debug, Clone, Copy)]
pub(in crate::cuda) struct Region<T: Scalar> {
    pub(in crate::cuda) pointer: u64,
    pub(in crate::cuda) length: usize,
    element: PhantomData<T>,
}

impl<T: Scalar> Region<T> {
    pub(in crate::cuda) fn new(pointer: u64, length: usize) -> Self {
        Self { pointer, length, element: PhantomData }
    }

    /// Whether rows of `width` elements are aligned to `bytes` bytes, so that kernels may load as many at a time.
    pub(in crate::cuda) fn vectors(&self, width: usize, bytes: usize) -> bool {
        self.pointer.is_multiple_of(bytes as u64) && (width * size_of::<T>()).is_multiple_of(bytes)
    }
}
