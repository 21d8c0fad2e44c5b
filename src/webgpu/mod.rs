//! The `Wgpu` backend: hand-written WGSL on any device that wgpu drives.
//!
//! Kernels stay within WebGPU's default limits and need no optional feature; attention uses subgroups where the device
//! has them. Kernels are written for GPUs: histories
//! are cut into pieces of equal work on the host, all candidates of a user share each load, and no tensor of
//! behaviours × candidates is ever stored.

mod backend;
mod batch;
mod check;
mod decoupled;
mod device;
mod din;
mod faults;
mod launch;
mod lookup;
mod memory;
mod output;
mod sdim;
mod shader;
mod target_attention;
mod transfer;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::element::Scalar;
use crate::error::Result;
use crate::memory::View;
pub use batch::{WgpuBatch, WgpuJagged};
pub use device::WgpuOptions;
use memory::Region;
pub use memory::{WgpuBuffer, WgpuMemory};

/// Runs the operations on a `wgpu` device.
///
/// Calls record passes and return; [`download`](crate::DeviceOps::download), [`synchronize`](crate::DeviceOps::synchronize)
/// and [`flush`](Self::flush) submit what was recorded, many calls in one submission. Pipelines are compiled at the
/// first call of their kind and kept. Clones share everything; a [fork](crate::DeviceOps::fork) hears of its own calls
/// alone. Nothing is global, and the callbacks of the device for
/// lost devices and uncaught errors stay the caller's.
///
/// ```no_run
/// use longseq::prelude::*;
/// use longseq::{Jagged, TargetAttention, TargetAttentionInputs, Wgpu};
///
/// let gpu = Wgpu::new()?;
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
#[derive(Clone)]
pub struct Wgpu {
    shared: Arc<Shared>,
    reports: Arc<faults::Reports>,
}

/// Rewrites a kernel's text, given its name.
type Edit = dyn Fn(&str, String) -> String + Send + Sync;

struct Shared {
    device: wgpu::Device,
    queue: wgpu::Queue,
    limits: wgpu::Limits,
    /// Whether kernels pass numbers between the lanes of a subgroup.
    uses_subgroups: bool,
    timeout: Option<Duration>,
    pipelines: launch::Pipelines,
    recording: Mutex<launch::Recording>,
    /// Bound where a kernel has an argument that the call does not.
    nothing: wgpu::Buffer,
    edit: Option<Box<Edit>>,
}

impl Wgpu {
    /// The system's preferred adapter, with all that it can do.
    ///
    /// # Errors
    /// [`NoAdapter`](crate::Error::NoAdapter) where there is none; [`Unsupported`](crate::Error::Unsupported) in a browser,
    /// where nothing may block.
    pub fn new() -> Result<Self> {
        Self::with_options(&WgpuOptions::default())
    }

    /// As [`new`](Self::new), without blocking.
    ///
    /// # Errors
    /// [`NoAdapter`](crate::Error::NoAdapter) where there is none.
    pub async fn new_async() -> Result<Self> {
        Self::with_options_async(&WgpuOptions::default()).await
    }

    /// An adapter and a device chosen by `options`.
    ///
    /// # Errors
    /// [`NoAdapter`](crate::Error::NoAdapter) where none fits or it refuses the device;
    /// [`Unsupported`](crate::Error::Unsupported) in a browser, where nothing may block.
    pub fn with_options(options: &WgpuOptions) -> Result<Self> {
        device::may_block("Wgpu::with_options")?;
        device::block_on(Self::with_options_async(options))
    }

    /// As [`with_options`](Self::with_options), without blocking.
    ///
    /// # Errors
    /// [`NoAdapter`](crate::Error::NoAdapter) where none fits or it refuses the device.
    pub async fn with_options_async(options: &WgpuOptions) -> Result<Self> {
        let adapter = device::find(options).await?;
        let (device, queue) = device::open(&adapter, options).await?;
        Ok(Self::from_device(device, queue)?.with_timeout(options.timeout))
    }

    /// The caller's own device and queue. Works with any limits from WebGPU's defaults up, and needs no feature.
    ///
    /// # Errors
    /// The device's own, where it is lost already.
    pub fn from_device(device: wgpu::Device, queue: wgpu::Queue) -> Result<Self> {
        Self::build(device, queue, None)
    }

