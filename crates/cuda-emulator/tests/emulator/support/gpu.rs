//! The emulated device. Each test has its own session, so tests run concurrently.

use std::sync::Arc;

use cuda_emulator::control::{Emulator, Misuse};
use cuda_emulator::device::Device;
use cuda_emulator::exec::Finding;
use cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, DeviceRepr, DriverError, ValidAsZeroBits,
};
use cudarc::nvrtc::Ptx;

/// A context on a separate device with default settings.
pub(crate) struct Gpu {
    pub(crate) stream: Arc<CudaStream>,
    pub(crate) context: Arc<CudaContext>,
    pub(crate) emulator: Emulator,
}

/// Launches and waits: `launch!(gpu, function, grid, block, dynamic shared bytes; arguments)`.
macro_rules! launch {
    ($gpu:expr, $function:expr, $grid:expr, $block:expr, $shared:expr; $($argument:expr),* $(,)?) => {{
        let function = &$function;
        #[allow(unused_mut, reason = "a kernel may have no arguments")]
        let mut builder = $gpu.stream.launch_builder(function);
        $(cudarc::driver::PushKernelArg::arg(&mut builder, $argument);)*
        let config = cudarc::driver::LaunchConfig { grid_dim: $grid, block_dim: $block, shared_mem_bytes: $shared };
        // SAFETY: the arguments are those that the kernel declares; the emulator checks its accesses.
        unsafe { builder.launch(config) }.and_then(|_| $gpu.stream.synchronize())
    }};
}
pub(crate) use launch;

impl Gpu {
    /// An `sm_80` device.
    pub(crate) fn new() -> Gpu {
        Gpu::on(Device::sm_80())
    }

    pub(crate) fn sm_90() -> Gpu {
        Gpu::on(Device::sm_90())
    }

    pub(crate) fn on(device: Device) -> Gpu {
        let emulator = Emulator::install(device).expect("the emulator loads without any CUDA installed");
        let context = CudaContext::new(0).expect("device 0 exists");
        Gpu { stream: context.default_stream(), context, emulator }
    }

    pub(crate) fn try_module(&self, ptx: &str) -> Result<Arc<CudaModule>, DriverError> {
        keep(ptx);
        self.context.load_module(Ptx::from_src(ptx))
    }

    /// The error includes the emulator's message.
    pub(crate) fn try_function(&self, ptx: &str, name: &str) -> Result<CudaFunction, String> {
        self.try_module(ptx).and_then(|module| module.load_function(name)).map_err(|error| {
            let words: Vec<String> = self.emulator.take_misuses().iter().map(Misuse::to_string).collect();
            format!("{error}: {}", words.join("; "))
        })
    }

    pub(crate) fn function(&self, ptx: &str, name: &str) -> CudaFunction {
        self.try_function(ptx, name).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) fn upload<T: DeviceRepr>(&self, values: &[T]) -> CudaSlice<T> {
        self.stream.clone_htod(values).expect("the device has enough memory")
    }

    pub(crate) fn zeros<T: DeviceRepr + ValidAsZeroBits>(&self, len: usize) -> CudaSlice<T> {
        self.stream.alloc_zeros(len).expect("the device has enough memory")
    }

    /// Uninitialised memory.
    pub(crate) fn unwritten<T: DeviceRepr>(&self, len: usize) -> CudaSlice<T> {
        // SAFETY: only kernels read it, and the emulator reports reads of uninitialised memory.
        unsafe { self.stream.alloc(len) }.expect("the device has enough memory")
    }

    pub(crate) fn download<T: DeviceRepr>(&self, values: &CudaSlice<T>) -> Vec<T> {
        self.stream.clone_dtoh(values).expect("the copy is inside the allocation")
    }

    pub(crate) fn findings_text(&self) -> String {
        let mut words: Vec<String> = self.emulator.take_findings().iter().map(Finding::to_string).collect();
        words.extend(self.emulator.take_misuses().iter().map(Misuse::to_string));
        words.join("; ")
    }
}

/// If the variable `CUDA_EMULATOR_KEEP_PTX` names a directory, writes all PTX that the tests load to it, so that it can be
/// checked with another assembler.
fn keep(ptx: &str) {
    use std::hash::{DefaultHasher, Hash, Hasher};
    if let Ok(directory) = std::env::var("CUDA_EMULATOR_KEEP_PTX") {
        let mut hasher = DefaultHasher::new();
        ptx.hash(&mut hasher);
        let path = format!("{directory}/{:016x}.ptx", hasher.finish());
        std::fs::write(&path, ptx).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}
