//! Turns the device's failures into errors, of the call or of the handle that caused them.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::webgpu::faults::Reports;
use crate::webgpu::tally::Tally;

/// The device, and what it says later than the call that caused it.
#[derive(Debug)]
pub(crate) struct Scopes {
    device: wgpu::Device,
    /// For tests: how many allocations from now the one is that fails; 0 where none does.
    failing: AtomicU64,
    pub(crate) tally: Tally,
    #[cfg(target_arch = "wasm32")]
    deferred: std::sync::Mutex<Vec<Deferred>>,
}

/// An answer that a browser owes.
#[cfg(target_arch = "wasm32")]
struct Deferred {
    operation: &'static str,
    bytes: u64,
    owners: Vec<Arc<Reports>>,
    error: std::pin::Pin<Box<dyn Future<Output = Option<wgpu::Error>>>>,
}

#[cfg(target_arch = "wasm32")]
impl std::fmt::Debug for Deferred {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deferred").field("operation", &self.operation).finish_non_exhaustive()
    }
}

/// How a wait ended, if not well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PollFailure {
    Timeout,
    Lost,
    Other(String),
}

impl Scopes {
    pub(crate) fn new(device: wgpu::Device) -> Self {
        Self {
            device,
            failing: AtomicU64::new(0),
            tally: Tally::default(),
            #[cfg(target_arch = "wasm32")]
            deferred: std::sync::Mutex::default(),
        }
    }

    pub(crate) fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// Makes the `nth` allocation from now on fail, once; none with 0.
    pub(crate) fn fail_allocation(&self, nth: u64) {
        self.failing.store(nth, Ordering::Relaxed);
    }

    /// Whether this allocation is the one that is to fail.
    fn is_to_fail(&self) -> bool {
        let next = |left: u64| left.checked_sub(1);
        self.failing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) == Ok(1)
    }

    /// Runs `work` and returns the device's error if there was one. A browser answers later: its error is reported to `owners`
    /// when they wait.
    ///
    /// Error scopes catch only what this thread does in the meantime, and the caller's own scopes and callbacks do not see it.
    pub(crate) fn run<R>(
        &self,
        operation: &'static str,
        bytes: u64,
        owners: &[&Arc<Reports>],
        work: impl FnOnce() -> R,
    ) -> Result<R> {
        if bytes > 0 && self.is_to_fail() {
            return Err(Error::OutOfMemory { operation, bytes });
        }
        let invalid = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let result = work();
        let mut first = None;
        for answer in [internal.pop(), memory.pop(), invalid.pop()] {
            first = first.or(self.answer(operation, bytes, owners, answer));
        }
        match first {
            None => Ok(result),
            Some(error) => Err(self.error(operation, bytes, &error)),
        }
    }

    /// The answer of a scope. Native devices have it at once.
    #[cfg(not(target_arch = "wasm32"))]
    fn answer(
        &self,
        _: &'static str,
        _: u64,
        _: &[&Arc<Reports>],
        answer: impl Future<Output = Option<wgpu::Error>>,
    ) -> Option<wgpu::Error> {
        now(answer).flatten()
    }

    /// The answer of a scope, if it is there; otherwise it is kept.
    #[cfg(target_arch = "wasm32")]
    fn answer(
        &self,
        operation: &'static str,
        bytes: u64,
        owners: &[&Arc<Reports>],
        answer: impl Future<Output = Option<wgpu::Error>> + 'static,
    ) -> Option<wgpu::Error> {
        let mut error = Box::pin(answer);
        match error.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(error) => error,
            Poll::Pending => {
                let owners = owners.iter().map(|&owner| owner.clone()).collect();
                let deferred = Deferred { operation, bytes, owners, error };
                crate::gpu::lock(&self.deferred).push(deferred);
                None
            }
        }
    }

    /// Tells the owners of errors that have arrived since. Answers arrive in the order of the calls, before the results of
    /// later copies.
    pub(crate) fn settle(&self) {
        #[cfg(target_arch = "wasm32")]
        crate::gpu::lock(&self.deferred).retain_mut(|deferred| {
            match deferred.error.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => true,
                Poll::Ready(None) => false,
                Poll::Ready(Some(error)) => {
                    let error = self.error(deferred.operation, deferred.bytes, &error);
                    deferred.owners.iter().for_each(|owner| owner.lose(error.clone()));
                    false
                }
            }
        });
    }

    fn error(&self, operation: &'static str, bytes: u64, error: &wgpu::Error) -> Error {
        match error {
            wgpu::Error::OutOfMemory { .. } => Error::OutOfMemory { operation, bytes },
            // A lost device makes objects without an error, and refuses them when they are used.
            _ if self.is_lost() => Error::DeviceLost { operation },
            error => Error::Device { operation, message: error.to_string() },
        }
    }

    /// Whether the device is lost: it then refuses at once what every other device accepts and does later. The callback for
    /// lost devices is the caller's. In a browser the answer comes too late, and is no.
    pub(crate) fn is_lost(&self) -> bool {
        let invalid = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("probe"),
            size: 4,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let refused = Arc::new(AtomicBool::new(false));
        let answer = refused.clone();
        buffer.map_async(wgpu::MapMode::Read, .., move |result| {
            answer.store(result.is_err(), Ordering::Relaxed);
        });
        let lost = refused.load(Ordering::Relaxed);
        let answers = [now(internal.pop()), now(memory.pop()), now(invalid.pop())];
        let short_of_memory = matches!(answers[1], Some(Some(_)));
        lost && !short_of_memory
    }

    /// Lets the device make progress. A driver that fails while it is waited for makes `wgpu` panic; that is a lost device.
    pub(crate) fn poll(&self, poll: wgpu::PollType) -> std::result::Result<(), PollFailure> {
        match catch_unwind(AssertUnwindSafe(|| self.device.poll(poll))) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(wgpu::PollError::Timeout)) => Err(PollFailure::Timeout),
            Ok(Err(error)) => Err(PollFailure::Other(error.to_string())),
            Err(_) => Err(PollFailure::Lost),
        }
    }

    /// Waits until a submission has finished, or for so long, or not at all in a browser. Whoever reads results hears of
    /// failures.
    pub(crate) fn wait_at_most(&self, submission: wgpu::SubmissionIndex, time: Duration) {
        if cfg!(not(target_arch = "wasm32")) {
            let _ =
                self.poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: Some(time) });
        }
    }
}

/// The result of a future, if it is there already.
fn now<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}
