//! The `Cuda` backend: hand-written CUDA C++ kernels, shipped as PTX, on NVIDIA GPUs from Ampere on.
//!
//! Nothing but the driver is needed, to build or to use it. The kernels are in `kernels/`, one file a stem, each
//! with its formula, its layout and its variants at the top; `kernels/ptx/` holds what ships. The driver compiles a
//! file's PTX at the first call that needs it, and keeps the result on disk.

mod backend;
mod batch;
mod call;
mod decoupled;
mod din;
mod faults;
mod kernels;
mod launch;
mod lookup;
mod memory;
mod sdim;
mod target_attention;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use cudarc::driver::sys::CUdevice_attribute;
use cudarc::driver::{CudaContext, CudaStream};

pub use batch::{CudaBatch, CudaJagged};
pub use kernels::kernels;
pub use memory::{CudaBorrow, CudaBorrowMut, CudaBuffer, CudaMemory};

use crate::error::{Error, Result};
use crate::gpu::lock;
use crate::memory::Memory;
use call::Workspace;
use faults::{Records, driver_error};
use launch::{Allocation, Function, Module};

/// The oldest compute capability whose instructions the kernels use: Ampere.
const OLDEST: (i32, i32) = (8, 0);

/// Runs the operations on an NVIDIA GPU, of compute capability 8.0 (Ampere) or later.
///
/// Calls enqueue kernels on one stream and return; [`download`](crate::DeviceOps::download) and
/// [`synchronize`](crate::DeviceOps::synchronize) wait. Clones share everything; a [fork](crate::DeviceOps::fork) hears of
/// its own calls alone. Nothing is global.
///
/// Work can be captured into a CUDA graph: run the calls once before, so that plans are uploaded and kernels loaded,
/// and give a [workspace](Self::set_workspace), so that nothing is allocated.
///
/// ```no_run
/// use longseq::prelude::*;
/// use longseq::{Cuda, Jagged, TargetAttention, TargetAttentionInputs};
///
/// let gpu = Cuda::new(0)?;
/// let history = gpu.upload(&[1.0_f32, 0.0, 0.0, 1.0])?;
/// let candidates = gpu.upload(&[9.0_f32, 0.0])?;
/// let batch = gpu.batch(&Jagged::from_lengths(&[2])?, &Jagged::from_lengths(&[1])?)?;
/// let inputs = TargetAttentionInputs {
///     queries: gpu.view(&candidates),
///     keys: gpu.view(&history),
///     values: None,
///     bias: None,
/// };
/// let out = gpu.target_attention(&TargetAttention::new(2), &batch, inputs)?;
/// assert!(gpu.download(gpu.view(&out))?[0] > 0.99);
/// # Ok::<(), longseq::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Cuda {
    shared: Arc<Shared>,
    records: Arc<Mutex<Records>>,
}

#[derive(Debug)]
struct Shared {
    stream: Arc<CudaStream>,
    name: String,
    multiprocessors: usize,
    /// PTX by stem.
    texts: HashMap<&'static str, String>,
    modules: Mutex<HashMap<&'static str, Arc<Module>>>,
    functions: Mutex<HashMap<(&'static str, String), Arc<Function>>>,
    workspace: Mutex<Workspace>,
}

impl Cuda {
    /// The device of that number, on a stream of its own.
    ///
    /// # Errors
    /// [`NoCudaDriver`](Error::NoCudaDriver) without a driver, [`NoCudaDevice`](Error::NoCudaDevice) without that
    /// device, [`Unsupported`](Error::Unsupported) for a device older than Ampere or a driver older than CUDA 11.4's,
    /// the driver's own.
    pub fn new(ordinal: usize) -> Result<Self> {
        const NAME: &str = "Cuda::new";
        launch::find_driver(NAME)?;
        let none = |reason: String| Error::NoCudaDevice { reason };
        let devices = match CudaContext::device_count() {
            Ok(count) => usize::try_from(count).unwrap_or(0),
            Err(error) => return Err(none(driver_error(NAME, error).to_string())),
        };
        if ordinal >= devices {
            return Err(none(format!("device {ordinal} was asked for, and there are {devices}")));
        }
        let failed = |error| driver_error(NAME, error);
        let context = CudaContext::new(ordinal).map_err(failed)?;
        check_capability(NAME, &context)?;
        Self::build(NAME, context.new_stream().map_err(failed)?, shipped())
    }

    /// The caller's own stream. Everything is enqueued there, and memory is allocated and freed in its order.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_stream(stream: Arc<CudaStream>) -> Result<Self> {
        const NAME: &str = "Cuda::from_stream";
        launch::find_driver(NAME)?;
        check_capability(NAME, stream.context())?;
        Self::build(NAME, stream, shipped())
    }

    fn build(
        operation: &'static str,
        stream: Arc<CudaStream>,
        texts: HashMap<&'static str, String>,
    ) -> Result<Self> {
        let context = stream.context();
        let failed = |error| driver_error(operation, error);
        let (major, minor) = context.compute_capability().map_err(failed)?;
        let name = context.name().map_err(failed)?;
        let count = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let multiprocessors = context.attribute(count).map_err(failed)?;
        let shared = Shared {
            name: format!("{name} (CUDA, compute capability {major}.{minor})"),
            multiprocessors: usize::try_from(multiprocessors).unwrap_or(1).max(1),
            texts,
            modules: Mutex::default(),
            functions: Mutex::default(),
            workspace: Mutex::default(),
            stream,
        };
        let records = Arc::new(Mutex::new(Records::new(&shared.stream, operation)?));
        Ok(Self { shared: Arc::new(shared), records })
    }

    /// Whether this machine has a device that [`new`](Self::new) would take.
    pub fn is_available() -> bool {
        Self::new(0).is_ok()
    }

    /// The stream that everything is enqueued on.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.shared.stream
    }

    /// Gives calls memory to take their scratch from; what does not fit is allocated in the stream's order, call by
    /// call, as all is without a workspace. `None` takes it away.
    ///
    /// # Errors
    /// [`Unsupported`](Error::Unsupported) where it belongs to another stream.
    pub fn set_workspace(&self, workspace: Option<CudaBuffer<u8>>) -> Result<()> {
        if let Some(buffer) = &workspace {
            self.region("set_workspace", &crate::View::new(CudaMemory::data(buffer)))?;
        }
        lock(&self.shared.workspace).buffer = workspace;
        Ok(())
    }

    /// The most bytes of scratch that a call has taken so far: as large as a workspace need be for the same calls.
    pub fn scratch_taken(&self) -> usize {
        lock(&self.shared.workspace).most
    }

    fn multiprocessors(&self) -> usize {
        self.shared.multiprocessors
    }

    /// Uploads a list that kernels read.
    fn list<T: bytemuck::Pod>(&self, operation: &'static str, items: &[T]) -> Result<Allocation> {
        let bytes = bytemuck::cast_slice(items);
        let made = Allocation::new(self.stream(), operation, bytes.len())?;
        made.write(operation, bytes)?;
        Ok(made)
    }
}

fn shipped() -> HashMap<&'static str, String> {
    kernels().into_iter().map(|(stem, text)| (stem, text.to_owned())).collect()
}

fn check_capability(operation: &'static str, context: &CudaContext) -> Result<()> {
    let capability = context.compute_capability().map_err(|error| driver_error(operation, error))?;
    if capability >= OLDEST {
        return Ok(());
    }
    Err(Error::Unsupported {
        operation,
        what: format!("a GPU of compute capability {}.{}", capability.0, capability.1),
        supported: "8.0 (Ampere) and later".into(),
    })
}
