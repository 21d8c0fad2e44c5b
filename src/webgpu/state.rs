//! The backend's handle: the device, what is shared between clones, and the constructors.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::error::Result;
use crate::gpu::lock;
use crate::webgpu::device::{self, WgpuOptions};
use crate::webgpu::faults::Reports;
use crate::webgpu::memory::Owner;
use crate::webgpu::pipeline::{Edit, Pipelines};
use crate::webgpu::placement::Placement;
use crate::webgpu::recording::{CallRecord, Command, Recording, Step};
use crate::webgpu::scope::Scopes;
use crate::webgpu::waiter::Waiter;

/// Runs the operations on a `wgpu` device.
///
/// Calls record passes and return; [`download`](crate::DeviceOps::download), [`synchronize`](crate::DeviceOps::synchronize)
/// and [`flush`](Self::flush) submit what was recorded, many calls in one submission. Pipelines are compiled at the
/// first use of a variant and kept. There is no global state, and the device's callbacks for lost devices and uncaptured errors
/// remain the caller's.
///
/// - **Who gets which report.** A [fork](crate::DeviceOps::fork) gets the bad ids and the failures of its own calls only. Clones share
///   everything else; bad ids are reported to the first clone that waits; work that the device refused (because a buffer was
///   destroyed after the call, say) is reported to every clone, at its next wait. Work of other handles in the same submission is done.
/// - **What a refused call should have written** is read by nobody unawares: until a call, an upload or a copy through a handle writes it
///   again, calls and downloads of all clones and forks that read it are refused, too, each reported to its own handle. A change in
///   place (`sdim_append`, a step of an optimiser) reads what it changes. Buffers that you made
///   ([`from_buffer`](crate::webgpu::WgpuBuffer::from_buffer)) are left out, since you may write them unseen. In a browser, where the
///   device answers late, every handle with work in the submission hears of the refusal instead, and those that read later do not.
/// - **Wide rows.** Some devices silently end a thread's loops after 65,536 iterations, so rows that would take as many are refused
///   with [`Limit`](crate::Error::Limit): in attention and TIN those of more than 7,000 to 26,000 numbers, the fewer the more candidates users have;
///   in DIN of more than about 7,000 to 30,000, the fewer the more units the first layer has; in searches of more than 100,000; in
///   gradients of merges and reads of SDIM's tables 20,000 (fewer with more than 64 groups).
/// - **NaN.** WGSL promises no arithmetic on NaN and infinities. Where the device's is IEEE's (every software device that was
///   tried), they are treated as on other backends.
///
/// ```no_run
/// use longseq::prelude::*;
/// use longseq::{Jagged, TargetAttention, TargetAttentionInputs, Wgpu};
///
/// let gpu = Wgpu::new()?;
/// let history = gpu.upload(&[1.0_f32, 0.0, 0.0, 1.0])?;
/// let candidates = gpu.upload(&[9.0_f32, 0.0])?;
/// let batch = gpu.batch(&Jagged::from_lengths(&[2])?, &Jagged::from_lengths(&[1])?)?;
/// let inputs = TargetAttentionInputs::new(gpu.view(&candidates), gpu.view(&history));
/// let out = gpu.target_attention(&TargetAttention::new(2), &batch, inputs)?;
/// assert!(gpu.download(gpu.view(&out))?[0] > 0.99);
/// # Ok::<(), longseq::Error>(())
/// ```
pub struct Wgpu {
    pub(crate) shared: Arc<Shared>,
    pub(crate) reports: Arc<Reports>,
    /// Losses among `reports` that were reported to this handle, or that are older than it.
    pub(crate) heard: AtomicU64,
    pub(crate) timeout: Option<Duration>,
    /// The call that this handle was made for.
    pub(crate) call: Option<Mutex<CallRecord>>,
    /// Where the memory lies that callers ask for, if tests say so.
    pub(crate) placement: Option<Arc<Placement>>,
}

