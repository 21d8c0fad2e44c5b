//! Modules: PTX compiled by the driver.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::sys::{self, CUjit_option};
use cudarc::driver::{CudaContext, result};

use crate::cuda::driver::context::bind;
use crate::cuda::driver::error::driver_error;
use crate::error::{Error, Result};

/// Kernels compiled from one PTX text.
#[derive(Debug)]
pub(in crate::cuda) struct Module {
    pub(super) module: sys::CUmodule,
    /// Size in bytes of the only parameter of each kernel.
    pub(super) parameters: HashMap<String, usize>,
    pub(super) context: Arc<CudaContext>,
}

// SAFETY: the handle names an object of the driver, whose functions may be called from any thread.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Module {
    /// Has the driver compile a PTX text: the crate's own, or one that the caller of `from_ptx` vouches for.
    pub(in crate::cuda) fn load(
        context: &Arc<CudaContext>,
        operation: &'static str,
        text: &str,
    ) -> Result<Self> {
        bind(context).map_err(|error| driver_error(operation, error))?;
        let broken = |message: String| Error::Device { operation, message };
        let text_end = CString::new(text).map_err(|_| broken("PTX with a zero byte inside".into()))?;
        let mut log = vec![0u8; 4096];
        let mut options =
            [CUjit_option::CU_JIT_ERROR_LOG_BUFFER, CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), log.len() as *mut c_void];
        let mut module = std::ptr::null_mut();
        // SAFETY: the text ends in a zero; the two options and their values are as the driver's interface describes
        // them, and the log outlives the call.
        let status = unsafe {
            let image = text_end.as_ptr().cast::<c_void>();
            sys::cuModuleLoadDataEx(&mut module, image, 2, options.as_mut_ptr(), values.as_mut_ptr())
        };
        match status.result() {
            Ok(()) => Ok(Self { module, parameters: parameters(text), context: context.clone() }),
            Err(error) => {
                let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
                match String::from_utf8_lossy(&log[..end]).trim() {
                    "" => Err(driver_error(operation, error)),
                    message => Err(broken(message.into())),
                }
            }
        }
    }
}

impl Module {
    /// The entry of this name, in the current context.
    pub(super) fn find(&self, operation: &'static str, name: &str) -> Result<sys::CUfunction> {
        let broken = |_| Error::Device { operation, message: format!("kernel name {name:?}") };
        let entry = CString::new(name).map_err(broken)?;
        // SAFETY: the module is loaded.
        unsafe { result::module::get_function(self.module, entry) }
            .map_err(|error| driver_error(operation, error))
    }

    /// Asks for every entry, so that the driver has loaded it.
    pub(in crate::cuda) fn find_all(&self, operation: &'static str) -> Result<()> {
        bind(&self.context).map_err(|error| driver_error(operation, error))?;
        self.parameters.keys().try_for_each(|name| self.find(operation, name).map(drop))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        self.context.record_err(bind(&self.context));
        // SAFETY: loaded, unloaded once, and every `Function` keeps its module.
        self.context.record_err(unsafe { result::module::unload(self.module) });
    }
}

/// The size of each kernel's parameter, read from `.entry NAME(.param .align 8 .b8 NAME_param_0[SIZE])`. Kernels with
/// anything else are left out.
fn parameters(text: &str) -> HashMap<String, usize> {
    let entries = text.split(".entry").skip(1);
    let one = |entry: &str| {
        let (name, rest) = entry.split_once('(')?;
        let list = rest.split_once(')')?.0;
        if list.matches(".param").count() != 1 {
            return None;
        }
        let size = list.split_once('[')?.1.split_once(']')?.0.trim().parse().ok()?;
        Some((name.trim().to_owned(), size))
    };
    entries.filter_map(one).collect()
}
