//! Slices of the caller's, used in place.

use cudarc::driver::{DevicePtr, DevicePtrMut, SyncOnDrop};

use crate::cuda::driver::check_not_captured;
use crate::cuda::handle::Cuda;
use crate::cuda::memory::{CudaBuffer, CudaMemory};
use crate::element::Scalar;
use crate::error::Result;
use crate::memory::{View, ViewMut};

/// The caller's own slice, read in place: see [`Cuda::borrow`](crate::Cuda::borrow).
#[derive(Debug)]
pub struct CudaBorrow<'a, T: Scalar> {
    buffer: CudaBuffer<T>,
    /// When dropped, tells cudarc how far the stream has read the slice.
    _read: SyncOnDrop<'a>,
}

impl<T: Scalar> CudaBorrow<'_, T> {
    /// A view of the slice.
    pub fn view(&self) -> View<'_, CudaMemory, T> {
        View::new(&self.buffer)
    }
}

/// The caller's own slice, written in place: see [`Cuda::borrow_mut`](crate::Cuda::borrow_mut).
#[derive(Debug)]
pub struct CudaBorrowMut<'a, T: Scalar> {
    buffer: CudaBuffer<T>,
    /// When dropped, tells cudarc how far the stream has written the slice.
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

impl Cuda {
    /// Reads a slice of the caller's, or part of one, in place, without a copy.
    ///
    /// # Errors
    /// [`Unsupported`](crate::Error::Unsupported) if it belongs to a stream other than [`stream`](Self::stream): work on
    /// one stream does not wait for another. Make a backend [from](Self::from_stream) that stream instead. The same error while the stream is
    /// captured into a graph, since earlier uses of the slice cannot be waited for then.
    pub fn borrow<'a, T: Scalar>(&'a self, slice: &'a impl DevicePtr<T>) -> Result<CudaBorrow<'a, T>> {
        self.check_stream("borrow", slice.stream())?;
        check_not_captured(self.stream(), "borrow", "borrowing a slice")?;
        let length = slice.len();
        let (pointer, read) = slice.device_ptr(self.stream());
        Ok(CudaBorrow { buffer: CudaBuffer::foreign(pointer, length, self.stream().clone()), _read: read })
    }

    /// Writes a slice of the caller's, or part of one, in place, without a copy.
    ///
    /// # Errors
    /// As [`borrow`](Self::borrow).
    pub fn borrow_mut<'a, T: Scalar>(
        &'a self,
        slice: &'a mut impl DevicePtrMut<T>,
    ) -> Result<CudaBorrowMut<'a, T>> {
        self.check_stream("borrow_mut", slice.stream())?;
        check_not_captured(self.stream(), "borrow_mut", "borrowing a slice")?;
        let length = slice.len();
        let (pointer, written) = slice.device_ptr_mut(self.stream());
        Ok(CudaBorrowMut {
            buffer: CudaBuffer::foreign(pointer, length, self.stream().clone()),
            _written: written,
        })
    }
}
