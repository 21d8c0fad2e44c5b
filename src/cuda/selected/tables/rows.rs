//! What slots add to the gradients of rows, and its sums by id or by behaviour.

use std::ops::Range;

use crate::cuda::call::Call;
use crate::cuda::kernel::Kernel;
use crate::cuda::lookup::backward::{Job, OwnSort, STEP, heads};
use crate::cuda::lookup::sort::Column;
use crate::cuda::memory::Region;
use crate::cuda::selected::MOST_THREADS;
use crate::cuda::selected::tables::{FILE, WORD, threads_of};
use crate::cuda::twin::twins;
use crate::error::Result;
use crate::gpu::fit;
use crate::ops::SelectedAttention;

/// Writes what slots add to the gradients of rows. A block for each slot.
pub(super) const SLOT_ROWS: Kernel = Kernel::new(FILE, "selected_slot_rows", MOST_THREADS as u32, 24);
/// Writes the numbers of slots and the rows of candidates that they multiply. A thread for each slot of each head.
pub(super) const SLOT_BAGS: Kernel = Kernel::new(FILE, "selected_slot_bags", MOST_THREADS as u32, 30);

twins! {
    /// `kernels/selected/tables.cu`
    pub(in crate::cuda) struct SelectedSlotRowsParams {
        places: u64,
        numbers: u64,
        rows: u64,
        gammas: u64,
        ids: u64,
        kept_ids: u64,
        out: u64,
        top_k: u32,
        heads: u32,
        kv_heads: u32,
        group: u32,
        width: u32,
        features: u32,
        add: u32,
        factor: f32,
    }

    /// `kernels/selected/tables.cu`
    pub(in crate::cuda) struct SelectedSlotBagsParams {
        places: u64,
        numbers: u64,
        gammas: u64,
        ids: u64,
        kept_ids: u64,
        bags: u64,
        count: u64,
        top_k: u32,
        heads: u32,
        features: u32,
        first_row: u32,
        factor: f32,
        unused: u32,
    }
}

/// What the slots of all candidates add to the gradients of rows.
pub(super) struct Rows {
    /// `[positions, width]`, or where there are bags the rows of candidates.
    rows: u64,
    pub(super) width: usize,
    /// `[positions]`: the row and the number of each; 0: positions are rows.
    bags: u64,
    /// `[positions, features]`: `NONE` where nothing is added. 0: nothing is asked for.
    ids: u64,
    features: usize,
    positions: usize,
    /// The sums, of a place for each feature.
    pub(super) jobs: Vec<Option<Job>>,
}

/// The numbers of the slots of some candidates, and what they multiply.
#[derive(Clone, Copy)]
pub(super) struct Added {
    /// `[C, H, K]`: `NONE` where a head does not count a slot; and its numbers.
    pub(super) places: u64,
    pub(super) numbers: u64,
    /// `[C, H, width]`; 0: ones.
    pub(super) rows: u64,
    pub(super) width: usize,
    /// How many parts of a row groups of heads have to themselves.
    pub(super) parts: usize,
    /// Of heads that do not count where their scores do not; 0: all count.
    pub(super) gammas: u64,
    /// `[C, K, features]`.
    pub(super) ids: u64,
    pub(super) factor: f32,
    /// Added to what other numbers of the same slots add.
    pub(super) is_second: bool,
}

impl Rows {
    /// A row of `width` numbers for each of so many slots.
    pub(super) fn of_slots(
        call: &mut Call<'_>,
        slots: usize,
        (width, features): (usize, usize),
        jobs: Vec<Option<Job>>,
    ) -> Result<Self> {
        let [rows, ids] = words(call, slots, [width, features], &jobs)?;
        Self { rows, width, bags: 0, ids, features, positions: slots, jobs }.checked(call)
    }

    /// A number for each of so many positions, which multiplies one of the rows that are given.
    pub(super) fn of_bags(
        call: &mut Call<'_>,
        positions: usize,
        (rows, width, features): (u64, usize, usize),
        jobs: Vec<Option<Job>>,
    ) -> Result<Self> {
        let [bags, ids] = words(call, positions, [2, features], &jobs)?;
        Self { rows, width, bags, ids, features, positions, jobs }.checked(call)
    }

