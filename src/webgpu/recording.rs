//! What is recorded and not yet submitted, and what is submitted and not yet finished.
//!
//! Commands are kept as data and encoded when they are submitted, many in one submission. A device refuses or executes a
//! submission as a whole; if it refuses one, because an owner destroyed a buffer in the meantime, each of its commands is
//! submitted on its own, and failures are reported only to the handles whose commands fail, or read what failed commands should have
//! written.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::error::Error;
use crate::gpu::lock;
use crate::webgpu::faults::{Report, Reports};
use crate::webgpu::pipeline::Pipeline;
use crate::webgpu::scope::Scopes;
use crate::webgpu::suspects::{Access, Suspects, Verdict};
use crate::webgpu::tally::Asked;

/// Commands that are recorded before they are submitted without a request: enough to hide the cost of a submission, few
/// enough that the device starts early.
const COMMANDS_PER_SUBMISSION: usize = 256;

/// Bytes that recorded commands and uploads may hold before they are submitted without a request.
const BYTES_PER_SUBMISSION: u64 = 64 << 20;

/// Bytes that submissions may hold before the next one waits for the oldest.
const BYTES_IN_FLIGHT: u64 = 256 << 20;

/// What a dispatch holds besides its scratch memory, roughly: its parameters, its bind group, and what the device keeps of
/// them.
const BYTES_PER_COMMAND: u64 = 4 << 10;

/// One step of the device.
#[derive(Debug)]
pub(crate) enum Command {
    Dispatch {
        pipeline: Arc<Pipeline>,
        group: wgpu::BindGroup,
        grid: [u32; 2],
        accesses: Vec<Access>,
    },
    Copy {
        from: wgpu::Buffer,
        from_offset: u64,
        to: wgpu::Buffer,
        to_offset: u64,
        bytes: u64,
        accesses: Vec<Access>,
    },
    Clear {
        buffer: wgpu::Buffer,
        offset: u64,
        bytes: u64,
        accesses: Vec<Access>,
    },
}

impl Command {
    /// What it uses of memory that outlives its call and that nobody else writes.
    fn accesses(&self) -> &[Access] {
        match self {
            Self::Dispatch { accesses, .. } | Self::Copy { accesses, .. } | Self::Clear { accesses, .. } => {
                accesses
            }
        }
    }
}

/// A command, the operation and the call it belongs to, and the handle that hears of its failure.
#[derive(Debug)]
struct Recorded {
    command: Command,
    operation: &'static str,
    /// The call's number; 0 for what stands alone.
    call: u64,
    owner: Arc<Reports>,
}

/// What a call has recorded so far. It is done only once the whole call has been recorded, so that a call that fails writes nothing.
#[derive(Debug, Default)]
pub(crate) struct CallRecord {
    pub(crate) steps: Vec<Step>,
    /// Reports that the commands fill.
    pub(crate) reports: Vec<Report>,
    /// Scratch memory in the order in which it was taken, without what was given back.
    pub(crate) scratch: Vec<Option<wgpu::Buffer>>,
    pub(crate) free: Vec<wgpu::Buffer>,
    /// Whether scratch memory is given back before the end of the call.
    pub(crate) has_parts: bool,
}

/// A command of an operation, or bytes that are held until the submission after it has run.
#[derive(Debug)]
pub(crate) enum Step {
    Command(&'static str, Command),
    Hold(u64),
}

/// The submission that is being recorded, and those under way.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    state: Mutex<State>,
    /// Submissions that have finished. They finish in order.
    finished: Arc<AtomicU64>,
    /// Calls that were recorded.
    calls: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    recorded: Vec<Recorded>,
    /// Bytes that the recorded commands, and uploads since the last submission, hold until they have run.
    bytes: u64,
    /// Submissions that may be under way, and the bytes each holds.
    in_flight: VecDeque<(wgpu::SubmissionIndex, u64)>,
    bytes_in_flight: u64,
    /// Submissions that were taken out of `in_flight`.
    retired: u64,
    suspects: Suspects,
}

