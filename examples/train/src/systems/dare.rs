//! DARE: a narrow table of its own for attention, over all behaviours; the items' embeddings are the representations.

use candle_core::{Result, Tensor};
use longseq::Decoupled;
use longseq_candle::{IdTensors, TableTensor};

use super::{Interest, Sizes, attend};
use crate::inputs::{Inputs, Padded};
use crate::table::Table;
use crate::weights::Weights;

/// The width of the attention table.
const WIDTH: usize = 16;

pub(super) struct Dare {
    op: Decoupled,
    attention: Table,
}

impl Dare {
    pub(super) fn new(sizes: Sizes, weights: &Weights) -> Result<Self> {
        let scale = (1.0 / (WIDTH as f64).sqrt()) as f32;
        Ok(Self {
            op: Decoupled::new([scale]).with_top_k(None),
            attention: Table::new(weights, "interest.attention", sizes.items, WIDTH)?,
        })
    }
}

impl Interest for Dare {
    fn ours(&self, inputs: &Inputs<'_>) -> Result<Tensor> {
        let attention = [TableTensor::from(self.attention.sparse())];
        let representation = [TableTensor::from(inputs.items.sparse())];
        let ids = IdTensors::new(&inputs.history_ids, &inputs.target_ids);
        inputs.longseq.decoupled_attend(&self.op, &inputs.batch, &attention, &representation, ids)
    }

    fn eager(&self, padded: &Padded<'_>) -> Result<Tensor> {
        let queries = padded.rows(&self.attention, &padded.target_ids)?;
        let keys = padded.rows(&self.attention, &padded.history_ids)?;
        let scores = (queries.matmul(&keys.transpose(1, 2)?)? * f64::from(self.op.scales[0]))?;
        attend(&scores, padded, &padded.history()?)
    }

    fn tables(&self) -> Vec<&Table> {
        vec![&self.attention]
    }
}
