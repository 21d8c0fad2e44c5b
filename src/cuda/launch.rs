//! The driver: finding it, memory, copies, modules, launches. All unsafe code of the CUDA backend is in this file.
//!
//! What it relies on, and what the rest of the backend keeps to: device addresses come from [`Allocation`]s and from
//! the caller's slices of the same stream, sizes are checked before a launch, and everything is ordered by one stream.

#![expect(unsafe_code, reason = "the CUDA driver is a C library")]

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytemuck::Pod;
use cudarc::driver::sys::{self, CUfunction_attribute, CUjit_option};
use cudarc::driver::{CudaContext, CudaStream, DriverError, result};

use crate::cuda::faults::driver_error;
use crate::cuda::kernels::kernels;
use crate::cuda::{Cuda, check_capability, shipped};
use crate::error::{Error, Result};

/// The oldest driver that has every function used here, as `cuDriverGetVersion` counts: CUDA 11.4.
const OLDEST_DRIVER: i32 = 11_040;
/// Shared memory that a block may have without being allowed more first.
const SHARED_BY_DEFAULT: u32 = 48 << 10;
/// The most blocks in the first dimension of a grid.
const MOST_BLOCKS: u64 = (1 << 31) - 1;

/// Whether the driver's library can be loaded. cudarc panics where it cannot.
fn library_present() -> bool {
    let names = [libloading::library_filename("cuda"), "libcuda.so.1".into(), "nvcuda.dll".into()];
    // SAFETY: loading the driver's library runs its initialisers, which is what the caller asks for; cudarc loads the
    // same library right after and keeps it.
    names.into_iter().any(|name| unsafe { libloading::Library::new(name) }.is_ok())
}

/// Fails where there is no driver, or one too old.
pub(super) fn find_driver(operation: &'static str) -> Result<()> {
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

/// Makes the context the thread's. Unlike cudarc's own, this leaves what could not be returned, such as the error of a
/// free, to the next [`wait`]: it is no fault of the call that happens to come next.
fn bind(context: &CudaContext) -> std::result::Result<(), DriverError> {
    if result::ctx::get_current()? == Some(context.cu_ctx()) {
        return Ok(());
    }
    // SAFETY: the context lives as long as the `CudaContext`.
    unsafe { result::ctx::set_current(context.cu_ctx()) }
}

/// Waits until the stream is done, and fails with what went wrong since the last time where no call could return it.
pub(super) fn wait(stream: &CudaStream, operation: &'static str) -> Result<()> {
    let failed = |error| driver_error(operation, error);
    bind(stream.context()).map_err(failed)?;
    // SAFETY: the stream is alive, and its context is the thread's.
    unsafe { result::stream::synchronize(stream.cu_stream()) }.map_err(failed)?;
    stream.context().check_err().map_err(failed)
}

/// Device memory of a stream. It is freed in the stream's order: work enqueued before still finds it. Where that fails,
/// the next [`wait`] says so.
#[derive(Debug)]
pub(crate) struct Allocation {
    pointer: u64,
    bytes: usize,
    stream: Arc<CudaStream>,
}

impl Allocation {
    /// Memory that holds anything.
    pub(super) fn new(stream: &Arc<CudaStream>, operation: &'static str, bytes: usize) -> Result<Self> {
        let context = stream.context();
        bind(context).map_err(|error| driver_error(operation, error))?;
        // The driver refuses to allocate nothing.
        let size = bytes.max(1);
        // SAFETY: the context is bound, the stream is one of its own, and nothing reads what was not written.
        let made = unsafe {
            if context.has_async_alloc() {
                result::malloc_async(stream.cu_stream(), size)
            } else {
                result::malloc_sync(size)
            }
        };
        match made {
            Ok(pointer) => Ok(Self { pointer, bytes, stream: stream.clone() }),
            Err(DriverError(sys::cudaError_enum::CUDA_ERROR_OUT_OF_MEMORY)) => {
                Err(Error::OutOfMemory { operation, bytes: bytes as u64 })
            }
            Err(error) => Err(driver_error(operation, error)),
        }
    }

    pub(super) fn pointer(&self) -> u64 {
        self.pointer
    }

    /// Sets every byte.
    pub(super) fn fill(&self, operation: &'static str, byte: u8) -> Result<()> {
        fill(&self.stream, operation, self.pointer, byte, self.bytes)
    }

    /// Copies from the host. The bytes may be dropped or changed as soon as this returns: the driver copies pageable
    /// memory aside before it does.
    pub(super) fn write(&self, operation: &'static str, bytes: &[u8]) -> Result<()> {
        assert!(bytes.len() <= self.bytes, "within the allocation");
        if bytes.is_empty() {
            return Ok(());
        }
        bind(self.stream.context()).map_err(|error| driver_error(operation, error))?;
        // SAFETY: the destination holds that many bytes, as asserted.
        unsafe { result::memcpy_htod_async(self.pointer, bytes, self.stream.cu_stream()) }
            .map_err(|error| driver_error(operation, error))
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        let context = self.stream.context();
        context.record_err(bind(context));
        if context.has_async_alloc() {
            // SAFETY: allocated by `malloc_async`, freed once, after all work enqueued so far.
            context.record_err(unsafe { result::free_async(self.pointer, self.stream.cu_stream()) });
        } else {
            // SAFETY: the stream is alive.
            context.record_err(unsafe { result::stream::synchronize(self.stream.cu_stream()) });
            // SAFETY: allocated by `malloc_sync`, freed once, and the stream is done with it.
            context.record_err(unsafe { result::free_sync(self.pointer) });
        }
    }
}

/// Sets `bytes` bytes of memory that the caller knows to be allocated.
pub(super) fn fill(
    stream: &CudaStream,
    operation: &'static str,
    pointer: u64,
    byte: u8,
    bytes: usize,
) -> Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    bind(stream.context()).map_err(|error| driver_error(operation, error))?;
    // SAFETY: the caller's region is within an allocation of this stream.
    unsafe { result::memset_d8_async(pointer, byte, bytes, stream.cu_stream()) }
        .map_err(|error| driver_error(operation, error))
}