    /// For tests: as [`from_device`](Self::from_device), with the text of each kernel (its name comes first)
    /// rewritten before it is compiled. That is how the tests show that a wrong shader would be noticed.
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

    fn build(device: wgpu::Device, queue: wgpu::Queue, edit: Option<Box<Edit>>) -> Result<Self> {
        let nothing = device::scoped(&device, "Wgpu::from_device", 256, || {
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
            device,
            queue,
            timeout: None,
            pipelines: Mutex::default(),
            recording: Mutex::default(),
            nothing,
            edit,
        };
        Ok(Self { shared: Arc::new(shared), reports: Arc::default() })
    }

    /// Sets how long downloads and synchronisation wait; `None` waits for as long as it takes. Call it before
    /// the backend is cloned: a clone that exists keeps its own setting and pipelines.
    pub fn with_timeout(self, timeout: Option<Duration>) -> Self {
        let Self { shared, reports } = self;
        let shared = match Arc::try_unwrap(shared) {
            Ok(shared) => Shared { timeout, ..shared },
            Err(shared) => Shared {
                device: shared.device.clone(),
                queue: shared.queue.clone(),
                limits: shared.limits.clone(),
                uses_subgroups: shared.uses_subgroups,
                timeout,
                pipelines: Mutex::default(),
                recording: Mutex::default(),
                nothing: shared.nothing.clone(),
                edit: None,
            },
        };
        Self { shared: Arc::new(shared), reports }
    }

    /// Whether this machine has an adapter. False in a browser, where nothing may block: call
    /// [`new_async`](Self::new_async) there.
    pub fn is_available() -> bool {
        device::may_block("Wgpu::is_available").is_ok()
            && device::block_on(device::find(&WgpuOptions::default())).is_ok()
    }

    /// Submits what was recorded so far, without waiting. Needed before the caller's own submissions read results.
    ///
    /// What the device has against it, the next wait will tell: the caller's callback for uncaught errors stays out of it.
    pub fn flush(&self) {
        let _ = device::scoped(&self.shared.device, "flush", 0, || self.submit_recorded());
    }

    /// As [`download`](crate::DeviceOps::download), without blocking.
    ///
    /// # Errors
    /// As [`download`](crate::DeviceOps::download), which a browser's thread must not call.
    pub async fn download_async<T: Scalar>(&self, view: View<'_, WgpuMemory, T>) -> Result<Vec<T>> {
        self.download_view_async("download", Some(Region::of(view))).await
    }

    /// As [`synchronize`](crate::DeviceOps::synchronize), without blocking.
    ///
    /// # Errors
    /// As [`synchronize`](crate::DeviceOps::synchronize).
    pub async fn synchronize_async(&self) -> Result<()> {
        self.download_view_async::<u32>("synchronize", None).await.map(drop)
    }

    /// The device.
    pub fn wgpu_device(&self) -> &wgpu::Device {
        &self.shared.device
    }

    /// The queue that work is submitted to.
    pub fn wgpu_queue(&self) -> &wgpu::Queue {
        &self.shared.queue
    }

    /// Whether the adapter is a software one.
    pub fn is_software(&self) -> bool {
        self.shared.device.adapter_info().device_type == wgpu::DeviceType::Cpu
    }

    /// Whether some kernels pass numbers between the lanes of a subgroup: where the device has the feature and the
    /// exchange is likely to cost less than the loads it saves. Results agree within rounding either way.
    pub fn uses_subgroups(&self) -> bool {
        self.shared.uses_subgroups
    }

    pub(crate) fn limits(&self) -> &wgpu::Limits {
        &self.shared.limits
    }
}

/// The WGSL text of every kernel in every variant there is, by name. For those who check shaders with a compiler of
/// their own; the tests do. Those with `QUADS=1` in their name need the feature `subgroups`, which naga takes without
/// the directive `enable subgroups;` and every other compiler with it.
pub fn shaders() -> Vec<(String, String)> {
    let rooms = [
        target_attention::variants,
        din::variants,
        sdim::variants,
        lookup::variants,
        decoupled::variants,
        decoupled::search::variants,
        check::variants,
    ];
    let kernels = rooms.into_iter().flat_map(|variants| variants()).chain(output::variants());
    kernels.map(|kernel| (kernel.key(), kernel.text())).collect()
}

impl fmt::Debug for Wgpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wgpu").field("device", &self.shared.device).finish_non_exhaustive()
    }
}
