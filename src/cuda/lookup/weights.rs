//! Bags whose ids do not all count alike: `kernels/lookup/weights.cu`.

use std::sync::Arc;

use bytemuck::Zeroable;

use crate::cuda::batch::CudaJagged;
use crate::cuda::call::Call;
use crate::cuda::driver::Allocation;
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::Kernel;
use crate::cuda::memory::{CudaMemory, Region};
use crate::cuda::tables::{COLUMNS, DeviceTable, tables};
use crate::cuda::twin::twins;
use crate::error::Result;
use crate::gpu::fit;
use crate::ops::*;

/// Clears the counts of ids.
const CLEAR: Kernel = Kernel::new("lookup_weights", "clear_counts", 256, 8);
/// Counts the ids of each bag that are inside their table.
const COUNT: Kernel = Kernel::new("lookup_weights", "count_ids", 256, 12);
/// Finds the bag of each row of ids, and the weight of one id of it.
const WEIGH: Kernel = Kernel::new("lookup_weights", "weigh_ids", 256, 16);
/// Multiplies the row of each id with the gradient of its bag.
const GRADIENT: Kernel = Kernel::new("lookup_weights", "weight_gradient", 256, 32);
const THREADS: usize = 256;
/// Lanes per id of the gradient of weights.
const LANES: usize = 8;
const WORD: usize = size_of::<u32>();

twins! {
    /// `kernels/lookup/weights.cu`
    pub(in crate::cuda) struct BagIdsParams {
        ids: u64,
        offsets: u64,
        counts: u64,
        weights: u64,
        bags: u64,
        rows: u64,
        table_rows: u64,
        features: u32,
        feature: u32,
        bag_count: u32,
        unused: u32,
    }

    /// `kernels/lookup/weights.cu`
    pub(in crate::cuda) struct WeightGradientParams {
        ids: u64,
        bags: u64,
        grad: u64,
        out: u64,
        rows: u64,
        features: u32,
        feature: u32,
        grad_width: u32,
        adds: u32,
        vectors: u32,
        unused: u32,
        table: DeviceTable,
    }
}

/// The ids of bags.
pub(super) struct BagIds<'a> {
    tables: &'a [Table<'a, CudaMemory>],
    params: BagIdsParams,
    /// The offsets of the bags.
    _offsets: Arc<Allocation>,
}

impl<'a> BagIds<'a> {
    pub(super) fn new(
        gpu: &Cuda,
        operation: &'static str,
        ids: Region<u32>,
        tables: &'a [Table<'a, CudaMemory>],
        bags: &CudaJagged,
    ) -> Result<Self> {
        let offsets = bags.offsets(gpu, operation)?;
        let params = BagIdsParams {
            ids: ids.pointer,
            offsets: offsets.pointer(),
            rows: bags.as_ref().total() as u64,
            features: fit(operation, "tables", tables.len())?,
            bag_count: fit(operation, "bags", bags.as_ref().users())?,
            ..Zeroable::zeroed()
        };
        Ok(Self { tables, params, _offsets: offsets })
    }

    /// The address of the counts `[bags, features]` of ids that are inside their tables.
    pub(super) fn count(&self, call: &mut Call<'_>) -> Result<u64> {
        let numbers = (self.params.bag_count as usize).saturating_mul(self.tables.len());
        let counts = call.scratch(numbers.saturating_mul(WORD))?;
        let params = BagIdsParams { counts, ..self.params };
        call.launch(&CLEAR.blocks(numbers.div_ceil(THREADS)), &params)?;
        for (feature, table) in self.tables.iter().enumerate() {
            let params = BagIdsParams { feature: feature as u32, table_rows: table.rows as u64, ..params };
            call.launch(&COUNT.blocks(self.blocks()), &params)?;
        }
        Ok(counts)
    }

    /// Blocks of a thread for each row of ids.
    fn blocks(&self) -> usize {
        (self.params.rows as usize).div_ceil(THREADS)
    }
}

/// The weights of ids in a backward pass: the caller's, or what means without ids outside their tables give them.
pub(super) struct IdWeights<'a> {
    ids: BagIds<'a>,
    /// `[rows, features]`, or 0.
    weights: u64,
    /// `[bags, features]`, or 0.
    counts: u64,
    /// Per row its bag and the weight of one of its ids.
    pub(super) bags: u64,
}

impl<'a> IdWeights<'a> {
    /// `None` where all ids of a bag have one weight.
    pub(super) fn new(
        gpu: &Cuda,
        call: &mut Call<'_>,
        op: &Lookup,
        bags: &Bags<'_, CudaJagged>,
        inputs: &LookupInputs<'a, CudaMemory>,
    ) -> Result<Option<Self>> {
        let (bags, weights) = match (bags, &inputs.weights) {
            (Bags::Sum(bags), Some(weights)) => (*bags, gpu.region(call.operation, weights)?.pointer),
            (Bags::Mean(bags), None) if op.ids == IdPolicy::Skip => (*bags, 0),
            _ => return Ok(None),
        };
        let ids = gpu.region(call.operation, &inputs.ids)?;
        let ids = BagIds::new(gpu, call.operation, ids, inputs.tables, bags)?;
        let counts = if inputs.weights.is_some() { 0 } else { ids.count(call)? };
        let bags = call.scratch((ids.params.rows as usize).saturating_mul(2 * WORD))?;
        Ok(Some(Self { ids, weights, counts, bags }))
    }

    /// Writes the bag of each row and the weight of its id of a feature.
    pub(super) fn weigh(&self, call: &Call<'_>, feature: usize) -> Result<()> {
        let Self { weights, counts, bags, .. } = *self;
        let params = BagIdsParams { weights, counts, bags, feature: feature as u32, ..self.ids.params };
        call.launch(&WEIGH.blocks(self.ids.blocks()), &params)
    }

    /// Writes, or adds, the gradient of weights `[rows, features]` that comes through the rows of some tables.
    pub(super) fn gradient(
        &self,
        gpu: &Cuda,
        call: &Call<'_>,
        through: &[Table<'_, CudaMemory>],
        grad: Region<f32>,
        out: u64,
        adds: bool,
    ) -> Result<()> {
        let rows = self.ids.params.rows;
        let grad_width = total_width(through);
        let mut start = 0;
        for (feature, table) in through.iter().enumerate() {
            let (words, _) = tables(gpu, call.operation, "tables", std::slice::from_ref(table))?;
            let own = Region::<f32>::new(grad.pointer + (start * WORD) as u64, grad.length);
            let vectors = own.vectors(grad_width, COLUMNS * WORD) && table.width.is_multiple_of(COLUMNS);
            start += table.width;
            let params = WeightGradientParams {
                ids: self.ids.params.ids,
                bags: self.bags,
                grad: own.pointer,
                out,
                rows,
                features: self.ids.params.features,
                feature: feature as u32,
                grad_width: fit(call.operation, "grad_out", grad_width)?,
                adds: u32::from(adds),
                vectors: u32::from(vectors),
                unused: 0,
                table: words[0],
            };
            call.launch(&GRADIENT.blocks((rows as usize).div_ceil(THREADS / LANES)), &params)?;
        }
        Ok(())
    }
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    vec![CLEAR, COUNT, WEIGH, GRADIENT]
}
