//! The thread that waits for copies to the host where a caller must not block.
#![cfg_attr(target_arch = "wasm32", allow(dead_code, reason = "there are no threads in a browser"))]

use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::gpu::sync::{Arc, Mutex, Weak, lock, wake};
#[cfg(not(target_arch = "wasm32"))]
use crate::gpu::sync::{sleep, spawn};
use crate::webgpu::arrival::Arrival;
use crate::webgpu::scope::{PollFailure, Scopes};

/// How long the thread waits before it looks at deadlines and at waits that were added.
#[cfg(not(target_arch = "wasm32"))]
const SLICE: Duration = Duration::from_millis(20);

/// A wait for several mappings without blocking.
#[derive(Debug)]
pub(crate) struct Wait {
    arrivals: Vec<Arc<Arrival>>,
    submission: wgpu::SubmissionIndex,
    begun: Option<Instant>,
    deadline: Option<Instant>,
    /// How the thread's wait failed, and whom to wake then.
    failure: Mutex<(Option<PollFailure>, Option<Waker>)>,
}

impl Wait {
    pub(crate) fn new(
        arrivals: Vec<Arc<Arrival>>,
        submission: wgpu::SubmissionIndex,
        timeout: Option<Duration>,
    ) -> Arc<Self> {
        // A browser has no such clock, and no thread to look at it.
        let begun = cfg!(not(target_arch = "wasm32")).then(Instant::now);
        let deadline = begun.zip(timeout).and_then(|(begun, timeout)| begun.checked_add(timeout));
        Arc::new(Self { arrivals, submission, begun, deadline, failure: Mutex::default() })
    }

    fn is_over(&self) -> bool {
        lock(&self.failure).0.is_some() || self.arrivals.iter().all(|arrival| arrival.is_there())
    }

    fn fail(&self, failure: PollFailure) {
        let waker = {
            let mut state = lock(&self.failure);
            state.0 = Some(failure);
            state.1.take()
        };
        if let Some(waker) = waker {
            wake(waker);
        }
    }

    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<Result<(), PollFailure>> {
        if self.arrivals.iter().filter(|arrival| !arrival.poll(context)).count() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut state = lock(&self.failure);
        if let Some(failure) = &state.0 {
            return Poll::Ready(Err(failure.clone()));
        }
        state.1 = Some(context.waker().clone());
        Poll::Pending
    }

    /// The time waited so far.
    pub(crate) fn milliseconds(&self) -> u64 {
        self.begun.map_or(0, |begun| begun.elapsed().as_millis() as u64)
    }
}

/// The waits that the thread looks after; `None` where there is no thread.
#[derive(Debug, Default)]
pub(crate) struct Waiter(Mutex<Option<Vec<Weak<Wait>>>>);

impl Waiter {
    /// In a browser devices make progress by themselves, and there are no threads.
    #[cfg(target_arch = "wasm32")]
    pub(crate) fn look_after(&self, _: &Scopes, _: &Arc<Wait>) {}
}

#[cfg(not(target_arch = "wasm32"))]
impl Waiter {
    /// Has the device polled until the wait is over or dropped, by a thread that ends when there are no waits.
    pub(crate) fn look_after(self: &Arc<Self>, scopes: &Arc<Scopes>, wait: &Arc<Wait>) {
        let mut waits = lock(&self.0);
        if let Some(waits) = waits.as_mut() {
            waits.push(Arc::downgrade(wait));
            return;
        }
        let (waiter, scopes) = (self.clone(), scopes.clone());
        match spawn("longseq-wgpu", move || waiter.run(&scopes)) {
            Ok(()) => *waits = Some(vec![Arc::downgrade(wait)]),
            Err(error) => wait.fail(PollFailure::Other(format!("no thread to wait on: {error}"))),
        }
    }

    fn run(&self, scopes: &Scopes) {
        while let Some(waits) = self.current() {
            let now = Instant::now();
            let mut slice = SLICE;
            for wait in &waits {
                match wait.deadline.map(|deadline| deadline.saturating_duration_since(now)) {
                    Some(Duration::ZERO) => wait.fail(PollFailure::Timeout),
                    Some(left) => slice = slice.min(left),
                    None => {}
                }
            }
            let Some(oldest) = waits.iter().find(|wait| !wait.is_over()) else { continue };
            let submission_index = Some(oldest.submission.clone());
            match scopes.poll(wgpu::PollType::Wait { submission_index, timeout: Some(slice) }) {
                Err(PollFailure::Timeout) => {}
                Err(failure) => oldest.fail(failure),
                // Another thread that polls this device may have taken the callback and not called it yet.
                Ok(()) if !oldest.is_over() => sleep(Duration::from_micros(50)),
                Ok(()) => {}
            }
        }
    }

    /// The waits that are not over; `None`, and no thread from here on, if there are none.
    fn current(&self) -> Option<Vec<Arc<Wait>>> {
        let mut waits = lock(&self.0);
        let kept: Vec<Arc<Wait>> =
            waits.iter().flatten().filter_map(Weak::upgrade).filter(|wait| !wait.is_over()).collect();
        *waits = (!kept.is_empty()).then(|| kept.iter().map(Arc::downgrade).collect());
        (!kept.is_empty()).then_some(kept)
    }
}
