//! The handle: one device and one stream, with what has been loaded and recorded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use cudarc::driver::{CudaContext, CudaStream};

use crate::cuda::driver::{
    Allocation, Function, Module, Staging, check_capability, check_not_captured, check_stream_kind,
    driver_error, find_driver,
};
use crate::cuda::kernel::Kernel;
use crate::cuda::kernels::text_of;
use crate::cuda::memory::CudaMemory;
use crate::cuda::memory::{CudaBuffer, Region};
use crate::cuda::occupancy::Multiprocessors;
use crate::cuda::records::Records;
use crate::cuda::waiter::Waiter;
use crate::cuda::workspace::Workspace;
use crate::element::Scalar;
use crate::error::{Error, Result};
use crate::gpu::lock;
use crate::memory::{View, ViewMut};

/// Runs the operations on an NVIDIA GPU, of compute capability 8.0 (Ampere) or later.
///
/// Calls enqueue kernels on one stream and return; [`download`](crate::DeviceOps::download) and
/// [`synchronize`](crate::DeviceOps::synchronize) wait. Clones share everything; a [fork](crate::DeviceOps::fork) reports
/// errors of its own calls only. There is no global state.
///
/// A call that returns an error, because memory ran out in the middle of it, say, has enqueued nothing, so that its outputs are as before.
/// Only a launch that the driver itself refuses ends a call between its kernels.
///
/// # Graphs
/// Calls can be captured into a CUDA graph. Make them once before the capture, so that plans are uploaded and kernels loaded, and set
/// a [workspace](Self::set_workspace), so that nothing is allocated: what would upload, allocate, load or wait while the stream is
/// captured fails with [`Unsupported`](Error::Unsupported) and leaves the capture as it is. A graph holds addresses, so all of these
/// must live until its last launch is done: the handle or a clone of it (kernels, and where ids out of range are recorded), the batches,
/// every input and output, and the workspace, which must not be replaced. Slices are [borrowed](Self::borrow) before the capture begins,
/// and the borrows dropped after it has ended.
///
/// # Limits
/// The largest `K` of a search is [`Search::MAX_TOP_K`](crate::Search::MAX_TOP_K). Hidden layers of DIN have at most 256 units, and the
/// network must fit 99 KiB of shared memory: for three hidden layers of 256 units in `f32`, a width of up to 288. Calls beyond these fail with [`Limit`](Error::Limit).
///
/// ```no_run
/// use longseq::prelude::*;
/// use longseq::{Cuda, Jagged, TargetAttention, TargetAttentionInputs};
///
/// let gpu = Cuda::new(0)?;
/// let history = gpu.upload(&[1.0_f32, 0.0, 0.0, 1.0])?;
/// let candidates = gpu.upload(&[9.0_f32, 0.0])?;
/// let batch = gpu.batch(&Jagged::from_lengths(&[2])?, &Jagged::from_lengths(&[1])?)?;
/// let inputs = TargetAttentionInputs::new(gpu.view(&candidates), gpu.view(&history));
/// let out = gpu.target_attention(&TargetAttention::new(2), &batch, inputs)?;
/// assert!(gpu.download(gpu.view(&out))?[0] > 0.99);
/// # Ok::<(), longseq::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Cuda {
    pub(super) shared: Arc<Shared>,
    pub(super) records: Arc<Mutex<Records>>,
    pub(super) elsewhere: Option<Arc<Elsewhere>>,
}

/// For tests: of what a handle makes, one is another's.
#[derive(Debug)]
pub(super) struct Elsewhere {
    other: Cuda,
    left: Mutex<i64>,
}

/// What clones and forks share.
#[derive(Debug)]
pub(super) struct Shared {
    stream: Arc<CudaStream>,
    pub(super) name: String,
    multiprocessors: Multiprocessors,
    /// The caller's own PTX, by file.
    texts: HashMap<&'static str, String>,
    modules: Mutex<HashMap<&'static str, Arc<Module>>>,
    /// Kernels by file and symbol.
    pub(super) functions: Mutex<HashMap<(&'static str, &'static str), Arc<Function>>>,
    pub(super) workspace: Mutex<Workspace>,
    pub(super) staging: Staging,
    /// Waits for callers that must not block.
    pub(super) waiter: Arc<Waiter>,
}

