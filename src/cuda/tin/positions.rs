//! The gradient of the table of positions: that of a table whose ids are the positions, of some behaviours at a time, then of the candidates.

use crate::cuda::call::Call;
use crate::cuda::lookup::backward::{Job, OwnSort, STEP, heads};
use crate::cuda::lookup::sort::Column;
use crate::cuda::memory::Region;
use crate::cuda::tin::variants::{ADD, WRITE};
use crate::cuda::twin::twins;
use crate::error::Result;
use crate::gpu::fit;
use crate::ops::Tin;

const WORD: usize = size_of::<u32>();

twins! {
    /// `kernels/tin/backward.cu`
    pub(in crate::cuda) struct TinCountParams {
        pub(super) offsets: u64,
        pub(super) positions: u64,
        pub(super) last: u32,
        pub(super) unused: u32,
    }

    /// `kernels/tin/backward.cu`
    pub(in crate::cuda) struct TinPositionGradientParams {
        ids: u64,
        count: u64,
        part: u64,
        sums: u64,
        out: u64,
        items: u64,
        width: u32,
        grad_storage: u32,
    }
}

/// Sums by position, and memory for those of a part.
pub(super) struct PositionSums {
    width: usize,
    positions: usize,
    /// `[P, d]`, `f32`.
    sums: u64,
    /// Whether they hold those of a part already.
    has_part: bool,
    sort: OwnSort,
    heads: u64,
    /// Rows, ids and count of a part.
    part: [u64; 3],
}

impl PositionSums {
    /// For parts of at most so many rows. `sums`: where they go, or scratch memory if it is 0.
    pub(super) fn new(call: &mut Call<'_>, op: &Tin, sums: u64, most: usize) -> Result<Self> {
        // A kernel counts up to the end of the last window.
        fit(call.operation, "rows of positions", most.saturating_add(STEP))?;
        let row = op.width.saturating_mul(WORD);
        let sums = if sums == 0 { call.scratch(op.positions.saturating_mul(row))? } else { sums };
        let runs = op.positions.min(most);
        let sort = OwnSort::new(call, most)?;
        let job = Self::job(op, (0, sums), None);
        let heads = heads(call, &[&job], most)?;
        let part = [
            call.scratch(runs.saturating_mul(row))?,
            call.scratch(runs.saturating_mul(WORD))?,
            call.scratch(WORD)?,
        ];
        let Tin { width, positions, .. } = *op;
        Ok(Self { width, positions, sums, has_part: false, sort, heads, part })
    }

    fn job(op: &Tin, (rows, out): (u64, u64), sparse: Option<[u64; 2]>) -> Job {
        let Tin { width, positions, .. } = *op;
        Job { grad: Region::new(rows, 0), grad_width: width, width, rows: positions, out, sparse }
    }

    /// Adds the sums of a part: `ids` and `rows` are the addresses of its positions, and of as many rows of `f32`.
    pub(super) fn add(
        &mut self,
        call: &Call<'_>,
        op: &Tin,
        (ids, rows): (u64, u64),
        count: usize,
    ) -> Result<()> {
        if count == 0 && self.has_part {
            return Ok(());
        }
        let lengths = [count; 2];
        let column = Column {
            ids,
            more_ids: 0,
            records: [0; 2],
            lengths,
            features: 1,
            feature: 0,
            rows: self.positions,
        };
        let runs = self.sort.sort_column(call, &column)?;
        if !self.has_part {
            self.has_part = true;
            return Self::job(op, (rows, self.sums), None).run(call, &runs, 0, self.heads);
        }
        let [part, ids, number] = self.part;
        Self::job(op, (rows, part), Some([ids, number])).run(call, &runs, 0, self.heads)?;
        let items = self.positions.min(count).saturating_mul(self.width);
        let params = TinPositionGradientParams { ids, count: number, part, ..self.params(items) };
        call.launch(&ADD.blocks(items.div_ceil(ADD.threads as usize)), &params)
    }

    /// Writes the sums as they are stored.
    pub(super) fn write(&self, call: &Call<'_>, out: u64, grad_storage: u32) -> Result<()> {
        let items = self.positions.saturating_mul(self.width);
        let params = TinPositionGradientParams { out, grad_storage, ..self.params(items) };
        call.launch(&WRITE.blocks(items.div_ceil(WRITE.threads as usize)), &params)
    }

    fn params(&self, items: usize) -> TinPositionGradientParams {
        TinPositionGradientParams {
            ids: 0,
            count: 0,
            part: 0,
            sums: self.sums,
            out: 0,
            items: items as u64,
            width: self.width as u32,
            grad_storage: 0,
        }
    }
}
