//! Search by rows, packed signs and keys, and the packing of signs.

pub(in crate::webgpu) mod numbers;
pub(in crate::webgpu) mod pack;
pub(in crate::webgpu) mod rows;
mod signs;
mod words;

use crate::element::Element;
use crate::error::Result;
use crate::memory::{View, ViewMut};
use crate::ops::{Search, SearchOps, SearchRows, SearchScore, SelectionMut, Signs, SimilarityInputs};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::selection::{Combined, combine};
use crate::webgpu::shader::Kernel;
use crate::webgpu::state::Wgpu;
use numbers::{NAME, Numbers};

impl SearchOps for Wgpu {
    fn search_into(
        &self,
        op: &Search,
        batch: &WgpuBatch,
        inputs: SimilarityInputs<'_, WgpuMemory>,
        out: SelectionMut<'_, WgpuMemory>,
    ) -> Result<()> {
        self.call(|gpu| search(gpu, op, batch, &inputs, &out))
    }

    fn pack_signs_into<T: Element>(
        &self,
        op: &Signs,
        rows: View<'_, WgpuMemory, T>,
        rotations: View<'_, WgpuMemory, f32>,
        out: ViewMut<'_, WgpuMemory, u32>,
    ) -> Result<()> {
        self.call(|gpu| signs::pack_signs(gpu, op, rows, rotations, &out))
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    [rows::variants(), words::variants(), pack::variants(), signs::variants()].concat()
}

fn search(
    gpu: &Wgpu,
    op: &Search,
    batch: &WgpuBatch,
    inputs: &SimilarityInputs<'_, WgpuMemory>,
    out: &SelectionMut<'_, WgpuMemory>,
) -> Result<()> {
    op.check(batch.as_ref(), inputs)?;
    op.check_outputs(batch.as_ref(), out)?;
    let candidates = batch.as_ref().targets().total();
    let slots = candidates * op.top_k;
    // No pass that writes these reads an input.
    let positions = gpu.output(NAME, "positions", &out.positions, slots, &[], &[])?;
    let scores = gpu.output(NAME, "scores", &out.scores, slots, &[], &[&positions])?;
    let counts = gpu.output(NAME, "counts", &out.counts, candidates, &[], &[&positions, &scores])?;
    let pieces = match (&inputs.queries, &inputs.keys) {
        (SearchRows::Signs(queries), SearchRows::Signs(keys))
        | (SearchRows::Keys(queries), SearchRows::Keys(keys)) => {
            words::search(gpu, op, batch, [queries, keys].map(|view| Region::of(*view)))?
        }
        (queries, keys) => {
            rows::search(gpu, op, batch, [queries, keys].map(Numbers::of), inputs.bias.map(Region::of))?
        }
    };
    // The newest of equal keys is the best.
    let reversed = op.score == SearchScore::Match;
    let selection =
        Combined { positions: &positions.binding, scores: &scores.binding, counts: &counts.binding };
    combine(gpu, NAME, &pieces, reversed, &selection)?;
    [positions, scores, counts].into_iter().try_for_each(|output| gpu.finish(output))
}
