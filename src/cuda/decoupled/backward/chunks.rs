//! Chunks of behaviours, and their lists on the device.

use crate::cuda::driver::Allocation;
use crate::cuda::handle::Cuda;
use crate::cuda::twin::twins;
use crate::error::Result;
use crate::gpu::{ChunkLimits, ChunkMerge, ChunkSpan, ChunkTile, Chunks};
use crate::jagged::Batch;

twins! {
    /// `kernels/decoupled/chunks.cuh`
    pub(in crate::cuda) struct DecoupledSpan {
        row: u32,
        rows: u32,
        first_target: u32,
        targets: u32,
        pairs: u32,
        partial: u32,
    }

    /// `kernels/decoupled/chunks.cuh`
    pub(in crate::cuda) struct DecoupledTile {
        span: u32,
        first_row: u32,
    }

    /// `kernels/decoupled/chunks.cuh`
    pub(in crate::cuda) struct DecoupledMerge {
        first_target: u32,
        rows: u32,
        partial: u32,
        step: u32,
        spans: u32,
    }
}

/// The chunks of a batch, and their lists on the device.
#[derive(Debug)]
pub(in crate::cuda) struct DeviceChunks {
    pub(super) chunks: Chunks,
    /// A [`DecoupledSpan`] per span, and so on.
    pub(super) spans: Allocation,
    pub(super) tiles: Allocation,
    pub(super) merges: Allocation,
}

impl DeviceChunks {
    pub(in crate::cuda) fn new(
        gpu: &Cuda,
        operation: &'static str,
        batch: &Batch,
        limits: &ChunkLimits,
    ) -> Result<Self> {
        let chunks = Chunks::new(batch, limits);
        let span = |span: &ChunkSpan| {
            let ChunkSpan { row, rows, first_target, targets, pairs, partial } = *span;
            DecoupledSpan { row, rows, first_target, targets, pairs, partial }
        };
        let tile = |&ChunkTile { span, first_row }: &ChunkTile| DecoupledTile { span, first_row };
        let merge = |merge: &ChunkMerge| {
            let ChunkMerge { first_target, rows, partial, step, spans } = *merge;
            DecoupledMerge { first_target, rows, partial, step, spans }
        };
        Ok(Self {
            spans: gpu.list(operation, &chunks.spans.iter().map(span).collect::<Vec<_>>())?,
            tiles: gpu.list(operation, &chunks.tiles.iter().map(tile).collect::<Vec<_>>())?,
            merges: gpu.list(operation, &chunks.merges.iter().map(merge).collect::<Vec<_>>())?,
            chunks,
        })
    }
}
