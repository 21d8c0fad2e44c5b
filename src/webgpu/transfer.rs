//! Submitting, waiting, and copying results to the host.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::element::Scalar;
use crate::error::{Error, Result};
use crate::gpu::lock;
use crate::memory::View;
use crate::webgpu::device::{may_block, scoped};
use crate::webgpu::faults::Unread;
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::state::Wgpu;

/// How long another thread may take to call the callback of a finished copy.
const CALLBACK: Duration = Duration::from_secs(10);

/// What the callback of a mapping stores.
#[derive(Debug, Default)]
struct Arrival {
    result: Option<std::result::Result<(), wgpu::BufferAsyncError>>,
    waker: Option<Waker>,
}

/// A copy to the host that is under way.
pub(crate) struct Pending<'a> {
    operation: &'static str,
    staging: wgpu::Buffer,
    /// The bytes of the staging buffer that hold the data. The reports follow.
    data: std::ops::Range<usize>,
    reports: Unread<'a>,
    arrival: Arc<Mutex<Arrival>>,
    submission: wgpu::SubmissionIndex,
}

impl Wgpu {
    /// Submits what was recorded so far, without waiting. Call it before your own submissions that read results.
    ///
    /// Submission errors are returned by the next wait; the caller's callback for uncaptured errors is not called.
    pub fn flush(&self) {
        let _ = scoped(&self.shared.device, "flush", 0, || self.submit_recorded());
    }

    /// As [`download`](crate::DeviceOps::download), without blocking.
    ///
    /// # Errors
    /// As [`download`](crate::DeviceOps::download), which cannot be called in a browser.
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

    fn submit_recorded(&self) -> Option<wgpu::SubmissionIndex> {
        self.shared.recording.submit(&self.shared.queue)
    }

    /// Submits everything, followed by copies of `view` and of the reports.
    fn begin_download<T: Scalar>(
        &self,
        operation: &'static str,
        view: Option<Region<'_, T>>,
    ) -> Result<Pending<'_>> {
        let device = &self.shared.device;
        let (start, bytes) = view.map_or((0, 0), |view| (view.offset, view.bytes()));
        let (first, last) = (start / 4 * 4, (start + bytes).next_multiple_of(4));
        let reports = self.reports.take();
        let size = last - first + reports.bytes();
        let staging = scoped(device, operation, size, || {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(operation),
                size: size.max(4),
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        })?;
        let arrival = Arc::new(Mutex::new(Arrival::default()));
        let submission = scoped(device, operation, size, || {
            self.record(|encoder| {
                if let Some(view) = view.filter(|_| last > first) {
                    encoder.copy_buffer_to_buffer(view.buffer, first, &staging, 0, Some(last - first));
                }
                reports.copy(encoder, &staging, last - first);
            });
            let submission = self.submit_recorded();
            let landed = arrival.clone();
            staging.map_async(wgpu::MapMode::Read, .., move |result| {
                let mut arrival = lock(&landed);
                arrival.result = Some(result);
                if let Some(waker) = arrival.waker.take() {
                    waker.wake();
                }
            });
            submission
        })?;
        // Another thread may have submitted our recording. The queue runs in order, so an empty submission comes after it.
        let submission = submission.unwrap_or_else(|| self.shared.queue.submit([]));
        let data = (start - first) as usize..(start - first + bytes) as usize;
        Ok(Pending { operation, staging, data, reports, arrival, submission })
    }

    fn finish_download<T: Scalar>(&self, pending: Pending<'_>) -> Result<Vec<T>> {
        let Pending { operation, staging, data, reports, arrival, .. } = pending;
        match lock(&arrival).result.take() {
            Some(Ok(())) => {}
            _ => return Err(Error::DeviceLost { operation }),
        }
        let mapped = staging
            .get_mapped_range(..)
            .map_err(|error| Error::Device { operation, message: error.to_string() })?;
        let first_report = data.end.next_multiple_of(4);
        reports.read(&mapped[first_report..])?;
        // The mapped bytes may not be aligned for `T`.
        let mut out = vec![T::zeroed(); data.len() / size_of::<T>()];
        bytemuck::cast_slice_mut(&mut out).copy_from_slice(&mapped[data]);
        drop(mapped);
        staging.unmap();
        Ok(out)
    }

    /// Waits for everything enqueued and copies `view`, if there is one, to the host.
    pub(crate) fn download_view<T: Scalar>(
        &self,
        operation: &'static str,
        view: Option<Region<'_, T>>,
    ) -> Result<Vec<T>> {
        may_block(operation)?;
        let pending = self.begin_download(operation, view)?;
        let timeout = self.shared.timeout;
        let begun = Instant::now();
        let wait = wgpu::PollType::Wait { submission_index: Some(pending.submission.clone()), timeout };
        let mut polled = self.shared.device.poll(wait);
        // Another thread that waits on this device may have taken our callback and not called it yet.
        while polled.is_ok() && lock(&pending.arrival).result.is_none() {
            std::thread::yield_now();
            polled = self.shared.device.poll(wgpu::PollType::Poll);
            if timeout.unwrap_or(CALLBACK).max(CALLBACK) < begun.elapsed() {
                polled = Err(wgpu::PollError::Timeout);
            }
        }
        match polled {
            Err(wgpu::PollError::Timeout) => {
                let milliseconds = begun.elapsed().as_millis() as u64;
                return Err(Error::Timeout { operation, milliseconds });
            }
            Err(error) => return Err(Error::Device { operation, message: error.to_string() }),
            Ok(_) => {}
        }
        self.finish_download(pending)
    }

    /// As [`download_view`](Self::download_view), without blocking.
    pub(crate) async fn download_view_async<T: Scalar>(
        &self,
        operation: &'static str,
        view: Option<Region<'_, T>>,
    ) -> Result<Vec<T>> {
        let pending = self.begin_download(operation, view)?;
        poll_fn(|context| {
            // In a browser devices make progress by themselves; native ones must be polled.
            let polled = self.shared.device.poll(wgpu::PollType::Poll);
            let mut arrival = lock(&pending.arrival);
            if arrival.result.is_some() || polled.is_err() {
                return Poll::Ready(());
            }
            arrival.waker = Some(context.waker().clone());
            drop(arrival);
            if cfg!(not(target_arch = "wasm32")) {
                std::thread::yield_now();
                context.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await;
        self.finish_download(pending)
    }
}
