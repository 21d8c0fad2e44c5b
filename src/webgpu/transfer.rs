//! Submitting, waiting, and copying results to the host.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::element::Scalar;
use crate::error::{Error, Result};
use crate::webgpu::arrival::Arrival;
use crate::webgpu::device::may_block;
use crate::webgpu::faults::{Collected, REPORT_BYTES, Report, Reports, Unread};
use crate::webgpu::memory::Region;
use crate::webgpu::recording::Command;
use crate::webgpu::scope::PollFailure;
use crate::webgpu::state::Wgpu;
use crate::webgpu::suspects::Access;
use crate::webgpu::tally::Asked;
use crate::webgpu::waiter::Wait;

/// How long another thread may take to call the callback of a finished copy.
const CALLBACK: Duration = Duration::from_secs(10);

/// A copy to the host that is under way.
struct Pending<'a> {
    operation: &'static str,
    staging: wgpu::Buffer,
    /// The bytes of the staging buffer that hold the data. The reports follow.
    data: std::ops::Range<usize>,
    reports: Unread<'a>,
    /// Hears of a refusal of the copy: another thread with the same handle must not take it for its own.
    own: Arc<Reports>,
    /// The staging buffer's, then those of the reports that were copied before.
    arrivals: Vec<Arc<Arrival>>,
    submission: wgpu::SubmissionIndex,
}

/// Fails if the copy was refused.
fn check_own(own: &Reports) -> Result<()> {
    own.loss_after(0).map_or(Ok(()), |(error, _)| Err(error))
}

impl Wgpu {
    /// Submits what was recorded and uploaded so far, without waiting. Call it before your own submissions that read results.
    ///
    /// Failures are returned by the next wait of the handles whose work failed; the caller's callback for uncaptured errors is
    /// not called.
    pub fn flush(&self) {
        self.submit();
    }

    fn submit(&self) -> wgpu::SubmissionIndex {
        self.shared.recording.submit(&self.shared.scopes, &self.shared.queue)
    }

    /// A buffer that the host reads.
    fn staging(&self, operation: &'static str, size: u64) -> Result<wgpu::Buffer> {
        self.shared.scopes.tally.add(Asked::Buffer);
        self.scoped(operation, size, || {
            self.shared.scopes.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some(operation),
                size: size.max(4),
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        })
    }

    /// Copies reports to `offset` in a staging buffer.
    fn copy_reports(&self, operation: &'static str, reports: &[Report], staging: &wgpu::Buffer, offset: u64) {
        for (report, to_offset) in reports.iter().zip((offset..).step_by(REPORT_BYTES)) {
            let (from, to) = (report.binding.buffer.clone(), staging.clone());
            let bytes = REPORT_BYTES as u64;
            self.record(
                operation,
                Command::Copy { from, from_offset: 0, to, to_offset, bytes, accesses: vec![] },
            );
        }
    }

    /// Keeps a report whose passes are recorded. Where there are many, they are copied to the host without waiting for them, so that a
    /// handle that never waits does not keep them all on the device.
    pub(crate) fn push_report(&self, report: Report) {
        let Some(reports) = self.reports.push(report) else { return };
        let operation = "check of ids";
        let Ok(staging) = self.staging(operation, (reports.len() * REPORT_BYTES) as u64) else {
            // The call is recorded, so it does not fail: a later one or a wait copies them.
            return self.reports.put_back(reports);
        };
        self.copy_reports(operation, &reports, &staging, 0);
        self.submit();
        match self.scoped(operation, 0, || Arrival::map(&staging)) {
            Ok(arrival) => self.reports.collect(Collected { reports, staging, arrival }),
            Err(error) => self.reports.lose(error),
        }
    }

