//! Finds an adapter, opens a device, and turns the device's failures into errors.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::error::{Error, Result};

/// What [`Wgpu::with_options`](crate::Wgpu::with_options) looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WgpuOptions {
    /// Part of the adapter's name, in any case; `None` (the default) chooses as
    /// [`Wgpu::new`](crate::Wgpu::new) does.
    pub adapter: Option<String>,
    /// Ask for WebGPU's default limits and no optional feature, as a portable program would. Default false: ask for all
    /// limits of the adapter.
    pub portable: bool,
    /// Ask for subgroups if the adapter has them: some kernels then exchange values between lanes instead of loading them
    /// twice. Default true.
    pub subgroups: bool,
    /// How long [`download`](crate::DeviceOps::download) and [`synchronize`](crate::DeviceOps::synchronize) wait before
    /// they return [`Error::Timeout`]; `None` (the default) waits without limit.
    pub timeout: Option<Duration>,
}

impl Default for WgpuOptions {
    fn default() -> Self {
        Self { adapter: None, portable: false, subgroups: true, timeout: None }
    }
}

impl WgpuOptions {
    /// Sets a part of the adapter's name to look for.
    pub fn with_adapter(self, name: impl Into<String>) -> Self {
        Self { adapter: Some(name.into()), ..self }
    }

    /// Sets whether to stay within WebGPU's default limits and features.
    pub fn with_portable(self, portable: bool) -> Self {
        Self { portable, ..self }
    }

    /// Sets whether to ask for subgroups.
    pub fn with_subgroups(self, subgroups: bool) -> Self {
        Self { subgroups, ..self }
    }

    /// Sets how long to wait for the device.
    pub fn with_timeout(self, timeout: Option<Duration>) -> Self {
        Self { timeout, ..self }
    }
}

/// The adapter that `options` ask for.
pub(crate) async fn find(options: &WgpuOptions) -> Result<wgpu::Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let Some(name) = &options.adapter else {
        let wish = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        return instance
            .request_adapter(&wish)
            .await
            .map_err(|error| Error::NoAdapter { reason: error.to_string() });
    };
    let adapters = instance.enumerate_adapters(wgpu::Backends::all()).await;
    let names: Vec<String> = adapters.iter().map(|adapter| adapter.get_info().name).collect();
    let matching = names.iter().position(|found| found.to_lowercase().contains(&name.to_lowercase()));
    adapters.into_iter().nth(matching.unwrap_or(usize::MAX)).ok_or_else(|| Error::NoAdapter {
        reason: format!("none has {name:?} in its name; there are {names:?}"),
    })
}

/// Asks an adapter for a device.
pub(crate) async fn open(
    adapter: &wgpu::Adapter,
    options: &WgpuOptions,
) -> Result<(wgpu::Device, wgpu::Queue)> {
    let (required_features, required_limits) = if options.portable {
        (wgpu::Features::empty(), wgpu::Limits::default())
    } else {
        let wanted = match options.subgroups {
            true => wgpu::Features::SUBGROUP,
            false => wgpu::Features::empty(),
        };
        (adapter.features() & wanted, adapter.limits())
    };
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("longseq"),
        required_features,
        required_limits,
        ..Default::default()
    };
    adapter.request_device(&descriptor).await.map_err(|error| Error::NoAdapter {
        reason: format!("{} refuses the device: {error}", adapter.get_info().name),
    })
}

/// Whether kernels should exchange values between the lanes of a subgroup: if the device can, unless that costs as much as
/// the loads it saves, as on NVIDIA.
pub(crate) fn uses_subgroups(device: &wgpu::Device) -> bool {
    const NVIDIA: u32 = 0x10de;
    device.features().contains(wgpu::Features::SUBGROUP) && device.adapter_info().vendor != NVIDIA
}

/// Fails in a browser, where a thread must not block: the results it waits for arrive only after it has returned.
pub(crate) fn may_block(operation: &'static str) -> Result<()> {
    if cfg!(target_arch = "wasm32") {
        let (what, supported) =
            ("blocking in a browser".into(), "the calls whose names end in `_async`".into());
        return Err(Error::Unsupported { operation, what, supported });
    }
    Ok(())
}

/// Waits for a future on this thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(result) => return result,
            Poll::Pending => std::thread::park(),
        }
    }
}
