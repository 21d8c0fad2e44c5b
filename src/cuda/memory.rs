//! Buffers and views in CUDA memory.

use std::marker::PhantomData;
use std::sync::Arc;

use cudarc::driver::{CudaStream, DevicePtr, DevicePtrMut, SyncOnDrop};

use crate::cuda::Cuda;
use crate::cuda::launch::Allocation;
use crate::element::Scalar;
use crate::error::{Error, Result};
use crate::memory::{Memory, View, ViewMut};

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
/// It is freed in the stream's order: dropping it while work that uses it is still enqueued is fine.
#[derive(Debug)]
pub struct CudaBuffer<T: Scalar> {
    pointer: u64,
    length: usize,
    stream: Arc<CudaStream>,
    /// `None` where a [`CudaSlice`](cudarc::driver::CudaSlice) of the caller's owns the memory.
    _owned: Option<Allocation>,
    element: PhantomData<T>,
}

impl<T: Scalar> CudaBuffer<T> {
    pub(super) fn allocated(allocation: Allocation, length: usize, stream: Arc<CudaStream>) -> Self {
        Self { pointer: allocation.pointer(), length, stream, _owned: Some(allocation), element: PhantomData }
    }

    /// The address of the first element on the device, for the caller's own kernels on the same stream.
    pub fn device_pointer(&self) -> u64 {
        self.pointer
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// The caller's own slice, read as it is: see [`Cuda::borrow`](crate::Cuda::borrow).
#[derive(Debug)]
pub struct CudaBorrow<'a, T: Scalar> {
    buffer: CudaBuffer<T>,
    /// Tells cudarc, when dropped, that the stream has read the slice up to here.
    _read: SyncOnDrop<'a>,
}

impl<T: Scalar> CudaBorrow<'_, T> {
    /// A view of the slice.
    pub fn view(&self) -> View<'_, CudaMemory, T> {
        View::new(&self.buffer)
    }
}

/// The caller's own slice, written as it is: see [`Cuda::borrow_mut`](crate::Cuda::borrow_mut).
#[derive(Debug)]
pub struct CudaBorrowMut<'a, T: Scalar> {
    buffer: CudaBuffer<T>,
    /// Tells cudarc, when dropped, that the stream has written the slice up to here.
    _written: SyncOnDrop<'a>,
}

impl<T: Scalar> CudaBorrowMut<'_, T> {
    /// A view of the slice, to read.
    pub fn view(&self) -> View<'_, CudaMemory, T> {
        View::new(&self.buffer)
    }

    /// A view of the slice, to write.
    pub fn view_mut(&mut self) -> ViewMut<'_, CudaMemory, T> {
        ViewMut::new(&mut self.buffer)
    }
}

/// What a view covers, as the launch code handles it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Region<T: Scalar> {
    pub(crate) pointer: u64,
    pub(crate) length: usize,
    element: PhantomData<T>,
}

impl<T: Scalar> Region<T> {
    /// Whether rows of `width` elements can be read `bytes` bytes at a time.
    pub(crate) fn vectors(&self, width: usize, bytes: usize) -> bool {
        self.pointer.is_multiple_of(bytes as u64) && (width * size_of::<T>()).is_multiple_of(bytes)
    }
}

impl Cuda {
    /// Reads a slice, or a part of one, of the caller's as it is, without a copy.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where it belongs to another stream than [`stream`](Self::stream): work on one stream
    /// does not wait for another's. Make a backend [from](Self::from_stream) that stream instead.
    pub fn borrow<'a, T: Scalar>(&'a self, slice: &'a impl DevicePtr<T>) -> Result<CudaBorrow<'a, T>> {
        self.check_stream("borrow", slice.stream())?;
        let length = slice.len();
        let (pointer, read) = slice.device_ptr(self.stream());
        Ok(CudaBorrow { buffer: self.foreign(pointer, length), _read: read })
    }

    /// Writes a slice, or a part of one, of the caller's as it is, without a copy.
    ///
    /// # Errors
    /// As [`borrow`](Self::borrow).
    pub fn borrow_mut<'a, T: Scalar>(
        &'a self,
        slice: &'a mut impl DevicePtrMut<T>,
    ) -> Result<CudaBorrowMut<'a, T>> {
        self.check_stream("borrow_mut", slice.stream())?;
        let length = slice.len();
        let (pointer, written) = slice.device_ptr_mut(self.stream());
        Ok(CudaBorrowMut { buffer: self.foreign(pointer, length), _written: written })
    }

    fn foreign<T: Scalar>(&self, pointer: u64, length: usize) -> CudaBuffer<T> {
        CudaBuffer { pointer, length, stream: self.stream().clone(), _owned: None, element: PhantomData }
    }

    pub(super) fn check_stream(&self, operation: &'static str, stream: &CudaStream) -> Result<()> {
        if stream == &**self.stream() {
            return Ok(());
        }
        Err(Error::Unsupported {
            operation,
            what: "memory of another stream".into(),
            supported: "memory of the backend's own stream".into(),
        })
    }

    /// What a view covers. Views of another backend's buffers are refused: nothing would order the two streams.
    pub(super) fn region<T: Scalar>(
        &self,
        operation: &'static str,
        view: &View<'_, CudaMemory, T>,
    ) -> Result<Region<T>> {
        self.part(operation, view.data(), view.start(), view.len())
    }

    /// As [`region`](Self::region), for an output.
    pub(super) fn region_mut<T: Scalar>(
        &self,
        operation: &'static str,
        view: &ViewMut<'_, CudaMemory, T>,
    ) -> Result<Region<T>> {
        self.part(operation, view.data(), view.start(), view.len())
    }

    fn part<T: Scalar>(
        &self,
        operation: &'static str,
        buffer: &CudaBuffer<T>,
        start: usize,
        length: usize,
    ) -> Result<Region<T>> {
        self.check_stream(operation, &buffer.stream)?;
        let pointer = buffer.pointer + (start * size_of::<T>()) as u64;
        Ok(Region { pointer, length, element: PhantomData })
    }
}