impl Clone for Wgpu {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            reports: self.reports.clone(),
            heard: AtomicU64::new(self.reports.losses()),
            timeout: self.timeout,
            call: None,
            placement: self.placement.clone(),
        }
    }
}

/// What clones and forks share.
pub(crate) struct Shared {
    pub(crate) scopes: Arc<Scopes>,
    pub(crate) queue: wgpu::Queue,
    pub(crate) limits: wgpu::Limits,
    /// Whether kernels exchange values between the lanes of a subgroup.
    pub(crate) uses_subgroups: bool,
    /// Marks the buffers and batches that belong to this device.
    pub(crate) owner: Owner,
    pub(crate) waiter: Arc<Waiter>,
    pub(crate) pipelines: Pipelines,
    pub(crate) recording: Recording,
    /// Bound where a kernel has an input that the call does not have.
    pub(crate) nothing: wgpu::Buffer,
    pub(crate) edit: Option<Box<Edit>>,
}

impl Wgpu {
    /// The adapter that wgpu ranks first for high performance, with all its limits, and subgroups if it has them: a discrete
    /// GPU before an integrated one, and a software adapter (lavapipe, WARP), silently, if there is no other. The adapter is
    /// named by [`device`](crate::DeviceOps::device); [`is_software`](Self::is_software) tells whether it is a software one.
    ///
    /// # Errors
    /// [`NoAdapter`](crate::Error::NoAdapter) if there is none; [`Unsupported`](crate::Error::Unsupported) in a browser, where
    /// nothing may block.
    pub fn new() -> Result<Self> {
        Self::with_options(&WgpuOptions::default())
    }

    /// As [`new`](Self::new), without blocking.
    ///
    /// # Errors
    /// [`NoAdapter`](crate::Error::NoAdapter) if there is none.
    pub async fn new_async() -> Result<Self> {
        Self::with_options_async(&WgpuOptions::default()).await
    }

    /// The adapter and device that `options` ask for.
    ///
    /// # Errors
    /// [`NoAdapter`](crate::Error::NoAdapter) if no adapter matches or it refuses the device;
    /// [`Unsupported`](crate::Error::Unsupported) in a browser, where nothing may block.
    pub fn with_options(options: &WgpuOptions) -> Result<Self> {
        device::may_block("Wgpu::with_options")?;
        device::block_on(Self::with_options_async(options))
    }

    /// As [`with_options`](Self::with_options), without blocking.
    ///
    /// # Errors
    /// [`NoAdapter`](crate::Error::NoAdapter) if no adapter matches or it refuses the device.
    pub async fn with_options_async(options: &WgpuOptions) -> Result<Self> {
        let adapter = device::find(options).await?;
        let (device, queue) = device::open(&adapter, options).await?;
        Ok(Self::from_device(device, queue)?.with_timeout(options.timeout))
    }

    /// The caller's own device and queue. Any limits from WebGPU's defaults up will do, and no feature is needed.
    ///
    /// # Errors
    /// The device's own, if it is already lost.
    pub fn from_device(device: wgpu::Device, queue: wgpu::Queue) -> Result<Self> {
        Self::build(device, queue, None)
    }

    /// For tests: as [`from_device`](Self::from_device), with the text of each kernel rewritten before it is compiled; `edit`
    /// takes the kernel's name and its text. With it the tests show that they would notice a wrong shader.
    ///
    /// # Errors
    /// As [`from_device`](Self::from_device).
    #[doc(hidden)]
    pub fn with_edited_shaders(
        device: wgpu::Device,
        queue: wgpu::Queue,
        edit: impl Fn(&str, String) -> String + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::build(device, queue, Some(Box::new(edit)))
    }

    /// For tests: makes the `nth` allocation on this device from now on, counted from 1, fail as if there were no memory; none
    /// with 0.
    #[doc(hidden)]
    pub fn fail_allocation(&self, nth: u64) {
        self.shared.scopes.fail_allocation(nth);
    }

    /// For tests: how many buffers were made on this device since the last time, how many uploads, dispatches, copies and clears were
    /// submitted, and how many submissions there were.
    #[doc(hidden)]
    pub fn take_tally(&self) -> [u64; 6] {
        self.shared.scopes.tally.take()
    }

