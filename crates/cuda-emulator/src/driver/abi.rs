//! The C types of the interface, wrapped so that pointers are checked for null before use.
//!
//! The wrappers have the layout of the C types they represent. Their values come from C callers only, which guarantee, by
//! the contract of the driver API, that a pointer is null or valid for the call. The `unsafe` blocks here rely on that.

use std::ffi::{CStr, c_char, c_void};

use crate::error::CudaError;

/// `CUresult`: 0, or the code of a [`CudaError`].
pub(super) type CUresult = u32;
/// `CUdevice`.
pub(super) type CUdevice = i32;
/// `CUdeviceptr`.
pub(super) type CUdeviceptr = u64;
/// `CUcontext`, `CUstream`, `CUevent` and the other opaque pointers. The emulator hands out numbers, not addresses, so an
/// invalid handle is detected instead of dereferenced.
pub(super) type Handle = usize;

/// A pointer through which a call returns a value.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Out<T>(*mut T);

impl<T: Copy> Out<T> {
    /// Stores the value; null is an invalid argument.
    pub(super) fn set(self, value: T) -> Result<(), CudaError> {
        if self.0.is_null() {
            return Err(CudaError::InvalidValue);
        }
        self.set_if_wanted(value);
        Ok(())
    }

    /// Stores the value, unless the pointer is null because the caller does not need it.
    pub(super) fn set_if_wanted(self, value: T) {
        if !self.0.is_null() {
            // SAFETY: not null, and the C caller guarantees room for a `T`. The write does not require alignment.
            unsafe { self.0.write_unaligned(value) };
        }
    }

    /// Reads the value there.
    pub(super) fn get(self) -> Result<T, CudaError> {
        if self.0.is_null() {
            return Err(CudaError::InvalidValue);
        }
        // SAFETY: not null, and the C caller guarantees a `T` there.
        Ok(unsafe { self.0.read_unaligned() })
    }

    /// The pointer to element `index` of an array.
    pub(super) fn at(self, index: usize) -> Self {
        Self(self.0.wrapping_add(index))
    }

    pub(super) fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The same address as a pointer to another type.
    pub(super) fn cast<U>(self) -> Out<U> {
        Out(self.0.cast())
    }
}

/// A C string argument.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Text(*const c_char);

impl Text {
    /// The bytes before the NUL.
    pub(super) fn bytes(self) -> Result<Vec<u8>, CudaError> {
        if self.0.is_null() {
            return Err(CudaError::InvalidValue);
        }
        // SAFETY: not null, and the C caller guarantees a NUL-terminated string.
        Ok(unsafe { CStr::from_ptr(self.0) }.to_bytes().to_vec())
    }

    /// The string, which must be UTF-8.
    pub(super) fn string(self) -> Result<String, CudaError> {
        String::from_utf8(self.bytes()?).map_err(|_| CudaError::InvalidValue)
    }
}

/// Host memory that a call reads or writes.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Host(pub(super) *mut c_void);

// SAFETY: the address is only dereferenced inside calls whose caller guarantees its validity. A graph keeps it between
// calls, and its creator must keep the memory alive, as with the real driver.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

impl Host {
    /// The first `length` bytes, copied.
    pub(super) fn read(self, length: usize) -> Result<Vec<u8>, CudaError> {
        let mut bytes = vec![0; length];
        if length == 0 {
            return Ok(bytes);
        }
        if self.0.is_null() {
            return Err(CudaError::InvalidValue);
        }
        // SAFETY: not null, and the C caller guarantees `length` bytes. Another thread of the caller may write them
        // concurrently, so they are copied without creating a slice.
        unsafe { std::ptr::copy_nonoverlapping(self.0.cast::<u8>(), bytes.as_mut_ptr(), length) };
        Ok(bytes)
    }

    /// Writes `bytes`.
    pub(super) fn write(self, bytes: &[u8]) -> Result<(), CudaError> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.0.is_null() {
            return Err(CudaError::InvalidValue);
        }
        // SAFETY: not null, and the C caller guarantees room for that many bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.cast::<u8>(), bytes.len()) };
        Ok(())
    }

    /// The bytes of a NUL-terminated string at this address.
    pub(super) fn string_bytes(self) -> Result<Vec<u8>, CudaError> {
        Text(self.0.cast()).bytes()
    }

    pub(super) fn is_null(self) -> bool {
        self.0.is_null()
    }
}

impl<T> From<Host> for Out<T> {
    fn from(host: Host) -> Self {
        Self(host.0.cast())
    }
}