impl Cuda {
    /// The device with this ordinal, on a new stream.
    ///
    /// # Errors
    /// [`NoCudaDriver`](Error::NoCudaDriver) without a driver, [`NoCudaDevice`](Error::NoCudaDevice) without that
    /// device, [`Unsupported`](Error::Unsupported) for a device older than Ampere or a driver older than CUDA 11.4,
    /// [`Driver`](Error::Driver) for errors of the driver.
    pub fn new(ordinal: usize) -> Result<Self> {
        const NAME: &str = "Cuda::new";
        find_driver(NAME)?;
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
        Self::build(NAME, context.new_stream().map_err(failed)?, HashMap::new())
    }

    /// A backend on the caller's own stream. All work is enqueued there, and memory is allocated and freed in its order.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Unsupported`](Error::Unsupported) for the per-thread default stream, which is another stream on each
    /// thread.
    pub fn from_stream(stream: Arc<CudaStream>) -> Result<Self> {
        const NAME: &str = "Cuda::from_stream";
        find_driver(NAME)?;
        check_capability(NAME, stream.context())?;
        Self::build(NAME, stream, HashMap::new())
    }

    pub(super) fn build(
        operation: &'static str,
        stream: Arc<CudaStream>,
        texts: HashMap<&'static str, String>,
    ) -> Result<Self> {
        check_stream_kind(operation, &stream)?;
        let context = stream.context();
        let failed = |error| driver_error(operation, error);
        let (major, minor) = context.compute_capability().map_err(failed)?;
        let name = context.name().map_err(failed)?;
        let shared = Shared {
            name: format!("{name} (CUDA, compute capability {major}.{minor})"),
            multiprocessors: Multiprocessors::of(operation, context)?,
            texts,
            modules: Mutex::default(),
            functions: Mutex::default(),
            workspace: Mutex::default(),
            staging: Staging::new(&stream),
            waiter: Arc::default(),
            stream,
        };
        let records = Arc::new(Mutex::new(Records::new(&shared.stream, operation)?));
        Ok(Self { shared: Arc::new(shared), records, elsewhere: None })
    }

    /// Whether [`new(0)`](Self::new) succeeds on this machine.
    pub fn is_available() -> bool {
        Self::new(0).is_ok()
    }

