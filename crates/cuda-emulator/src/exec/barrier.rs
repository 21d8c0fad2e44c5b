//! The sixteen barriers of a block ("Parallel Synchronization and Communication Instructions: bar, barrier").

use super::code::{BarrierForm, ReductionKind};
use super::fault::{Fault, fault};
use super::finding::FindingKind;
use super::machine::Machine;
use super::registers::{Registers, lanes};

/// The state of a barrier.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Barrier {
    arrived: u32,
    /// The number of threads expected; set by the first to arrive.
    expected: u32,
    explicit: bool,
    /// The warps that have arrived.
    warps: u32,
    count: u32,
    not_all: bool,
}

/// The result of arriving at a barrier.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) number: u32,
    pub(crate) complete: bool,
}

fn uniform(row: &[u32; 32], mask: u32, what: &str) -> Result<u32, Fault> {
    let first = row[mask.trailing_zeros() as usize];
    match lanes(mask).find(|l| row[*l] != first) {
        None => Ok(first),
        Some(lane) => {
            fault(FindingKind::DivergentBarrier, lane, None, format!("lanes specify different {what}"))
        }
    }
}

/// The lanes of the running warp arrive.
pub(crate) fn arrive(
    m: &mut Machine<'_>,
    form: &BarrierForm,
    r: &Registers,
    mask: u32,
) -> Result<Arrival, Fault> {
    let lane = mask.trailing_zeros() as usize;
    let number = uniform(r.row(form.number), mask, "barriers")?;
    let threads = match form.threads {
        Some(row) => Some(uniform(r.row(row), mask, "thread counts")?),
        None => None,
    };
    if number > 15 {
        return fault(
            FindingKind::Undefined,
            lane,
            None,
            format!("barrier {number} does not exist; a block has 16"),
        );
    }
    if let Some(n) = threads
        && (n == 0 || n % 32 != 0)
    {
        return fault(
            FindingKind::Undefined,
            lane,
            None,
            format!("thread count {n} is not a multiple of the warp size"),
        );
    }
    m.counts.barriers += 1;
    let live = m.live;
    let expected = threads.unwrap_or_else(|| m.launch.threads());
    let b = &mut m.barriers[number as usize];
    if b.warps == 0 {
        b.expected = expected;
        b.explicit = threads.is_some();
    } else if b.expected != expected || b.explicit != threads.is_some() {
        let message = format!(
            "barrier {number} expects {} threads, but this instruction specifies {expected}",
            b.expected
        );
        return fault(FindingKind::DivergentBarrier, lane, None, message);
    }
    // An explicit count is in whole warps: a partial last warp counts as full.
    b.arrived += if b.explicit && form.aligned { 32 } else { mask.count_ones() };
    b.warps |= 1 << m.warp;
    if let Some(reduction) = form.reduction {
        let holds = r.guarded(mask, reduction.source);
        b.count += holds.count_ones();
        b.not_all |= holds != mask;
    }
    if b.arrived > b.expected {
        let message =
            format!("{} threads have arrived at barrier {number}, which expects {}", b.arrived, b.expected);
        return fault(FindingKind::DivergentBarrier, lane, None, message);
    }
    Ok(Arrival { number, complete: b.is_complete(live) })
}

impl Barrier {
    /// Whether all threads have arrived. Without an explicit count, threads that have exited are not waited for.
    fn is_complete(&self, live: u32) -> bool {
        self.warps != 0 && if self.explicit { self.arrived == self.expected } else { self.arrived >= live }
    }
}

/// The number of a barrier that is complete because threads have exited.
pub(crate) fn completed_by_exit(m: &Machine<'_>) -> Option<u32> {
    (0..16).find(|n| !m.barriers[*n].explicit && m.barriers[*n].is_complete(m.live)).map(|n| n as u32)
}

/// Synchronises the warps of a complete barrier and resets it; returns count, and, or of the reduction.
pub(crate) fn complete(m: &mut Machine<'_>, number: u32) -> [u32; 3] {
    let b = std::mem::take(&mut m.barriers[number as usize]);
    m.synchronise(b.warps);
    [b.count, u32::from(!b.not_all), u32::from(b.count != 0)]
}

/// Writes the reduction's result for released lanes.
pub(crate) fn write_result(form: &BarrierForm, r: &mut Registers, mask: u32, results: [u32; 3]) {
    let Some(reduction) = form.reduction else { return };
    let predicate = |value: u32| if value != 0 { u32::MAX } else { 0 };
    match reduction.kind {
        ReductionKind::Count => r.put(reduction.destination, &[results[0]; 32], mask),
        ReductionKind::And => r.put_predicate(reduction.destination, predicate(results[1]), mask),
        ReductionKind::Or => r.put_predicate(reduction.destination, predicate(results[2]), mask),
    }
}
