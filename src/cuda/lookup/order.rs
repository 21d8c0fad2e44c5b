//! Checks of ids in order, and of sparse gradients, that come from the caller: kernels of `kernels/lookup/backward.cu`.

use bytemuck::Zeroable;

use crate::cuda::call::Call;
use crate::cuda::kernel::Kernel;
use crate::cuda::twin::twins;
use crate::error::Result;
use crate::gpu::{Bound, gradient_checks, sorted_checks};

/// Checks the count.
const BEGIN: Kernel = Kernel::new("lookup_backward", "order_begin", 32, 10);
/// Checks ids, starts and positions.
const CHECK: Kernel = Kernel::new("lookup_backward", "order_check", 256, 18);

twins! {
    /// `kernels/lookup/backward.cu`
    pub(in crate::cuda) struct OrderCheckParams {
        ids: u64,
        starts: u64,
        positions: u64,
        count: u64,
        is_wrong: u64,
        bad_count: u64,
        bad_id: u64,
        id_order: u64,
        start_order: u64,
        bad_start: u64,
        bad_position: u64,
        rows: u64,
        capacity: u64,
        places: u64,
        positions_end: u64,
    }
}

/// Ids in order as the caller gave them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given {
    pub(super) ids: u64,
    pub(super) count: u64,
    /// The most ids that there may be.
    pub(super) capacity: usize,
    /// Of the table.
    pub(super) rows: usize,
}

/// Their starts and positions.
#[derive(Debug, Clone, Copy)]
pub(super) struct GivenRuns {
    pub(super) starts: u64,
    pub(super) positions: u64,
    /// Room for positions.
    pub(super) places: usize,
    /// Positions are below.
    pub(super) end: usize,
}

impl Given {
    /// Checks a sparse gradient, and writes to `is_wrong` whether something is.
    pub(super) fn check_gradient(&self, call: &Call<'_>, is_wrong: u64) -> Result<()> {
        let [bad_count, bad_id, id_order] =
            gradient_checks(self.capacity, self.rows).map(|check| self.record(call, self.capacity, check));
        let params = OrderCheckParams {
            bad_count: bad_count?,
            bad_id: bad_id?,
            id_order: id_order?,
            ..self.params(is_wrong)
        };
        check(call, &params, self.capacity)
    }

    /// Checks sorted ids, and writes to `is_wrong` whether something is.
    pub(super) fn check_sorted(&self, call: &Call<'_>, runs: &GivenRuns, is_wrong: u64) -> Result<()> {
        let GivenRuns { starts, positions, places, end } = *runs;
        let most = places.max(self.capacity.saturating_add(1));
        let [bad_count, bad_id, id_order, start_order, bad_start, bad_position] =
            sorted_checks(self.capacity, self.rows, places, end).map(|check| self.record(call, most, check));
        let params = OrderCheckParams {
            starts,
            positions,
            bad_count: bad_count?,
            bad_id: bad_id?,
            id_order: id_order?,
            start_order: start_order?,
            bad_start: bad_start?,
            bad_position: bad_position?,
            places: places as u64,
            positions_end: end as u64,
            ..self.params(is_wrong)
        };
        check(call, &params, most)
    }

    fn record(
        &self,
        call: &Call<'_>,
        positions: usize,
        (argument, bound): (&'static str, Bound),
    ) -> Result<u64> {
        call.record(argument, positions, bound)
    }

    fn params(&self, is_wrong: u64) -> OrderCheckParams {
        let Self { ids, count, capacity, rows } = *self;
        OrderCheckParams {
            ids,
            count,
            is_wrong,
            rows: rows as u64,
            capacity: capacity as u64,
            ..Zeroable::zeroed()
        }
    }
}

/// Checks with a thread for each of `items` ids or positions.
fn check(call: &Call<'_>, params: &OrderCheckParams, items: usize) -> Result<()> {
    call.launch(&BEGIN.blocks(1), params)?;
    call.launch(&CHECK.blocks(items.div_ceil(CHECK.threads as usize)), params)
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    vec![BEGIN, CHECK]
}