impl Recording {
    /// Adds a command that stands alone, and submits if there is enough.
    pub(crate) fn record(
        &self,
        scopes: &Scopes,
        queue: &wgpu::Queue,
        operation: &'static str,
        owner: &Arc<Reports>,
        command: Command,
    ) {
        self.add(scopes, queue, Recorded { command, operation, call: 0, owner: owner.clone() });
    }

    fn add(&self, scopes: &Scopes, queue: &wgpu::Queue, recorded: Recorded) {
        let mut state = lock(&self.state);
        state.recorded.push(recorded);
        self.hold_more(state, scopes, queue, BYTES_PER_COMMAND);
    }

    /// Adds what a whole call has recorded.
    pub(crate) fn record_call(
        &self,
        scopes: &Scopes,
        queue: &wgpu::Queue,
        owner: &Arc<Reports>,
        steps: Vec<Step>,
    ) {
        let call = 1 + self.calls.fetch_add(1, Ordering::Relaxed);
        for step in steps {
            match step {
                Step::Command(operation, command) => {
                    let owner = owner.clone();
                    self.add(scopes, queue, Recorded { command, operation, call, owner });
                }
                Step::Hold(bytes) => self.hold(scopes, queue, bytes),
            }
        }
    }

    /// Counts bytes that are held until the next submission has run, and submits if there are enough.
    pub(crate) fn hold(&self, scopes: &Scopes, queue: &wgpu::Queue, bytes: u64) {
        self.hold_more(lock(&self.state), scopes, queue, bytes);
    }

    fn hold_more(&self, mut state: MutexGuard<'_, State>, scopes: &Scopes, queue: &wgpu::Queue, bytes: u64) {
        state.bytes = state.bytes.saturating_add(bytes);
        if state.recorded.len() < COMMANDS_PER_SUBMISSION && state.bytes < BYTES_PER_SUBMISSION {
            return;
        }
        self.submit_state(&mut state, scopes, queue);
        let oldest = (state.bytes_in_flight > BYTES_IN_FLIGHT).then(|| state.in_flight.front().cloned());
        // Other threads record in the meantime.
        drop(state);
        if let Some((submission, _)) = oldest.flatten() {
            scopes.wait_at_most(submission, Duration::from_secs(10));
        }
    }

    /// Submits what was recorded and uploaded so far. What the returned submission finds done includes all of it.
    pub(crate) fn submit(&self, scopes: &Scopes, queue: &wgpu::Queue) -> wgpu::SubmissionIndex {
        self.submit_state(&mut lock(&self.state), scopes, queue)
    }

    /// Submits while the lock is held, so that the submissions of two threads keep the order of their recording.
    fn submit_state(&self, state: &mut State, scopes: &Scopes, queue: &wgpu::Queue) -> wgpu::SubmissionIndex {
        let recorded = std::mem::take(&mut state.recorded);
        let bytes = std::mem::take(&mut state.bytes);
        let submission = submit_all(scopes, queue, &recorded, &mut state.suspects);
        let finished = self.finished.clone();
        queue.on_submitted_work_done(move || {
            finished.fetch_add(1, Ordering::Release);
        });
        state.in_flight.push_back((submission.clone(), bytes));
        state.bytes_in_flight += bytes;
        while state.retired < self.finished.load(Ordering::Acquire) {
            state.retired += 1;
            state.bytes_in_flight -= state.in_flight.pop_front().map_or(0, |(_, bytes)| bytes);
        }
        submission
    }
}

