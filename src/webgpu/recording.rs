//! Passes recorded into one submission.

use std::sync::{Mutex, MutexGuard};

use crate::gpu::lock;

/// Passes that are recorded before they are submitted without a request: enough to hide the cost of a submission, few
/// enough that the device starts early.
const PASSES_PER_SUBMISSION: usize = 256;

/// The submission that is being recorded.
#[derive(Debug, Default)]
pub(crate) struct Recording(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    encoder: Option<wgpu::CommandEncoder>,
    passes: usize,
}

impl Recording {
    /// Adds to the submission, and submits it once it is long enough.
    pub(crate) fn record(
        &self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        add: impl FnOnce(&mut wgpu::CommandEncoder),
    ) {
        let mut state = lock(&self.0);
        let encoder = state.encoder.get_or_insert_with(|| {
            device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("longseq") })
        });
        add(encoder);
        state.passes += 1;
        if state.passes >= PASSES_PER_SUBMISSION {
            submit(state, queue);
        }
    }

    /// Submits what was recorded, if anything was.
    pub(crate) fn submit(&self, queue: &wgpu::Queue) -> Option<wgpu::SubmissionIndex> {
        submit(lock(&self.0), queue)
    }
}

/// Submits while the lock is held, so that the submissions of two threads keep the order of their recording.
fn submit(mut state: MutexGuard<'_, State>, queue: &wgpu::Queue) -> Option<wgpu::SubmissionIndex> {
    state.passes = 0;
    let encoder = state.encoder.take()?;
    Some(queue.submit([encoder.finish()]))
}
