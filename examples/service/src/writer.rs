//! The thread that writes: events of all requests that wait, in one transaction. Only then does the state get them, and only after
//! that are they acknowledged.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, Sender};

use crate::batcher::{Acknowledge, Work};
use crate::metrics::Metrics;
use crate::store::{NewEvent, Snapshot, Store};

/// What the thread is sent.
pub(crate) enum Task {
    Events(Vec<NewEvent>, Acknowledge),
    Snapshots(Vec<Snapshot>),
    Stop,
}

/// The most tasks of a transaction.
const MOST: usize = 256;

/// The thread's own.
pub(crate) struct Writer {
    pub(crate) store: Arc<Store>,
    pub(crate) tasks: Receiver<Task>,
    pub(crate) work: Sender<Work>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Writer {
    /// Works until it is sent [`Task::Stop`].
    pub(crate) fn run(self) {
        while let Ok(first) = self.tasks.recv() {
            let (mut events, mut snapshots, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
            let mut stops = false;
            for task in std::iter::once(first).chain(self.tasks.try_iter().take(MOST - 1)) {
                match task {
                    Task::Events(new, acknowledge) => {
                        events.extend(new);
                        waiting.push(acknowledge);
                    }
                    Task::Snapshots(new) => snapshots.extend(new),
                    Task::Stop => stops = true,
                }
            }
            self.write(&events, &snapshots, waiting);
            if stops {
                return;
            }
        }
    }

    fn write(&self, events: &[NewEvent], snapshots: &[Snapshot], waiting: Vec<Acknowledge>) {
        if events.is_empty() && snapshots.is_empty() {
            return;
        }
        match self.store.write(events, snapshots) {
            Ok(written) => {
                self.metrics.snapshots_written.fetch_add(snapshots.len() as u64, Relaxed);
                if !waiting.is_empty() {
                    self.metrics.commits.add(waiting.len() as f64);
                    // After a stop nobody takes them: they are on disk, and not acknowledged.
                    let _ = self.work.send(Work::Written(written, waiting));
                }
            }
            Err(error) => {
                eprintln!("not written: {error}");
                for Acknowledge { reply, .. } in waiting {
                    let _ = reply.send(Err(format!("not written: {error}")));
                }
            }
        }
    }
}
