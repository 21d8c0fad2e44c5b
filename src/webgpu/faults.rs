//! What the device finds wrong after a call has returned, reported by the next wait of the handle that made the call: ids out of
//! range, and work that the device refused.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::error::{Error, Result};
use crate::gpu::{Bound, lock};
use crate::webgpu::arrival::Arrival;
use crate::webgpu::binding::Binding;

/// Where a kernel reports bad ids: `[position, id, check]`. The position starts at `u32::MAX`, and an atomic minimum keeps the
/// lowest; a later pass of one thread fetches the id at that position, and of several checks the first that failed.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) binding: Binding,
    pub(crate) operation: &'static str,
    /// What is checked: an argument and its bound.
    pub(crate) checks: Vec<(&'static str, Bound)>,
}

/// Bytes of a report in a staging buffer.
pub(crate) const REPORT_BYTES: usize = 12;

/// Reports that a handle keeps on the device before they are copied to the host without a wait.
const MOST_OPEN: usize = 256;

/// Failures that are kept for handles that have not heard of them.
const MOST_LOSSES: usize = 64;

impl Report {
    /// The error that it holds, if any.
    fn check(&self, bytes: &[u8]) -> Result<()> {
        let [position, id, check]: [u32; 3] = bytemuck::pod_read_unaligned(bytes);
        match self.checks.get(check as usize).filter(|_| position != u32::MAX) {
            Some((argument, bound)) => Err(bound.error(self.operation, argument, position.into(), id.into())),
            None => Ok(()),
        }
    }
}

/// The first error among reports, from the bytes that the device wrote.
fn check_all(reports: &[Report], bytes: &[u8]) -> Result<()> {
    reports.iter().zip(bytes.chunks_exact(REPORT_BYTES)).try_for_each(|(report, bytes)| report.check(bytes))
}

/// What is to be reported to a handle and its clones.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    ids: Mutex<Ids>,
    losses: Mutex<Losses>,
}

#[derive(Debug, Default)]
struct Ids {
    /// Reports of calls that were recorded completely, which no wait has read yet.
    open: Vec<Report>,
    /// Reports on their way to the host, in the order of the calls.
    collected: Vec<Collected>,
    /// The first error among those that arrived.
    found: Option<Error>,
}

/// Failures of work, numbered in the order in which they happened.
#[derive(Debug, Default)]
struct Losses {
    kept: VecDeque<Error>,
    count: u64,
}

/// Reports that were copied to the host without a wait.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) reports: Vec<Report>,
    pub(crate) staging: wgpu::Buffer,
    pub(crate) arrival: Arc<Arrival>,
}

impl Collected {
    fn check(&self) -> Result<()> {
        match self.staging.get_mapped_range(..) {
            Ok(mapped) => check_all(&self.reports, &mapped),
            // The copy was refused; that was reported to its owner.
            Err(_) => Ok(()),
        }
    }
}

impl Ids {
    /// Reads what has arrived, up to the first that has not.
    fn read_arrived(&mut self) {
        let arrived = self.collected.iter().take_while(|collected| collected.arrival.is_there()).count();
        for collected in self.collected.drain(..arrived) {
            let checked = collected.check();
            self.found = self.found.take().or(checked.err());
        }
    }
}

impl Reports {
    /// Adds a report, and returns those that should now be copied to the host.
    pub(crate) fn push(&self, report: Report) -> Option<Vec<Report>> {
        let mut ids = lock(&self.ids);
        ids.open.push(report);
        if ids.open.len() < MOST_OPEN {
            return None;
        }
        ids.read_arrived();
        Some(std::mem::take(&mut ids.open))
    }

    pub(crate) fn collect(&self, collected: Collected) {
        lock(&self.ids).collected.push(collected);
    }

    /// What must arrive before this handle has heard of everything, besides the open reports.
    pub(crate) fn arrivals(&self) -> Vec<Arc<Arrival>> {
        lock(&self.ids).collected.iter().map(|collected| collected.arrival.clone()).collect()
    }

    /// The first error among the reports that have arrived.
    pub(crate) fn take_found(&self) -> Result<()> {
        let mut ids = lock(&self.ids);
        ids.read_arrived();
        ids.found.take().map_or(Ok(()), Err)
    }

    /// Takes the open reports out to be read. Those that are dropped unread go back, for a later wait to find.
    pub(crate) fn take(&self) -> Unread<'_> {
        Unread { reports: std::mem::take(&mut lock(&self.ids).open), origin: self }
    }

    /// Puts reports back.
    pub(crate) fn put_back(&self, mut reports: Vec<Report>) {
        let mut ids = lock(&self.ids);
        reports.append(&mut ids.open);
        ids.open = reports;
    }

    /// Notes that work was lost.
    pub(crate) fn lose(&self, error: Error) {
        let mut losses = lock(&self.losses);
        losses.count += 1;
        losses.kept.push_back(error);
        if losses.kept.len() > MOST_LOSSES {
            losses.kept.pop_front();
        }
    }

    /// The number of losses so far.
    pub(crate) fn losses(&self) -> u64 {
        lock(&self.losses).count
    }

    /// The first loss after the first `heard`, or the oldest that is kept, and the number of losses so far.
    pub(crate) fn loss_after(&self, heard: u64) -> Option<(Error, u64)> {
        let losses = lock(&self.losses);
        let unheard = losses.count.saturating_sub(heard) as usize;
        let first = losses.kept.len().saturating_sub(unheard);
        losses.kept.get(first).map(|error| (error.clone(), losses.count))
    }
}

/// Reports on their way to the host.
#[derive(Debug)]
pub(crate) struct Unread<'a> {
    reports: Vec<Report>,
    origin: &'a Reports,
}

impl Unread<'_> {
    pub(crate) fn reports(&self) -> &[Report] {
        &self.reports
    }

    /// The first error among them, from the bytes that the device wrote.
    pub(crate) fn read(mut self, bytes: &[u8]) -> Result<()> {
        check_all(&std::mem::take(&mut self.reports), bytes)
    }
}

impl Drop for Unread<'_> {
    fn drop(&mut self) {
        self.origin.put_back(std::mem::take(&mut self.reports));
    }
}
