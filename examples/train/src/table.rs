//! Embedding tables of items.

use candle_core::{DType, Result, Tensor};
use candle_nn::Init;
use longseq_candle::SparseTable;

use crate::weights::Weights;

/// A table `[items, width]`, as both ways of training read it: as longseq's table with sparse gradients, and as candle's variable. They share
/// their memory.
pub(crate) struct Table {
    name: &'static str,
    values: Tensor,
    sparse: SparseTable,
}

impl Table {
    /// A table of small numbers.
    pub(crate) fn new(weights: &Weights, name: &'static str, items: usize, width: usize) -> Result<Self> {
        Self::with(weights, name, (items, width), Init::Randn { mean: 0.0, stdev: 0.05 })
    }

    /// A table that begins so.
    pub(crate) fn with(
        weights: &Weights,
        name: &'static str,
        shape: (usize, usize),
        init: Init,
    ) -> Result<Self> {
        let values = weights.builder().get_with_hints(shape, name, init)?;
        let sparse = SparseTable::new(&values)?;
        Ok(Self { name, values, sparse })
    }

    /// The name of the variable.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The table in candle's graph.
    pub(crate) fn values(&self) -> &Tensor {
        &self.values
    }

    /// The table of longseq.
    pub(crate) fn sparse(&self) -> &SparseTable {
        &self.sparse
    }

    /// Rounds the table to what `f16` can hold.
    pub(crate) fn round(&self, weights: &Weights) -> Result<()> {
        let var = weights.var(self.name)?;
        let rounded = var.as_detached_tensor().to_dtype(DType::F16)?.to_dtype(DType::F32)?;
        var.set(&rounded)
    }
}