    /// The stream on which all work is enqueued.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.shared.stream
    }

    /// For tests: a handle of whose uploads with any elements, jagged rows and batches the `nth`, counted from 1, is the other's.
    #[doc(hidden)]
    pub fn elsewhere(&self, other: &Self, nth: i64) -> Self {
        let elsewhere = Elsewhere { other: other.clone(), left: Mutex::new(nth) };
        Self { elsewhere: Some(Arc::new(elsewhere)), ..self.clone() }
    }

    /// For tests: whether something of this handle is another's by now.
    #[doc(hidden)]
    pub fn is_elsewhere(&self) -> bool {
        self.elsewhere.as_ref().is_some_and(|elsewhere| *lock(&elsewhere.left) <= 0)
    }

    /// The handle that makes what is made next.
    pub(super) fn maker(&self) -> &Self {
        let Some(elsewhere) = &self.elsewhere else { return self };
        let mut left = lock(&elsewhere.left);
        *left -= 1;
        if *left == 0 { &elsewhere.other } else { self }
    }

    /// Sets memory from which calls take their scratch. Scratch that does not fit, or all scratch without a workspace, is
    /// allocated in stream order by each call. `None` removes the workspace.
    ///
    /// # Errors
    /// [`Unsupported`](Error::Unsupported) if it belongs to another stream.
    pub fn set_workspace(&self, workspace: Option<CudaBuffer<u8>>) -> Result<()> {
        if let Some(buffer) = &workspace {
            self.check_stream("set_workspace", buffer.stream())?;
        }
        lock(&self.shared.workspace).buffer = workspace;
        Ok(())
    }

    /// The most bytes of scratch that a call has used so far: a workspace of this size suffices for the same calls.
    pub fn scratch_taken(&self) -> usize {
        lock(&self.shared.workspace).most
    }

    pub(super) fn multiprocessors(&self) -> usize {
        self.shared.multiprocessors.count
    }

    /// The blocks of a kernel that the device runs at a time, of `threads` threads and `shared` bytes of dynamic shared memory.
    pub(super) fn resident(&self, kernel: &Kernel, threads: usize, shared: usize) -> usize {
        self.shared.multiprocessors.resident(kernel, threads, shared)
    }

    /// The same, but no more than keep a device busy with a kernel whose time goes into instructions.
    pub(super) fn busy(&self, kernel: &Kernel, threads: usize, shared: usize) -> usize {
        self.shared.multiprocessors.busy(kernel, threads, shared)
    }

    /// Uploads a list that kernels read.
    pub(super) fn list<T: bytemuck::Pod>(&self, operation: &'static str, items: &[T]) -> Result<Allocation> {
        let bytes = bytemuck::cast_slice(items);
        let made = Allocation::new(self.stream(), operation, bytes.len())?;
        self.shared.staging.upload(operation, &made, bytes)?;
        Ok(made)
    }

    /// The module of a PTX file, loaded at the first call.
    pub(super) fn module(&self, operation: &'static str, file: &'static str) -> Result<Arc<Module>> {
        let mut modules = lock(&self.shared.modules);
        if let Some(module) = modules.get(file) {
            return Ok(module.clone());
        }
        check_not_captured(self.stream(), operation, "loading a kernel")?;
        let text = self.shared.texts.get(file).cloned().or_else(|| text_of(file)).unwrap_or_default();
        let module = Arc::new(Module::load(self.stream().context(), operation, &text)?);
        modules.insert(file, module.clone());
        Ok(module)
    }

    /// The PTX files whose modules are loaded, in alphabetical order.
    pub(super) fn loaded(&self) -> Vec<&'static str> {
        let mut files: Vec<_> = lock(&self.shared.modules).keys().copied().collect();
        files.sort_unstable();
        files
    }

    /// Fails if `stream` is not the backend's own.
    pub(super) fn check_stream(&self, operation: &'static str, stream: &CudaStream) -> Result<()> {
        if stream == &**self.stream() {
            return Ok(());
        }
        Err(Error::Unsupported {
            operation,
            what: "memory of another stream".into(),
            supported: "memory of the backend's own stream".into(),
        })
    }

    /// The memory that a view covers. Views of another stream's buffers are refused: nothing would order the two streams.
    pub(super) fn region<T: Scalar>(
        &self,
        operation: &'static str,
        view: &View<'_, CudaMemory, T>,
    ) -> Result<Region<T>> {
        self.span(operation, view.data(), view.start(), view.len())
    }

    /// As [`region`](Self::region), for an output.
    pub(super) fn region_mut<T: Scalar>(
        &self,
        operation: &'static str,
        view: &ViewMut<'_, CudaMemory, T>,
    ) -> Result<Region<T>> {
        self.span(operation, view.data(), view.start(), view.len())
    }

    /// The address of an input that may be missing, 0 if it is.
    pub(super) fn optional<T: Scalar>(
        &self,
        operation: &'static str,
        view: Option<&View<'_, CudaMemory, T>>,
    ) -> Result<u64> {
        view.map_or(Ok(0), |view| Ok(self.region(operation, view)?.pointer))
    }

    /// Where an output goes that may not be asked for; 0 if it is not.
    pub(super) fn asked<T: Scalar>(
        &self,
        operation: &'static str,
        view: Option<&ViewMut<'_, CudaMemory, T>>,
    ) -> Result<Region<T>> {
        view.map_or(Ok(Region::new(0, 0)), |view| self.region_mut(operation, view))
    }

    fn span<T: Scalar>(
        &self,
        operation: &'static str,
        buffer: &CudaBuffer<T>,
        start: usize,
        length: usize,
    ) -> Result<Region<T>> {
        self.check_stream(operation, buffer.stream())?;
        Ok(Region::new(buffer.device_pointer() + (start * size_of::<T>()) as u64, length))
    }
}
