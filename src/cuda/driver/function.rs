//! Kernels of a module, and their launches.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytemuck::Pod;
use cudarc::driver::sys::{self, CUfunction_attribute};
use cudarc::driver::{CudaStream, result};

use crate::cuda::driver::context::bind;
use crate::cuda::driver::error::driver_error;
use crate::cuda::driver::module::Module;
use crate::error::{Error, Result};

/// Shared memory that a block may have before the driver must be asked for more.
const SHARED_BY_DEFAULT: u32 = 48 << 10;
/// The most blocks in the first dimension of a grid.
const MOST_BLOCKS: u64 = (1 << 31) - 1;

/// The parameter of a launch, kept until it is enqueued.
#[derive(Debug)]
pub(in crate::cuda) struct Arguments(Box<[u64]>);

impl Arguments {
    /// A copy.
    pub(in crate::cuda) fn new<P: Pod>(params: &P) -> Self {
        let bytes = bytemuck::bytes_of(params);
        let mut words = vec![0u64; bytes.len().div_ceil(size_of::<u64>())];
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Self(words.into())
    }
}

/// A kernel of a loaded module.
#[derive(Debug)]
pub(in crate::cuda) struct Function {
    function: sys::CUfunction,
    module: Arc<Module>,
    /// Bytes of dynamic shared memory that the driver has been asked to allow.
    shared_allowed: AtomicU32,
}

// SAFETY: the handle names an object of the driver, whose functions may be called from any thread.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

impl Function {
    /// The kernel `name` of `module`, whose only parameter is a `P`.
    pub(in crate::cuda) fn find<P: Pod>(
        module: &Arc<Module>,
        operation: &'static str,
        name: &str,
    ) -> Result<Self> {
        let broken = |message: String| Error::Device { operation, message };
        match module.parameters.get(name) {
            Some(&bytes) if bytes == size_of::<P>() => {}
            Some(bytes) => {
                let needed = size_of::<P>();
                return Err(broken(format!("kernel {name} takes {bytes} bytes of parameters, not {needed}")));
            }
            None => return Err(broken(format!("there is no kernel {name} in the PTX"))),
        }
        bind(&module.context).map_err(|error| driver_error(operation, error))?;
        let function = module.find(operation, name)?;
        Ok(Self { function, module: module.clone(), shared_allowed: AtomicU32::new(SHARED_BY_DEFAULT) })
    }

    /// Checks a grid, and asks the driver for the dynamic shared memory of a block.
    pub(in crate::cuda) fn prepare(&self, operation: &'static str, blocks: u64, shared: u32) -> Result<()> {
        if blocks > MOST_BLOCKS {
            return Err(Error::Limit { operation, argument: "blocks", needed: blocks, limit: MOST_BLOCKS });
        }
        let failed = |error| driver_error(operation, error);
        bind(&self.module.context).map_err(failed)?;
        if shared > self.shared_allowed.load(Ordering::Relaxed) {
            let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is loaded.
            unsafe { result::function::set_function_attribute(self.function, most, shared as i32) }
                .map_err(failed)?;
            self.shared_allowed.fetch_max(shared, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Enqueues the kernel: `blocks` blocks of `threads` threads with `shared` bytes of dynamic shared memory each, as
    /// [prepared](Self::prepare).
    ///
    /// The arguments are of the type that the kernel was looked up with, and every address in them points to memory of this stream, as
    /// large as the kernel takes it to be.
    pub(in crate::cuda) fn launch(
        &self,
        stream: &CudaStream,
        operation: &'static str,
        blocks: u64,
        threads: u32,
        shared: u32,
        arguments: &Arguments,
    ) -> Result<()> {
        let failed = |error| driver_error(operation, error);
        bind(&self.module.context).map_err(failed)?;
        let mut arguments = [arguments.0.as_ptr().cast_mut().cast::<c_void>()];
        // SAFETY: the kernel takes one parameter of this size, as checked when it was looked up, and the driver
        // copies it before it returns; the addresses in it are valid by this function's contract.
        unsafe {
            result::launch_kernel(
                self.function,
                (blocks as u32, 1, 1),
                (threads, 1, 1),
                shared,
                stream.cu_stream(),
                &mut arguments,
            )
        }
        .map_err(failed)
    }
}