    /// Reports work that was lost since the last report to this handle, or since it was made.
    fn check_losses(&self) -> Result<()> {
        self.shared.scopes.settle();
        match self.reports.loss_after(self.heard.load(Ordering::Relaxed)) {
            None => Ok(()),
            Some((error, count)) => {
                self.heard.store(count, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// Submits everything, followed by copies of `view` and of the reports.
    fn begin_download<T: Scalar>(
        &self,
        operation: &'static str,
        view: Option<Region<'_, T>>,
    ) -> Result<Pending<'_>> {
        if let Some(view) = &view {
            self.check_device(operation, "view", view)?;
        }
        let (start, bytes) = view.map_or((0, 0), |view| (view.offset, view.bytes()));
        let (first, last) = (start / 4 * 4, (start + bytes).next_multiple_of(4));
        let reports = self.reports.take();
        let size = last - first + (reports.reports().len() * REPORT_BYTES) as u64;
        let staging = self.staging(operation, size)?;
        let own = Arc::default();
        if let Some(view) = view.filter(|_| last > first) {
            let (from, to) = (view.buffer.clone(), staging.clone());
            let bytes = last - first;
            let accesses = Access::read(&from, view.watched()).collect();
            let copy = Command::Copy { from, from_offset: first, to, to_offset: 0, bytes, accesses };
            self.record_for(operation, &own, copy);
        }
        self.copy_reports(operation, reports.reports(), &staging, last - first);
        let submission = self.submit();
        self.check_losses()?;
        check_own(&own)?;
        let mut arrivals = self.reports.arrivals();
        arrivals.insert(0, self.scoped(operation, size, || Arrival::map(&staging))?);
        let data = (start - first) as usize..(start - first + bytes) as usize;
        Ok(Pending { operation, staging, data, reports, own, arrivals, submission })
    }

    fn finish_download<T: Scalar>(&self, pending: Pending<'_>) -> Result<Vec<T>> {
        let Pending { operation, staging, data, reports, own, arrivals, .. } = pending;
        self.check_losses()?;
        check_own(&own)?;
        if !arrivals[0].succeeded() {
            return Err(self.failure(operation, "the copy to the host failed"));
        }
        // A device that is lost now has taken the mapping back.
        let mapped =
            staging.get_mapped_range(..).map_err(|error| self.failure(operation, &error.to_string()))?;
        let first_report = data.end.next_multiple_of(4);
        let found = self.reports.take_found();
        let read = reports.read(&mapped[first_report..]);
        found.and(read)?;
        // The mapped bytes may not be aligned for `T`.
        let mut out = vec![T::zeroed(); data.len() / size_of::<T>()];
        bytemuck::cast_slice_mut(&mut out).copy_from_slice(&mapped[data]);
        // Dropped as it is mapped: to unmap a buffer of a device that was lost meanwhile is an error that nobody handles.
        drop(mapped);
        Ok(out)
    }

    /// The error of a device that does not do what every device does.
    fn failure(&self, operation: &'static str, message: &str) -> Error {
        match self.shared.scopes.is_lost() {
            true => Error::DeviceLost { operation },
            false => Error::Device { operation, message: message.to_owned() },
        }
    }

    fn wait_failure(&self, operation: &'static str, failure: PollFailure, milliseconds: u64) -> Error {
        match failure {
            PollFailure::Timeout => Error::Timeout { operation, milliseconds },
            PollFailure::Lost => Error::DeviceLost { operation },
            PollFailure::Other(message) => self.failure(operation, &message),
        }
    }

    /// Waits for everything enqueued and copies `view`, if there is one, to the host.
    pub(crate) fn download_view<T: Scalar>(
        &self,
        operation: &'static str,
        view: Option<Region<'_, T>>,
    ) -> Result<Vec<T>> {
        may_block(operation)?;
        let pending = self.begin_download(operation, view)?;
        let scopes = &self.shared.scopes;
        let timeout = self.timeout;
        let begun = Instant::now();
        let wait = wgpu::PollType::Wait { submission_index: Some(pending.submission.clone()), timeout };
        let mut polled = scopes.poll(wait);
        // Another thread that waits on this device may have taken our callback and not called it yet.
        while polled.is_ok() && !pending.arrivals.iter().all(|arrival| arrival.is_there()) {
            std::thread::yield_now();
            polled = scopes.poll(wgpu::PollType::Poll);
            if timeout.unwrap_or(CALLBACK).max(CALLBACK) < begun.elapsed() {
                polled = Err(PollFailure::Timeout);
            }
        }
        if let Err(failure) = polled {
            return Err(self.wait_failure(operation, failure, begun.elapsed().as_millis() as u64));
        }
        self.finish_download(pending)
    }

    /// As [`download_view`](Self::download_view), without blocking. The copy is submitted at once.
    pub(crate) fn download_view_async<T: Scalar>(
        &self,
        operation: &'static str,
        view: Option<Region<'_, T>>,
    ) -> impl Future<Output = Result<Vec<T>>> + use<'_, T> {
        let begun = self.begin_download(operation, view);
        async move {
            let pending = begun?;
            let wait = Wait::new(pending.arrivals.clone(), pending.submission.clone(), self.timeout);
            self.shared.waiter.look_after(&self.shared.scopes, &wait);
            poll_fn(|context| wait.poll(context))
                .await
                .map_err(|failure| self.wait_failure(operation, failure, wait.milliseconds()))?;
            self.finish_download(pending)
        }
    }
}
