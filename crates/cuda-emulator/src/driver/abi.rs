//! The C types of the interface, wrapped so that pointers are checked for null before use.
//!
//! The wrappers have the layout of the C types they stand for. Values of them come from C callers alone, which
//! promise, by the driver API's contract, that a pointer is null or valid for the call; that promise is what the
//! `unsafe` blocks here rest on.

use std::ffi::{CStr, c_char, c_void};

use crate::error::CudaError;

/// `CUresult`: 0, or the code of a [`CudaError`].
pub(super) type CUresult = u32;
/// `CUdevice`.
pub(super) type CUdevice = i32;
/// `CUdeviceptr`.
pub(super) type CUdeviceptr = u64;
/// `CUcontext`, `CUstream`, `CUevent` and the other opaque pointers. The emulator hands out numbers, never
/// addresses, so a stale or made-up handle is found out instead of followed.
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

    /// Stores the value unless the caller passed null to say that it does not want it.
    pub(super) fn set_if_wanted(self, value: T) {
        if !self.0.is_null() {
            // SAFETY: not null, and a C caller promises room for a `T`. It may be unaligned in C's eyes only.
            unsafe { self.0.write_unaligned(value) };
        }
    }

    /// Reads the value there.
    pub(super) fn get(self) -> Result<T, CudaError> {
        if self.0.is_null() {
            return Err(CudaError::InvalidValue);
        }
        // SAFETY: not null, and a C caller promises a `T` there.
        Ok(unsafe { self.0.read_unaligned() })
    }

    /// The element `index` of the array that the pointer begins.
    pub(super) fn at(self, index: usize) -> Self {
        Self(self.0.wrapping_add(index))
    }

    pub(super) fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The same address with another type behind it.
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
        // SAFETY: not null, and a C caller promises a NUL-terminated string.
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

// SAFETY: the address is only followed inside calls whose caller vouches for it; a graph keeps it between them,
// and its maker must keep the memory alive, as with the real driver.
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
        // SAFETY: not null, and a C caller promises `length` bytes. They may change under us if another thread of
        // the caller writes them, which is that caller's race; hence a copy, not a slice.
        unsafe { std::ptr::copy_nonoverlapping(self.0.cast::<u8>(), bytes.as_mut_ptr(), length) };
        Ok(bytes)
    }

    /// Overwrites as many bytes as `bytes` has.
    pub(super) fn write(self, bytes: &[u8]) -> Result<(), CudaError> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.0.is_null() {
            return Err(CudaError::InvalidValue);
        }
        // SAFETY: not null, and a C caller promises room for as many bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.cast::<u8>(), bytes.len()) };
        Ok(())
    }

    /// The bytes of a NUL-terminated string that begins here.
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
