//! The rows that aggregation and attention sum: representation tables, ids, selections.

use bytemuck::Zeroable;

use crate::cuda::handle::Cuda;
use crate::cuda::memory::{CudaMemory, Region};
use crate::cuda::tables::{DeviceTable, MOST_TABLES, tables};
use crate::cuda::twin::twins;
use crate::error::Result;
use crate::gpu::fit;
use crate::ops::*;

twins! {
    /// `kernels/decoupled/rows.cuh`
    pub(in crate::cuda) struct Rows {
        pub(in crate::cuda) ids: u64,
        pub(in crate::cuda) target_ids: u64,
        pub(in crate::cuda) out: u64,
        pub(in crate::cuda) out_width: u64,
        pub(in crate::cuda) features: u32,
        pub(in crate::cuda) first_feature: u32,
        pub(in crate::cuda) count: u32,
        pub(in crate::cuda) vec4s: u32,
        pub(in crate::cuda) tables: [DeviceTable; MOST_TABLES],
        pub(in crate::cuda) first_columns: [u32; MOST_TABLES],
    }
}

/// The ids of behaviours and candidates.
#[derive(Clone, Copy)]
pub(super) struct Ids {
    pub(super) behaviours: Region<u32>,
    pub(super) candidates: Region<u32>,
}

impl Ids {
    pub(super) fn of(
        gpu: &Cuda,
        operation: &'static str,
        inputs: &SearchInputs<'_, CudaMemory>,
    ) -> Result<Self> {
        let behaviours = gpu.region(operation, &inputs.history_ids)?;
        let candidates = gpu.region(operation, &inputs.target_ids)?;
        Ok(Self { behaviours, candidates })
    }
}

/// The representation tables, up to [`MOST_TABLES`] per launch.
pub(super) fn rows(
    gpu: &Cuda,
    operation: &'static str,
    op: &Decoupled,
    representation: &[Table<'_, CudaMemory>],
    ids: Ids,
    out: u64,
) -> Result<Vec<Rows>> {
    let features = fit(operation, "representation", representation.len())?;
    let width = total_width(representation);
    fit(operation, "representation", width)?;
    let (mut first_feature, mut first_column) = (0, 0);
    let mut launches = Vec::new();
    for group in representation.chunks(MOST_TABLES) {
        let (words, vec4s) = tables(gpu, operation, "representation", group)?;
        let mut rows = Rows {
            ids: ids.behaviours.pointer,
            target_ids: if op.multiply_target { ids.candidates.pointer } else { 0 },
            out,
            out_width: width as u64,
            features,
            first_feature,
            count: words.len() as u32,
            vec4s,
            tables: [Zeroable::zeroed(); MOST_TABLES],
            first_columns: [0; MOST_TABLES],
        };
        rows.tables[..words.len()].copy_from_slice(&words);
        for (first, table) in rows.first_columns.iter_mut().zip(group) {
            *first = first_column;
            first_column += table.width as u32;
        }
        first_feature += rows.count;
        launches.push(rows);
    }
    Ok(launches)
}
