//! The thread that waits for the stream where a caller must not block.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::gpu::sync::{Arc, Mutex, lock, spawn, wake};

/// Something that blocks.
type Job = Box<dyn FnOnce() + Send>;

/// Does jobs in the order in which they were given.
#[derive(Default)]
pub(super) struct Waiter {
    /// `None` where there is no thread.
    jobs: Mutex<Option<VecDeque<Job>>>,
    /// Held while a job is done, until its result is where it goes.
    turn: Mutex<()>,
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waiter")
    }
}

impl Waiter {
    /// Has a thread do what blocks; it ends when there is nothing to do. The job is called with whether its result is still wanted. A result
    /// that nobody takes goes to `unclaimed`. Where no thread can be started the caller does the job.
    pub(super) fn wait<R: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&dyn Fn() -> bool) -> R + Send + 'static,
        unclaimed: impl FnOnce(R) + Send + 'static,
    ) -> Outcome<R> {
        let unclaimed: Option<Box<dyn FnOnce(R) + Send>> = Some(Box::new(unclaimed));
        let landing = Landing { result: None, waker: None, is_wanted: true, unclaimed };
        let outcome = Outcome(Arc::new(Mutex::new(landing)));
        let promise = Promise(outcome.0.clone());
        let waiter = self.clone();
        self.add(Box::new(move || {
            let waker = {
                let _turn = lock(&waiter.turn);
                let result = job(&|| lock(&promise.0).is_wanted);
                promise.land(Some(result))
            };
            if let Some(waker) = waker {
                wake(waker);
            }
        }));
        outcome
    }

    /// Waits for the job that is being done, if there is one: what it found for a wait that was given up is there then.
    pub(super) fn settle(&self) {
        drop(lock(&self.turn));
    }

    fn add(self: &Arc<Self>, job: Job) {
        let mut jobs = lock(&self.jobs);
        if let Some(jobs) = jobs.as_mut() {
            jobs.push_back(job);
            return;
        }
        let waiter = self.clone();
        match spawn("longseq-cuda", move || waiter.run()) {
            Ok(()) => *jobs = Some([job].into()),
            Err(_) => {
                drop(jobs);
                job();
            }
        }
    }

    fn run(&self) {
        while let Some(job) = self.next() {
            // Whoever waits hears of a panic from the promise that was not kept.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    }

    /// The next job; `None`, and no thread from here on, if there is none.
    fn next(&self) -> Option<Job> {
        let mut jobs = lock(&self.jobs);
        let job = jobs.as_mut().and_then(VecDeque::pop_front);
        if job.is_none() {
            *jobs = None;
        }
        job
    }
}

/// Where a result arrives.
struct Landing<R> {
    /// `Some(None)` where the job panicked.
    result: Option<Option<R>>,
    waker: Option<Waker>,
    is_wanted: bool,
    unclaimed: Option<Box<dyn FnOnce(R) + Send>>,
}

impl<R> Landing<R> {
    /// Hands a result that nobody wants to whom that concerns. Not under the lock: it may take others.
    fn give_up(landing: &Mutex<Self>) {
        let (result, unclaimed) = {
            let mut landing = lock(landing);
            (landing.result.take().flatten(), landing.unclaimed.take())
        };
        if let (Some(result), Some(unclaimed)) = (result, unclaimed) {
            unclaimed(result);
        }
    }
}

/// The side of the thread.
struct Promise<R>(Arc<Mutex<Landing<R>>>);

impl<R> Promise<R> {
    /// Returns whom to wake.
    fn land(&self, result: Option<R>) -> Option<Waker> {
        let (waker, is_wanted) = {
            let mut landing = lock(&self.0);
            landing.result = Some(result);
            (landing.waker.take(), landing.is_wanted)
        };
        if !is_wanted {
            Landing::give_up(&self.0);
        }
        waker
    }
}

impl<R> Drop for Promise<R> {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(waker) = self.land(None)
        {
            wake(waker);
        }
    }
}

/// The result of a job, when it is there; `None` where the job panicked.
pub(super) struct Outcome<R>(Arc<Mutex<Landing<R>>>);

impl<R> Future for Outcome<R> {
    type Output = Option<R>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<R>> {
        let mut landing = lock(&self.0);
        match landing.result.take() {
            Some(result) => {
                landing.unclaimed = None;
                Poll::Ready(result)
            }
            None => {
                landing.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<R> Drop for Outcome<R> {
    fn drop(&mut self) {
        let has_landed = {
            let mut landing = lock(&self.0);
            landing.is_wanted = false;
            landing.result.is_some()
        };
        if has_landed {
            Landing::give_up(&self.0);
        }
    }
}
