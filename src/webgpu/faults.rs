//! Ids out of range: found on the device, and reported by the next wait of the handle that made the call.

use std::sync::Mutex;

use crate::error::{Error, Result};
use crate::gpu::{Bound, lock};
use crate::webgpu::binding::Binding;

/// Where a kernel reports bad ids: `[position, id]`. The position starts at `u32::MAX`, and an atomic minimum keeps the
/// lowest; a later pass of one thread fetches the id at that position.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) binding: Binding,
    pub(crate) operation: &'static str,
    pub(crate) argument: &'static str,
    pub(crate) bound: Bound,
}

/// Bytes of a report in a staging buffer.
const BYTES: usize = 8;

impl Report {
    /// The error that it holds, if any.
    fn check(&self, bytes: &[u8]) -> Result<()> {
        let words: [u32; 2] = bytemuck::pod_read_unaligned(bytes);
        if words[0] == u32::MAX {
            return Ok(());
        }
        let [position, id] = words.map(u64::from);
        let Self { operation, argument, ref bound, .. } = *self;
        Err(Error::IndexOutOfRange { operation, argument, position, id, bound: bound.at(position) })
    }
}

/// The reports of calls that were recorded completely and that no wait has read yet.
#[derive(Debug, Default)]
pub(crate) struct Reports(Mutex<Vec<Report>>);

impl Reports {
    pub(crate) fn push(&self, report: Report) {
        lock(&self.0).push(report);
    }

    /// Takes the reports out to be read. Those that are dropped unread go back, for a later wait to find.
    pub(crate) fn take(&self) -> Unread<'_> {
        Unread { reports: std::mem::take(&mut *lock(&self.0)), origin: self }
    }
}

/// Reports on their way to the host.
#[derive(Debug)]
pub(crate) struct Unread<'a> {
    reports: Vec<Report>,
    origin: &'a Reports,
}

impl Unread<'_> {
    /// Their bytes in a staging buffer.
    pub(crate) fn bytes(&self) -> u64 {
        (self.reports.len() * BYTES) as u64
    }

    /// Copies them to `offset` in a staging buffer.
    pub(crate) fn copy(&self, encoder: &mut wgpu::CommandEncoder, staging: &wgpu::Buffer, offset: u64) {
        for (report, to) in self.reports.iter().zip((offset..).step_by(BYTES)) {
            encoder.copy_buffer_to_buffer(&report.binding.buffer, 0, staging, to, Some(BYTES as u64));
        }
    }

    /// The first error among them, from the bytes that the device wrote.
    pub(crate) fn read(mut self, bytes: &[u8]) -> Result<()> {
        let reports = std::mem::take(&mut self.reports);
        reports.iter().zip(bytes.chunks_exact(BYTES)).try_for_each(|(report, bytes)| report.check(bytes))
    }
}

impl Drop for Unread<'_> {
    fn drop(&mut self) {
        let mut kept = lock(&self.origin.0);
        self.reports.append(&mut kept);
        *kept = std::mem::take(&mut self.reports);
    }
}
