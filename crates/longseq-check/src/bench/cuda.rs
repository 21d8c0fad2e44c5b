//! An NVIDIA GPU: timed by its own clock, with its caches emptied between the calls.

use std::time::{Duration, Instant};

use longseq::prelude::*;

use longseq::cudarc::driver::sys::{CUdevice_attribute, CUevent_flags};
use longseq::cudarc::driver::{CudaContext, CudaSlice, DriverError};
use longseq::{AnyBackend, Cuda};

use super::Device;
use crate::case::{Call, Failure, Rules};
use crate::device::cuda::{Driver, device, driver};

/// More than the L2 cache of any current GPU.
const CACHE: usize = 256 << 20;
/// The device that the tests use too.
pub(super) struct Gpu {
    backend: Cuda,
    /// The same, for the calls that are timed.
    any: AnyBackend,
    /// Overwritten between the calls, so that they begin with a cold cache.
    cold: std::cell::RefCell<CudaSlice<u8>>,
}

fn failure(error: DriverError) -> Failure {
    Failure::new(error.to_string())
}

impl Gpu {
    /// `None` where there is no GPU. The emulator, whose times mean nothing, is used only where LONGSEQ_TEST_CUDA names it.
    pub(super) fn new() -> Option<Self> {
        let asked_for = std::env::var("LONGSEQ_TEST_CUDA").is_ok_and(|driver| driver == "emulator");
        if driver()? == Driver::Emulator && !asked_for {
            return None;
        }
        let backend = device()?;
        // The emulator, which may be the machine's driver as well, has no caches.
        let emulated = backend.device().contains("emulator");
        let cold = backend.stream().alloc_zeros(if emulated { 1 << 10 } else { CACHE }).ok()?;
        Some(Self { any: backend.clone().into(), backend, cold: cold.into() })
    }

    fn context(&self) -> &CudaContext {
        self.backend.stream().context()
    }

    fn attribute(&self, attribute: CUdevice_attribute) -> Result<f64, Failure> {
        self.context().attribute(attribute).map(f64::from).map_err(failure)
    }
}

impl Device for Gpu {
    fn name(&self) -> String {
        "cuda".into()
    }

    fn backend(&self) -> &AnyBackend {
        &self.any
    }

    fn rules(&self) -> Rules {
        Rules::CUDA
    }

    fn bandwidth(&self, footprint: u64) -> Result<f64, Failure> {
        let stream = self.backend.stream();
        let bytes = (footprint as usize / 2).clamp(1 << 10, 1 << 30);
        let from = stream.alloc_zeros::<u8>(bytes).map_err(failure)?;
        let mut to = stream.alloc_zeros::<u8>(bytes).map_err(failure)?;
        let (begin, mut fastest) = (Instant::now(), f64::INFINITY);
        while begin.elapsed().as_secs_f64() < 0.3 {
            let mut copy = || stream.memcpy_dtod(&from, &mut to).map_err(failure);
            fastest = fastest.min(self.time(1, &mut copy)?.as_secs_f64());
        }
        Ok(2.0 * bytes as f64 / fastest)
    }

    /// From the device's own figures, not measured: multiprocessors, clock rate, results per clock.
    fn arithmetic(&self) -> Result<f64, Failure> {
        let multiprocessors = self.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let kilohertz = self.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?;
        // 64 lanes in a multiprocessor of the first Ampere (A100, A30), 128 in all later ones.
        let first = self.context().compute_capability().map_err(failure)? == (8, 0);
        let lanes = if first { 64.0 } else { 128.0 };
        Ok(2.0 * lanes * multiprocessors * kilohertz * 1e3)
    }

    fn time(&self, runs: u64, call: &mut Call<'_>) -> Result<Duration, Failure> {
        let stream = self.backend.stream();
        let event = || stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(failure);
        let mut total = 0.0;
        for _ in 0..runs {
            stream.memset_zeros(&mut *self.cold.borrow_mut()).map_err(failure)?;
            let start = event()?;
            call()?;
            let end = event()?;
            total += f64::from(start.elapsed_ms(&end).map_err(failure)?);
        }
        self.backend.synchronize()?;
        Ok(Duration::from_secs_f64(total / 1e3))
    }
}
