//! Copies between host and device, and waiting.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::element::Scalar;
use crate::error::{Error, Result};
use crate::gpu::lock;
use crate::webgpu::Wgpu;
use crate::webgpu::device::{may_block, scoped};
use crate::webgpu::faults::Unread;
use crate::webgpu::memory::{Region, WgpuBuffer};

/// How long the callback of a finished copy may take to be called by another thread.
const CALLBACK: Duration = Duration::from_secs(10);

/// What a mapping's callback leaves behind.
#[derive(Debug, Default)]
struct Arrival {
    result: Option<std::result::Result<(), wgpu::BufferAsyncError>>,
    waker: Option<Waker>,
}

/// A copy on its way to the host.
pub(crate) struct Pending<'a> {
    operation: &'static str,
    staging: wgpu::Buffer,
    /// How many of the staging buffer's bytes are the data; where they begin; the reports stand behind them.
    data: std::ops::Range<usize>,
    reports: Unread<'a>,
    arrival: Arc<Mutex<Arrival>>,
    submission: wgpu::SubmissionIndex,
}

impl Wgpu {
    pub(crate) fn allocate(&self, operation: &'static str, size: u64) -> Result<wgpu::Buffer> {
        let limit = self.limits().max_buffer_size;
        if size > limit {
            return Err(Error::Limit { operation, argument: "buffer", needed: size, limit });
        }
        let device = &self.shared.device;
        scoped(device, operation, size, || {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(operation),
                size,
                usage: wgpu::BufferUsages::STORAGE
                    | wgpu::BufferUsages::COPY_SRC
                    | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        })
    }

    pub(crate) fn zeroed<T: Scalar>(&self, operation: &'static str, length: usize) -> Result<WgpuBuffer<T>> {
        // Whole 16 bytes: the kernels read four elements at a time.
        let size = (length as u64).saturating_mul(size_of::<T>() as u64);
        let size = size.checked_next_multiple_of(16).unwrap_or(u64::MAX).max(16);
        Ok(WgpuBuffer::allocated(self.allocate(operation, size)?, length))
    }

    pub(crate) fn upload_slice<T: Scalar>(
        &self,
        operation: &'static str,
        data: &[T],
    ) -> Result<WgpuBuffer<T>> {
        let buffer = self.zeroed(operation, data.len())?;
        let bytes: &[u8] = bytemuck::cast_slice(data);
        let whole = bytes.len() / 4 * 4;
        scoped(&self.shared.device, operation, bytes.len() as u64, || {
            let queue = &self.shared.queue;
            queue.write_buffer(buffer.buffer(), 0, &bytes[..whole]);
            if whole < bytes.len() {
                // Copies count in whole words of 4 bytes.
                let mut last = [0; 4];
                last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
                queue.write_buffer(buffer.buffer(), whole as u64, &last);
            }
        })?;
        Ok(buffer)
    }

    /// Submits everything, with a copy of `view` and of the error records behind it.
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
        // Another thread may have submitted our recording; the queue runs in order, so an empty one is behind it.
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
        let behind = data.end.next_multiple_of(4);
        reports.read(&mapped[behind..])?;
        // The bytes need not be aligned for `T`: copy them into a vector that is.
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
        // Another thread that waits on this device may have taken our callback along and not called it yet.
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

    /// The same without blocking.
    pub(crate) async fn download_view_async<T: Scalar>(
        &self,
        operation: &'static str,
        view: Option<Region<'_, T>>,
    ) -> Result<Vec<T>> {
        let pending = self.begin_download(operation, view)?;
        poll_fn(|context| {
            // A browser's device polls itself; a native one moves only when asked.
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