    fn checked(self, call: &Call<'_>) -> Result<Self> {
        // Loops step past the end.
        fit(call.operation, "positions", self.positions.saturating_add(STEP)).map(|_| self)
    }

    pub(super) fn is_asked(&self) -> bool {
        self.ids != 0
    }

    /// Writes what the slots of some of so many candidates add.
    pub(super) fn write(
        &self,
        call: &Call<'_>,
        op: &SelectedAttention,
        (chunk, candidates): (&Range<usize>, usize),
        added: &Added,
    ) -> Result<()> {
        if !self.is_asked() {
            return Ok(());
        }
        if self.bags != 0 {
            return self.write_bags(call, op, (chunk, candidates), added);
        }
        let first = chunk.start * op.top_k;
        let params = SelectedSlotRowsParams {
            places: added.places,
            numbers: added.numbers,
            rows: added.rows,
            gammas: added.gammas,
            ids: added.ids,
            kept_ids: self.ids + (first * self.features * WORD) as u64,
            out: self.rows + (first * self.width * WORD) as u64,
            top_k: op.top_k as u32,
            heads: op.heads as u32,
            kv_heads: added.parts as u32,
            group: (op.heads / added.parts) as u32,
            width: added.width as u32,
            features: self.features as u32,
            add: u32::from(added.is_second),
            factor: added.factor,
        };
        let slots = chunk.len().saturating_mul(op.top_k);
        call.launch(&SLOT_ROWS.blocks(slots).with_threads(threads_of(self.width)), &params)
    }

    /// The same with bags. What is added to other numbers has rows and positions after theirs.
    fn write_bags(
        &self,
        call: &Call<'_>,
        op: &SelectedAttention,
        (chunk, candidates): (&Range<usize>, usize),
        added: &Added,
    ) -> Result<()> {
        let before = if added.is_second { candidates } else { 0 };
        let first_row = (before + chunk.start) * op.heads;
        let (first, count) = (first_row * op.top_k, chunk.len() * op.heads * op.top_k);
        let params = SelectedSlotBagsParams {
            places: added.places,
            numbers: added.numbers,
            gammas: added.gammas,
            ids: added.ids,
            kept_ids: self.ids + (first * self.features * WORD) as u64,
            bags: self.bags + (first * 2 * WORD) as u64,
            count: count as u64,
            top_k: op.top_k as u32,
            heads: op.heads as u32,
            features: self.features as u32,
            first_row: first_row as u32,
            factor: added.factor,
            unused: 0,
        };
        call.launch(&SLOT_BAGS.blocks(count.div_ceil(MOST_THREADS)), &params)
    }
}

/// So many words for each position, if anything is asked for.
fn words(
    call: &mut Call<'_>,
    positions: usize,
    counts: [usize; 2],
    jobs: &[Option<Job>],
) -> Result<[u64; 2]> {
    if jobs.iter().all(Option::is_none) {
        return Ok([0; 2]);
    }
    let [first, second] = counts.map(|count| positions.saturating_mul(count).saturating_mul(WORD));
    Ok([call.scratch(first)?, call.scratch(second)?])
}

/// Adds up what slots add, by id.
pub(super) fn sum(call: &mut Call<'_>, all: &[&Rows]) -> Result<()> {
    let jobs: Vec<&Job> = all.iter().flat_map(|rows| rows.jobs.iter().flatten()).collect();
    let asked = all.iter().filter(|rows| rows.is_asked());
    let Some(positions) = asked.map(|rows| rows.positions).max() else { return Ok(()) };
    let (sort, heads) = (OwnSort::new(call, positions)?, heads(call, &jobs, positions)?);
    for Rows { rows, bags, ids, features, positions, jobs, .. } in all {
        for (feature, job) in jobs.iter().enumerate() {
            let Some(job) = job else { continue };
            let column = Column {
                ids: *ids,
                more_ids: 0,
                records: [0, 0],
                lengths: [*positions; 2],
                features: *features,
                feature,
                rows: job.rows,
            };
            let runs = sort.sort_column(call, &column)?;
            let own = Job { grad: Region::new(rows + job.grad.pointer, 0), ..*job };
            own.run(call, &runs, *bags, heads)?;
        }
    }
    Ok(())
}
