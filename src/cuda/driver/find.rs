//! Finds the driver, and checks that driver and device are recent enough.

use cudarc::driver::{CudaContext, sys};

use crate::cuda::driver::error::driver_error;
use crate::error::{Error, Result};

/// The oldest driver with every function used here, as `cuDriverGetVersion` numbers it: CUDA 11.4.
const OLDEST_DRIVER: i32 = 11_040;
/// The oldest compute capability whose instructions the kernels use: Ampere.
const OLDEST_CAPABILITY: (i32, i32) = (8, 0);

/// Whether the driver's library can be loaded. cudarc panics if it cannot.
fn library_present() -> bool {
    let names = [libloading::library_filename("cuda"), "libcuda.so.1".into(), "nvcuda.dll".into()];
    // SAFETY: loading the driver's library runs its initialisers, which is what the caller asks for; cudarc loads the
    // same library right after and keeps it.
    names.into_iter().any(|name| unsafe { libloading::Library::new(name) }.is_ok())
}

/// Fails if there is no driver, or one that is too old.
pub(in crate::cuda) fn find_driver(operation: &'static str) -> Result<()> {
    if !library_present() {
        let reason = "the NVIDIA driver's library libcuda.so (nvcuda.dll) cannot be loaded".into();
        return Err(Error::NoCudaDriver { reason });
    }
    let mut version = 0;
    // SAFETY: the function writes one integer to the address, which is that of one.
    let status = unsafe { sys::cuDriverGetVersion(&mut version) };
    status.result().map_err(|error| driver_error(operation, error))?;
    if version < OLDEST_DRIVER {
        return Err(Error::Unsupported {
            operation,
            what: format!("a driver for CUDA {}.{}", version / 1000, version % 1000 / 10),
            supported: "drivers for CUDA 11.4 and later".into(),
        });
    }
    Ok(())
}

/// Fails if the device is older than Ampere.
pub(in crate::cuda) fn check_capability(operation: &'static str, context: &CudaContext) -> Result<()> {
    let capability = context.compute_capability().map_err(|error| driver_error(operation, error))?;
    if capability >= OLDEST_CAPABILITY {
        return Ok(());
    }
    Err(Error::Unsupported {
        operation,
        what: format!("a GPU of compute capability {}.{}", capability.0, capability.1),
        supported: "8.0 (Ampere) and later".into(),
    })
}
