//! Ids out of range: found on the device, told to the host at the next wait.

use crate::error::{Error, Result};
use crate::webgpu::Wgpu;
use crate::webgpu::launch::{Binding, lock};

/// Where a kernel notes bad ids: `[position, id]`. The position starts at `u32::MAX` and an atomic minimum keeps the
/// lowest; a later pass of one thread fetches the id that stands there.
#[derive(Debug)]
pub(crate) struct Report {
    buffer: wgpu::Buffer,
    operation: &'static str,
    argument: &'static str,
    rows: Limits,
}

/// What a word must be below.
#[derive(Debug)]
pub(crate) enum Limits {
    /// One limit a column: position `p` is of column `p % columns`.
    Columns(Vec<u64>),
    /// One limit a row of so many columns.
    Rows(Vec<u64>, usize),
}

impl Limits {
    fn at(&self, position: u64) -> u64 {
        let (limits, index) = match self {
            Self::Columns(limits) => (limits, position as usize % limits.len().max(1)),
            Self::Rows(limits, columns) => (limits, position as usize / columns),
        };
        limits.get(index).copied().unwrap_or(0)
    }
}

impl Report {
    /// What it takes in a staging buffer.
    pub(crate) const BYTES: usize = 8;

    pub(crate) fn copy(&self, encoder: &mut wgpu::CommandEncoder, staging: &wgpu::Buffer, offset: u64) {
        encoder.copy_buffer_to_buffer(&self.buffer, 0, staging, offset, Some(Self::BYTES as u64));
    }

    /// The first error among some reports, whose bytes the device wrote.
    pub(crate) fn first_error(reports: &[Self], bytes: &[u8]) -> Result<()> {
        for (report, bytes) in reports.iter().zip(bytes.chunks_exact(Self::BYTES)) {
            let words: [u32; 2] = bytemuck::pod_read_unaligned(bytes);
            let [position, id] = words.map(u64::from);
            if words[0] != u32::MAX {
                return Err(Error::IndexOutOfRange {
                    operation: report.operation,
                    argument: report.argument,
                    position,
                    id,
                    rows: report.rows.at(position),
                });
            }
        }
        Ok(())
    }
}

impl Wgpu {
    /// A fresh record for one argument of one call, and its binding.
    pub(crate) fn report(
        &self,
        operation: &'static str,
        argument: &'static str,
        rows: Limits,
    ) -> Result<Binding> {
        let buffer = self.allocate(operation, 16)?;
        self.shared.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&[u32::MAX, 0]));
        let binding = Binding { buffer: buffer.clone(), offset: 0, size: 16, base: 0 };
        lock(&self.shared.reports).push(Report { buffer, operation, argument, rows });
        Ok(binding)
    }

    pub(crate) fn take_reports(&self) -> Vec<Report> {
        std::mem::take(&mut lock(&self.shared.reports))
    }

    /// Puts reports back in front of newer ones.
    pub(crate) fn return_reports(&self, mut reports: Vec<Report>) {
        let mut kept = lock(&self.shared.reports);
        reports.append(&mut kept);
        *kept = reports;
    }
}
