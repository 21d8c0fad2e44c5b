//! What both passes of TIN read, and the sums of candidates and positions that come before them.

use crate::cuda::batch::CudaBatch;
use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::memory::{CudaMemory, Region};
use crate::cuda::target_attention::backward::storage_code;
use crate::cuda::tin::variants::PREPARE;
use crate::cuda::twin::twins;
use crate::element::Element;
use crate::error::Result;
use crate::gpu::{Bound, fit};
use crate::ops::{Tin, TinInputs};

twins! {
    /// `kernels/tin/rows.cuh`
    pub(in crate::cuda) struct TinPositions {
        pub(super) rows: u64,
        pub(super) of_history: u64,
        pub(super) offsets: u64,
        pub(super) last: u32,
        pub(super) storage: u32,
    }

    /// `kernels/tin/tin.cu`
    pub(in crate::cuda) struct TinPrepareParams {
        pub(super) positions: TinPositions,
        pub(super) targets: u64,
        pub(super) target_positions: u64,
        pub(super) history_record: u64,
        pub(super) target_record: u64,
        pub(super) sums: u64,
        pub(super) grad_out: u64,
        pub(super) grad_pooled: u64,
        pub(super) ids: u64,
        pub(super) behaviours: u64,
        pub(super) candidates: u64,
        pub(super) width: u32,
        pub(super) multiply_target: u32,
    }
}

/// The inputs of a call.
pub(super) struct Rows<T: Element> {
    targets: Region<T>,
    pub(super) history: Region<T>,
    positions: Region<T>,
    /// 0 if none are given.
    history_positions: u64,
    target_positions: u64,
}

impl<T: Element> Rows<T> {
    pub(super) fn new(
        gpu: &Cuda,
        operation: &'static str,
        inputs: &TinInputs<'_, CudaMemory, T>,
    ) -> Result<Self> {
        Ok(Self {
            targets: gpu.region(operation, &inputs.targets)?,
            history: gpu.region(operation, &inputs.history)?,
            positions: gpu.region(operation, &inputs.positions)?,
            history_positions: gpu.optional(operation, inputs.history_positions.as_ref())?,
            target_positions: gpu.optional(operation, inputs.target_positions.as_ref())?,
        })
    }

    /// Whether rows of behaviours and positions are aligned to so many bytes.
    pub(super) fn vectors(&self, width: usize, bytes: usize) -> bool {
        self.history.vectors(width, bytes) && self.positions.vectors(width, bytes)
    }

    /// The table, and where positions of behaviours are or, if there are none, the offsets of the histories.
    pub(super) fn device_positions(
        &self,
        operation: &'static str,
        op: &Tin,
        offsets: u64,
    ) -> Result<TinPositions> {
        Ok(TinPositions {
            rows: self.positions.pointer,
            of_history: self.history_positions,
            offsets,
            last: fit(operation, "positions", op.positions - 1)?,
            storage: storage_code::<T>(),
        })
    }

    /// Checks positions that are given, and adds those of the candidates; `more` says what else is computed for them.
    pub(super) fn prepare(
        &self,
        call: &Call<'_>,
        op: &Tin,
        batch: &CudaBatch,
        (positions, sums): (TinPositions, u64),
        more: TinPrepareParams,
    ) -> Result<()> {
        let (histories, targets) = (batch.as_ref().histories(), batch.as_ref().targets());
        let behaviours = if self.history_positions == 0 { 0 } else { histories.total() };
        let record = |argument, given, rows| match given {
            0 => Ok(0),
            _ => call.record(argument, rows, Bound::Columns(vec![op.positions as u64])),
        };
        let params = TinPrepareParams {
            positions,
            targets: self.targets.pointer,
            target_positions: self.target_positions,
            history_record: record("history_positions", self.history_positions, behaviours)?,
            target_record: record("target_positions", self.target_positions, targets.total())?,
            sums,
            behaviours: behaviours as u64,
            candidates: targets.total() as u64,
            width: fit(call.operation, "width", op.width)?,
            multiply_target: u32::from(op.multiply_target),
            ..more
        };
        let items = behaviours.saturating_add(targets.total().saturating_mul(op.width));
        call.launch(&PREPARE.blocks(items.div_ceil(PREPARE.threads as usize)), &params)
    }
}

/// Bytes of an `f32` for each number of the candidates.
pub(super) fn target_bytes(op: &Tin, batch: &CudaBatch) -> usize {
    batch.as_ref().targets().total().saturating_mul(op.width).saturating_mul(size_of::<f32>())
}
