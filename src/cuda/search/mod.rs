//! Search by rows and packed signs (`rows.rs`) and by keys (`newest.rs`), and the packing of signs (`signs.rs`).

pub(super) mod newest;
pub(super) mod rows;
pub(super) mod signs;

use crate::cuda::batch::CudaBatch;
use crate::cuda::handle::Cuda;
use crate::cuda::memory::CudaMemory;
use crate::cuda::selection::Found;
use crate::element::Element;
use crate::error::Result;
use crate::memory::{View, ViewMut};
use crate::ops::*;

const SEARCH: &str = "search";
/// The file of the kernels that are the same for rows of every storage.
const FILE: &str = "search";

impl SearchOps for Cuda {
    fn search_into(
        &self,
        op: &Search,
        batch: &CudaBatch,
        inputs: SimilarityInputs<'_, CudaMemory>,
        out: SelectionMut<'_, CudaMemory>,
    ) -> Result<()> {
        op.check(batch.as_ref(), &inputs)?;
        op.check_outputs(batch.as_ref(), &out)?;
        let found = Found::of(self, SEARCH, &out)?;
        match (&inputs.queries, &inputs.keys) {
            (SearchRows::Keys(queries), SearchRows::Keys(keys)) => {
                newest::newest(self, op, batch, (queries, keys), found)
            }
            _ => {
                let mut call = self.begin(SEARCH);
                rows::search_into(self, &mut call, op, batch, &inputs, found)?;
                call.finish()
            }
        }
    }

    fn pack_signs_into<T: Element>(
        &self,
        op: &Signs,
        rows: View<'_, CudaMemory, T>,
        rotations: View<'_, CudaMemory, f32>,
        out: ViewMut<'_, CudaMemory, u32>,
    ) -> Result<()> {
        let count = op.check(rows.len(), rotations.len())?;
        op.check_output(count, out.len())?;
        signs::pack(self, op, count, rows, rotations, out)
    }
}

/// All kernels of this stem.
#[cfg(test)]
pub(super) fn table() -> Vec<crate::cuda::kernel::Kernel> {
    [rows::table(), crate::cuda::selection::table(), newest::table(), signs::table()].concat()
}
