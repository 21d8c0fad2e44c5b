//! Checks of ids in order, and of sparse gradients, that come from the caller.

use crate::error::Result;
use crate::gpu::{Bound, fit, gradient_checks, sorted_checks};
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Kernel, Slot};
use crate::webgpu::state::Wgpu;

params! {
    /// Twin of the struct in shaders/lookup/order_check.wgsl.
    struct OrderCheckParams {
        ids_base: u32,
        starts_base: u32,
        positions_base: u32,
        count_base: u32,
        rows: u32,
        capacity: u32,
        places: u32,
        positions_end: u32,
        has_starts: u32,
    }
}

params! {
    /// Twin of the struct in shaders/lookup/order_verdict.wgsl.
    struct OrderVerdictParams {
        ids_base: u32,
        starts_base: u32,
        positions_base: u32,
        count_base: u32,
    }
}

/// Kinds of faults.
const KINDS: u64 = 6;

fn check_kernel() -> Kernel {
    Kernel {
        name: "lookup/order_check",
        params: &OrderCheckParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/lookup/order_check.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("ids", "u32"),
            Slot::plain("starts", "u32"),
            Slot::plain("positions", "u32"),
            Slot::plain("count", "u32"),
            Slot::write("found", "atomic<u32>"),
        ],
    }
}

fn verdict_kernel() -> Kernel {
    Kernel {
        name: "lookup/order_verdict",
        params: &OrderVerdictParams::BLOCK,
        threads: 1,
        sources: &[include_str!("../../../shaders/lookup/order_verdict.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("ids", "u32"),
            Slot::plain("starts", "u32"),
            Slot::plain("positions", "u32"),
            Slot::plain("count", "u32"),
            Slot::plain("found", "u32"),
            Slot::write("report", "u32"),
            Slot::write("live", "u32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    vec![check_kernel(), verdict_kernel()]
}

/// Ids in order as the caller gave them.
pub(super) struct Given<'a> {
    pub(super) ids: &'a Binding,
    pub(super) count: &'a Binding,
    /// The most ids that there may be.
    pub(super) capacity: usize,
    /// Of the table.
    pub(super) rows: usize,
}

/// Their starts and positions.
pub(super) struct GivenRuns<'a> {
    pub(super) starts: &'a Binding,
    pub(super) positions: &'a Binding,
    /// Room for positions.
    pub(super) places: usize,
    /// Positions are below.
    pub(super) end: usize,
}

impl Given<'_> {
    /// Checks a sparse gradient. Returns how many ids count, on the device: none if something is wrong.
    pub(super) fn check_gradient(&self, gpu: &Wgpu, operation: &'static str) -> Result<Binding> {
        let nothing = gpu.nothing();
        let runs = GivenRuns { starts: &nothing, positions: &nothing, places: 0, end: 0 };
        let checks = gradient_checks(self.capacity, self.rows).to_vec();
        self.check(gpu, operation, &runs, checks)
    }

    /// Checks sorted ids. Returns how many ids count, on the device: none if something is wrong.
    pub(super) fn check_sorted(
        &self,
        gpu: &Wgpu,
        operation: &'static str,
        runs: &GivenRuns<'_>,
    ) -> Result<Binding> {
        let checks = sorted_checks(self.capacity, self.rows, runs.places, runs.end).to_vec();
        self.check(gpu, operation, runs, checks)
    }

    fn check(
        &self,
        gpu: &Wgpu,
        operation: &'static str,
        runs: &GivenRuns<'_>,
        checks: Vec<(&'static str, Bound)>,
    ) -> Result<Binding> {
        let Self { ids, count, capacity, rows } = *self;
        let GivenRuns { starts, positions, places, end } = *runs;
        // Kernels count up to the end of the last workgroup in 32 bits.
        let items = places.max(capacity.saturating_add(1));
        fit(operation, "ids", items.saturating_add(THREADS as usize))?;
        let has_starts = checks.len() > 3;
        let (found, live) = (gpu.scratch(operation, KINDS)?, gpu.scratch(operation, 1)?);
        let report = gpu.report_of_checks(operation, checks)?;
        let [ids_base, starts_base, positions_base, count_base] =
            [ids, starts, positions, count].map(|binding| binding.base);
        let params = OrderCheckParams {
            ids_base,
            starts_base,
            positions_base,
            count_base,
            rows: fit(operation, "rows", rows)?,
            capacity: capacity as u32,
            places: places as u32,
            positions_end: fit(operation, "ids", end)?,
            has_starts: u32::from(has_starts),
        };
        let bindings = [ids, starts, positions, count, &found];
        gpu.dispatch(operation, &check_kernel(), &params, &bindings, groups_of(items))?;
        let params = OrderVerdictParams { ids_base, starts_base, positions_base, count_base };
        let bindings = [ids, starts, positions, count, &found, &report.binding, &live];
        gpu.dispatch(operation, &verdict_kernel(), &params, &bindings, 1)?;
        gpu.send(report);
        Ok(live)
    }
}
