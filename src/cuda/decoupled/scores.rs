//! Scores of decoupled embeddings: what the kernels that compute them take.

use std::array;

use bytemuck::Zeroable;

use crate::cuda::call::Call;
use crate::cuda::decoupled::rows::Ids;
use crate::cuda::handle::Cuda;
use crate::cuda::lookup::check_ids;
use crate::cuda::memory::CudaMemory;
use crate::cuda::selection::BEHAVIOURS;
use crate::cuda::tables::{COLUMNS, DeviceTable, MOST_TABLES, record, tables};
use crate::cuda::twin::twins;
use crate::error::{Error, Result};
use crate::gpu::has_unread_history;
use crate::jagged::Batch;
use crate::ops::*;

/// As in `kernels/decoupled/scores.cuh`: the vec4s of rows that a block stages (double-buffered), and those of queries.
const ROW_VEC4S: usize = 4;
const QUERY_VEC4S: usize = 32;

twins! {
    /// `kernels/decoupled/scores.cuh`
    pub(in crate::cuda) struct Scoring {
        pub(in crate::cuda) ids: u64,
        pub(in crate::cuda) target_ids: u64,
        pub(in crate::cuda) record: u64,
        pub(in crate::cuda) target_record: u64,
        pub(in crate::cuda) features: u32,
        pub(in crate::cuda) vec4s: u32,
        pub(in crate::cuda) tables: [DeviceTable; MOST_TABLES],
        pub(in crate::cuda) scales: [f32; MOST_TABLES],
        pub(in crate::cuda) factor: f32,
        pub(in crate::cuda) unused: u32,
    }
}

/// The parameters of the kernels that score; also checks the ids that those do not read: of users without candidates, and
/// of candidates without a history.
pub(super) fn scoring(
    gpu: &Cuda,
    call: &Call<'_>,
    op: &Decoupled,
    batch: &Batch,
    attention: &[Table<'_, CudaMemory>],
    ids: Ids,
) -> Result<Scoring> {
    let operation = call.operation;
    if attention.len() > MOST_TABLES {
        let (needed, limit) = (attention.len() as u64, MOST_TABLES as u64);
        return Err(Error::Limit { operation, argument: "attention", needed, limit });
    }
    let (words, vec4s) = tables(gpu, operation, "attention", attention)?;
    let (scales, factor) = op.split_scales();
    let scoring = Scoring {
        ids: ids.behaviours.pointer,
        target_ids: ids.candidates.pointer,
        record: record(call, "history_ids", op.ids, ids.behaviours, attention)?,
        target_record: record(call, "target_ids", op.ids, ids.candidates, attention)?,
        features: words.len() as u32,
        vec4s,
        tables: array::from_fn(|f| words.get(f).copied().unwrap_or(Zeroable::zeroed())),
        scales: array::from_fn(|f| scales.get(f).copied().unwrap_or(0.0)),
        factor,
        unused: 0,
    };
    if has_unread_history(batch) {
        let rows = batch.histories().total();
        check_ids(gpu, call, "history_ids", op.ids, ids.behaviours, rows, attention)?;
    }
    if batch.requests().any(|(history, targets)| history.is_empty() && !targets.is_empty()) {
        let rows = batch.targets().total();
        check_ids(gpu, call, "target_ids", op.ids, ids.candidates, rows, attention)?;
    }
    Ok(scoring)
}

/// Bytes of shared memory in which rows and queries are staged, an upper bound of `stage_bytes` in
/// `kernels/decoupled/scores.cuh`.
pub(super) fn staged_bytes(vec4s: usize, candidates: usize) -> usize {
    // The most, after the behaviours of each column of vec4s.
    const PADDING: usize = 4;
    let rows = 2 * ROW_VEC4S.min(vec4s) * (BEHAVIOURS + PADDING);
    (rows + QUERY_VEC4S.min(vec4s) * (candidates + 1)) * COLUMNS * size_of::<f32>()
}