/// Submits commands together, or one by one if the device refuses that.
fn submit_all(
    scopes: &Scopes,
    queue: &wgpu::Queue,
    recorded: &[Recorded],
    suspects: &mut Suspects,
) -> wgpu::SubmissionIndex {
    let before = suspects.clone();
    let mut stale = vec![];
    let mut admitted: Vec<&Recorded> = recorded.iter().collect();
    if !suspects.is_empty() {
        admitted.retain(|one| match judge(suspects, one) {
            Verdict::Runs => true,
            Verdict::Broken => false,
            Verdict::Stale(operation) => {
                stale.push((*one, operation));
                false
            }
        });
    }
    let mut owners: Vec<&Arc<Reports>> = admitted.iter().map(|recorded| &recorded.owner).collect();
    owners.sort_unstable_by_key(|owner| Arc::as_ptr(owner));
    owners.dedup_by_key(|owner| Arc::as_ptr(owner));
    let operation = recorded.last().map_or("submit", |recorded| recorded.operation);
    let submitted = scopes.run(operation, 0, &owners, || {
        queue.submit((!admitted.is_empty()).then(|| encode(scopes, &admitted)))
    });
    if let Ok(submission) = submitted {
        stale.into_iter().for_each(|(one, operation)| lose_stale(scopes, one, operation));
        return submission;
    }
    *suspects = before;
    recorded.iter().for_each(|one| submit_alone(scopes, queue, one, suspects));
    queue.submit([])
}

fn judge(suspects: &mut Suspects, one: &Recorded) -> Verdict {
    suspects.judge(one.call, one.operation, one.command.accesses())
}

/// Submits a command on its own, unless it is of a call that is broken or reads what another one did not write.
fn submit_alone(scopes: &Scopes, queue: &wgpu::Queue, one: &Recorded, suspects: &mut Suspects) {
    match judge(suspects, one) {
        Verdict::Runs => {}
        Verdict::Broken => return,
        Verdict::Stale(operation) => return lose_stale(scopes, one, operation),
    }
    let submitted = scopes.run(one.operation, 0, &[&one.owner], || {
        queue.submit([encode(scopes, &[one])]);
    });
    if let Err(error) = submitted {
        suspects.refuse(one.call, one.operation, one.command.accesses());
        one.owner.lose(error);
    }
}

/// Reports that a command was refused because it reads what an operation did not write.
fn lose_stale(scopes: &Scopes, one: &Recorded, writer: &'static str) {
    let operation = one.operation;
    let message = format!("reads what a call of {writer} should have written, which the device refused");
    one.owner.lose(match scopes.is_lost() {
        true => Error::DeviceLost { operation },
        false => Error::Device { operation, message },
    });
}

/// Encodes commands in their order. Dispatches that follow each other share a pass.
fn encode(scopes: &Scopes, recorded: &[&Recorded]) -> wgpu::CommandBuffer {
    scopes.tally.add(Asked::Submission);
    let mut encoder =
        scopes.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("longseq") });
    let is_dispatch = |recorded: &&Recorded| matches!(recorded.command, Command::Dispatch { .. });
    for run in recorded.chunk_by(|a, b| is_dispatch(a) && is_dispatch(b)) {
        let mut pass = None;
        for Recorded { command, operation, .. } in run {
            match command {
                Command::Dispatch { pipeline, group, grid: [width, height], .. } => {
                    let pass = pass.get_or_insert_with(|| {
                        let descriptor =
                            wgpu::ComputePassDescriptor { label: Some(*operation), timestamp_writes: None };
                        // The pass ends with its run, before the encoder is used again.
                        encoder.begin_compute_pass(&descriptor).forget_lifetime()
                    });
                    scopes.tally.add(Asked::Dispatch);
                    pass.set_pipeline(&pipeline.pipeline);
                    pass.set_bind_group(0, group, &[]);
                    pass.dispatch_workgroups(*width, *height, 1);
                }
                Command::Copy { from, from_offset, to, to_offset, bytes, .. } => {
                    scopes.tally.add(Asked::Copy);
                    encoder.copy_buffer_to_buffer(from, *from_offset, to, *to_offset, Some(*bytes));
                }
                Command::Clear { buffer, offset, bytes, .. } => {
                    scopes.tally.add(Asked::Clear);
                    encoder.clear_buffer(buffer, *offset, Some(*bytes));
                }
            }
        }
    }
    encoder.finish()
}