/// Copies memory that the caller knows to be allocated to the host. The copy is complete after the stream's next
/// synchronisation.
pub(super) fn read(
    stream: &CudaStream,
    operation: &'static str,
    pointer: u64,
    bytes: &mut [u8],
) -> Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    bind(stream.context()).map_err(|error| driver_error(operation, error))?;
    // SAFETY: the source region is within an allocation of this stream. The driver copies to pageable memory before
    // it returns, so the destination need not outlive the call.
    unsafe { result::memcpy_dtoh_async(bytes, pointer, stream.cu_stream()) }
        .map_err(|error| driver_error(operation, error))
}

/// Kernels compiled from one PTX text.
#[derive(Debug)]
pub(super) struct Module {
    module: sys::CUmodule,
    /// Bytes of the one parameter of each kernel.
    parameters: HashMap<String, usize>,
    context: Arc<CudaContext>,
}

// SAFETY: the handle names an object of the driver, whose functions may be called from any thread.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Module {
    /// Has the driver compile a PTX text: the crate's own, or one for which the caller of `from_ptx` answers.
    pub(super) fn load(context: &Arc<CudaContext>, operation: &'static str, text: &str) -> Result<Self> {
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

    /// A kernel whose one parameter is a `P`.
    pub(super) fn function<P: Pod>(
        self: &Arc<Self>,
        operation: &'static str,
        name: &str,
    ) -> Result<Function> {
        let broken = |message: String| Error::Device { operation, message };
        match self.parameters.get(name) {
            Some(&bytes) if bytes == size_of::<P>() => {}
            Some(bytes) => {
                let needed = size_of::<P>();
                return Err(broken(format!("kernel {name} takes {bytes} bytes of parameters, not {needed}")));
            }
            None => return Err(broken(format!("there is no kernel {name} in the PTX"))),
        }
        bind(&self.context).map_err(|error| driver_error(operation, error))?;
        let entry = CString::new(name).map_err(|_| broken(format!("kernel name {name:?}")))?;
        // SAFETY: the module is loaded.
        let function = unsafe { result::module::get_function(self.module, entry) }
            .map_err(|error| driver_error(operation, error))?;
        Ok(Function { function, module: self.clone(), shared_allowed: AtomicU32::new(SHARED_BY_DEFAULT) })
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

/// A kernel.
#[derive(Debug)]
pub(super) struct Function {
    function: sys::CUfunction,
    module: Arc<Module>,
    /// Bytes of dynamic shared memory that the driver was told to allow.
    shared_allowed: AtomicU32,
}

// SAFETY: the handle names an object of the driver, whose functions may be called from any thread.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

impl Function {
    /// Enqueues the kernel: `blocks` blocks of `threads` threads with `shared` bytes of dynamic shared memory each.
    ///
    /// Every address in `params` must be that of memory of this stream, as large as the kernel will take it to be.
    pub(super) fn launch<P: Pod>(
        &self,
        stream: &CudaStream,
        operation: &'static str,
        blocks: u64,
        threads: u32,
        shared: u32,
        params: &P,
    ) -> Result<()> {
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
        let mut arguments = [std::ptr::from_ref(params).cast_mut().cast::<c_void>()];
        // SAFETY: the kernel takes one parameter of the size of `P`, as checked when it was looked up, and the driver
        // copies it before it returns; what its addresses need is this function's contract.
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

impl Cuda {
    /// As [`from_stream`](Self::from_stream), with PTX of the caller's own build of `kernels/` in place of some of
    /// what [`kernels`] lists: for another architecture or compiler. It may be for a newer one than `compute_80`.
    ///
    /// # Safety
    /// Each kernel must read and write what the crate's own of that name does, and nothing else.
    ///
    /// # Errors
    /// As [`from_stream`](Self::from_stream); [`Unsupported`](Error::Unsupported) for a stem that there is not. What
    /// does not compile shows at the first call that needs it.
    pub unsafe fn from_ptx<'a>(
        stream: Arc<CudaStream>,
        own: impl IntoIterator<Item = (&'a str, String)>,
    ) -> Result<Self> {
        const NAME: &str = "Cuda::from_ptx";
        find_driver(NAME)?;
        check_capability(NAME, stream.context())?;
        let mut texts: HashMap<&'static str, String> = shipped();
        for (stem, text) in own {
            let Some(known) = texts.get_mut(stem) else {
                let stems: Vec<&str> = kernels().into_iter().map(|(stem, _)| stem).collect();
                let (what, supported) = (format!("PTX for {stem:?}"), stems.join(", "));
                return Err(Error::Unsupported { operation: NAME, what, supported });
            };
            *known = text;
        }
        Self::build(NAME, stream, texts)
    }
}
