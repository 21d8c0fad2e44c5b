//! "Error Handling".

use std::ffi::c_char;

use super::abi::{CUresult, Out};
use super::entry::always;
use crate::error::CudaError;

/// A name or description with the lifetime of the library.
type Static = *const c_char;

fn describe(
    code: u32,
    out: Out<Static>,
    success: &'static std::ffi::CStr,
    of: impl Fn(CudaError) -> &'static std::ffi::CStr,
) -> Result<(), CudaError> {
    match CudaError::from_code(code) {
        Some(error) => out.set(of(error).as_ptr()),
        None if code == 0 => out.set(success.as_ptr()),
        None => {
            out.set(std::ptr::null())?;
            Err(CudaError::InvalidValue)
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorName(code: u32, out: Out<Static>) -> CUresult {
    always("cuGetErrorName", |_| describe(code, out, c"CUDA_SUCCESS", CudaError::name))
}

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorString(code: u32, out: Out<Static>) -> CUresult {
    always("cuGetErrorString", |_| describe(code, out, c"no error", CudaError::text))
}
