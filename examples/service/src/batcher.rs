//! The thread that owns the state: it answers the requests that come within a short time by one call of each operation, and adds
//! events that are on disk.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::metrics::Metrics;
use crate::state::State;
use crate::store::Written;
use crate::writer::Task;

/// A request for scores, whose user and items have been checked.
pub(crate) struct RankJob {
    pub(crate) user: u64,
    /// Numbers of rows.
    pub(crate) items: Vec<u32>,
    pub(crate) reply: oneshot::Sender<Result<Vec<f32>, String>>,
    /// In the queue, until it is answered.
    pub(crate) place: OwnedSemaphorePermit,
}

/// Who waits for events to be on disk and in the state.
pub(crate) struct Acknowledge {
    pub(crate) reply: oneshot::Sender<Result<(), String>>,
    /// In the queue, until it is answered.
    pub(crate) place: OwnedSemaphorePermit,
}

/// What the thread is sent.
pub(crate) enum Work {
    Rank(RankJob),
    /// Events that are on disk.
    Written(Vec<Written>, Vec<Acknowledge>),
    Stop,
}

/// How requests are gathered, and when tables are saved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// How long the first request of a batch waits for others.
    pub(crate) budget: Duration,
    /// The most requests of a batch.
    pub(crate) most: usize,
    /// Tables that have been different from their snapshot for so long are saved.
    pub(crate) save_after: Duration,
}

/// Tables that are saved at a time: each takes a copy and a checksum, while requests wait.
const SAVED_AT_A_TIME: usize = 8;
/// How often tables are saved.
const SAVE_EVERY: Duration = Duration::from_millis(50);

/// The thread's own.
pub(crate) struct Batcher {
    pub(crate) state: State,
    pub(crate) pace: Pace,
    pub(crate) work: Receiver<Work>,
    pub(crate) writer: Sender<Task>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Batcher {
    /// Works until it is sent [`Work::Stop`] or nobody can send any more, then saves what is unsaved.
    pub(crate) fn run(mut self) {
        let mut goes_on = true;
        let mut saved = Instant::now();
        while goes_on {
            let mut jobs = Vec::new();
            goes_on = self.gather(&mut jobs);
            self.answer(jobs);
            if saved.elapsed() >= SAVE_EVERY {
                self.save(SAVED_AT_A_TIME, self.pace.save_after);
                saved = Instant::now();
            }
        }
        self.save(usize::MAX, Duration::ZERO);
        // It ends when nobody can send any more, otherwise.
        let _ = self.writer.send(Task::Stop);
    }

    /// Takes requests until the first has waited for the budget; returns whether the thread goes on. Events that come meanwhile are
    /// added at once: whoever sent them is waiting, and requests that came before may see them or not.
    fn gather(&mut self, jobs: &mut Vec<RankJob>) -> bool {
        let mut until = Instant::now() + SAVE_EVERY;
        while jobs.len() < self.pace.most {
            match self.work.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Work::Rank(job)) => {
                    if jobs.is_empty() {
                        until = Instant::now() + self.pace.budget;
                    }
                    jobs.push(job);
                }
                Ok(Work::Written(events, waiting)) => {
                    self.state.apply(&events);
                    self.metrics.events.fetch_add(events.len() as u64, Relaxed);
                    for Acknowledge { reply, place } in waiting {
                        // Whoever has gone does not need an answer.
                        let _ = reply.send(Ok(()));
                        drop(place);
                    }
                }
                Ok(Work::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        true
    }

    /// Answers requests by one call of each operation.
    fn answer(&mut self, jobs: Vec<RankJob>) {
        let (mut ready, mut scores) = (Vec::new(), Vec::new());
        for job in jobs {
            if job.reply.is_closed() {
                continue;
            }
            match self.state.ensure(job.user) {
                Ok(()) => ready.push(job),
                Err(error) => {
                    let _ = job.reply.send(Err(error.to_string()));
                }
            }
        }
        if ready.is_empty() {
            return;
        }
        self.metrics.batches.add(ready.len() as f64);
        let requests: Vec<(u64, &[u32])> = ready.iter().map(|job| (job.user, &job.items[..])).collect();
        let ranked = self.state.rank(&requests).map_err(|error| error.to_string());
        match ranked {
            Ok(ranked) => scores.extend(ranked.into_iter().map(Ok)),
            Err(error) => scores.resize(ready.len(), Err(error)),
        }
        for (RankJob { reply, place, .. }, scores) in ready.into_iter().zip(scores) {
            let _ = reply.send(scores);
            drop(place);
        }
    }

    /// Sends snapshots to the writer.
    fn save(&mut self, most: usize, age: Duration) {
        match self.state.unsaved(most, age) {
            Ok(snapshots) if !snapshots.is_empty() => {
                let _ = self.writer.send(Task::Snapshots(snapshots));
            }
            Ok(_) => {}
            Err(error) => eprintln!("tables are not saved: {error}"),
        }
    }
}