    fn build(device: wgpu::Device, queue: wgpu::Queue, edit: Option<Box<Edit>>) -> Result<Self> {
        let scopes = Arc::new(Scopes::new(device.clone()));
        let reports = Arc::default();
        let nothing = scopes.run("Wgpu::from_device", 256, &[&reports], || {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("nothing"),
                size: 256,
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            })
        })?;
        let shared = Shared {
            limits: device.limits(),
            uses_subgroups: device::uses_subgroups(&device),
            scopes,
            queue,
            owner: Owner::default(),
            waiter: Arc::default(),
            pipelines: Pipelines::default(),
            recording: Recording::default(),
            nothing,
            edit,
        };
        let shared = Arc::new(shared);
        Ok(Self { shared, reports, heard: AtomicU64::new(0), timeout: None, call: None, placement: None })
    }

    /// Sets how long downloads and synchronisation through this handle wait; `None` waits without limit. Clones and forks that
    /// exist keep their setting.
    pub fn with_timeout(self, timeout: Option<Duration>) -> Self {
        Self { timeout, ..self }
    }

    /// Whether this machine has an adapter. False in a browser, where nothing may block: call
    /// [`new_async`](Self::new_async) there.
    pub fn is_available() -> bool {
        device::may_block("Wgpu::is_available").is_ok()
            && device::block_on(device::find(&WgpuOptions::default())).is_ok()
    }

    /// The device.
    pub fn wgpu_device(&self) -> &wgpu::Device {
        self.shared.scopes.device()
    }

    /// The queue that work is submitted to.
    pub fn wgpu_queue(&self) -> &wgpu::Queue {
        &self.shared.queue
    }

    /// Whether the adapter is a software one.
    pub fn is_software(&self) -> bool {
        self.wgpu_device().adapter_info().device_type == wgpu::DeviceType::Cpu
    }

    /// Whether some kernels exchange values between the lanes of a subgroup: if the device has the feature, and the exchange is
    /// likely to cost less than the loads it saves. Results agree within rounding either way.
    pub fn uses_subgroups(&self) -> bool {
        self.shared.uses_subgroups
    }

    /// Another handle, which gets the reports of its own calls only.
    pub(crate) fn forked(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            reports: Arc::default(),
            heard: AtomicU64::new(0),
            timeout: self.timeout,
            call: None,
            placement: self.placement.clone(),
        }
    }

    /// Runs `work` and returns the device's error if there was one.
    pub(crate) fn scoped<R>(
        &self,
        operation: &'static str,
        bytes: u64,
        work: impl FnOnce() -> R,
    ) -> Result<R> {
        self.shared.scopes.run(operation, bytes, &[&self.reports], work)
    }

    /// Adds to the submission that is being recorded. A refusal by the device is reported to this handle and its clones.
    pub(crate) fn record(&self, operation: &'static str, command: Command) {
        if let Some(call) = &self.call {
            return lock(call).steps.push(Step::Command(operation, command));
        }
        self.record_for(operation, &self.reports, command);
    }

    /// As [`record`](Self::record), outside a call; `owner` hears of a refusal.
    pub(crate) fn record_for(&self, operation: &'static str, owner: &Arc<Reports>, command: Command) {
        let Shared { scopes, queue, recording, .. } = &*self.shared;
        recording.record(scopes, queue, operation, owner, command);
    }

    /// Counts bytes that are held until the next submission has run.
    pub(crate) fn hold(&self, bytes: u64) {
        if let Some(call) = &self.call {
            return lock(call).steps.push(Step::Hold(bytes));
        }
        self.shared.recording.hold(&self.shared.scopes, &self.shared.queue, bytes);
    }

    pub(crate) fn limits(&self) -> &wgpu::Limits {
        &self.shared.limits
    }
}

impl fmt::Debug for Wgpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wgpu").field("device", self.wgpu_device()).finish_non_exhaustive()
    }
}
