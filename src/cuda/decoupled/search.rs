//! The search for the behaviours with the highest scores.

use crate::cuda::batch::CudaBatch;
use crate::cuda::call::Call;
use crate::cuda::decoupled::rows::Ids;
use crate::cuda::decoupled::scores::{Scoring, scoring, staged_bytes};
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::Kernel;
use crate::cuda::memory::CudaMemory;
use crate::cuda::selection::{Found, Keeping, KeptLists, THREADS, Variant, list_bytes};
use crate::cuda::twin::twins;
use crate::error::Result;
use crate::gpu::check_top_k;
use crate::ops::*;

const SEARCH: &str = "decoupled_search";
const FILE: &str = "decoupled_search";
/// Variants, those with more candidates first. Only that of a single candidate has lists for the largest K.
pub(in crate::cuda) static VARIANTS: [Variant; 5] = [
    Variant { candidates: 16, entries: 4096, kernel: Kernel::new(FILE, "decoupled_search_16", THREADS, 98) },
    Variant { candidates: 8, entries: 4096, kernel: Kernel::new(FILE, "decoupled_search_8", THREADS, 80) },
    Variant { candidates: 4, entries: 4096, kernel: Kernel::new(FILE, "decoupled_search_4", THREADS, 89) },
    Variant { candidates: 2, entries: 4096, kernel: Kernel::new(FILE, "decoupled_search_2", THREADS, 72) },
    Variant { candidates: 1, entries: 8192, kernel: Kernel::new(FILE, "decoupled_search_1", THREADS, 70) },
];

twins! {
    /// `kernels/decoupled/search.cu`
    pub(in crate::cuda) struct DecoupledSearchParams {
        pieces: u64,
        kept: KeptLists,
        scoring: Scoring,
    }
}

pub(super) fn search(
    gpu: &Cuda,
    op: &Decoupled,
    batch: &CudaBatch,
    inputs: &SearchInputs<'_, CudaMemory>,
    out: SelectionMut<'_, CudaMemory>,
) -> Result<()> {
    let top_k = op.check_search(batch.as_ref(), inputs)?;
    op.check_search_outputs(batch.as_ref(), top_k, &out)?;
    let found = Found::of(gpu, SEARCH, &out)?;
    let ids = Ids::of(gpu, SEARCH, inputs)?;
    let mut call = gpu.begin(SEARCH);
    search_into(gpu, &mut call, op, top_k, batch, inputs.attention, ids, found)?;
    call.finish()
}

#[expect(clippy::too_many_arguments, reason = "a call's parameters, inputs and outputs")]
pub(super) fn search_into(
    gpu: &Cuda,
    call: &mut Call<'_>,
    op: &Decoupled,
    top_k: usize,
    batch: &CudaBatch,
    attention: &[Table<'_, CudaMemory>],
    ids: Ids,
    found: Found,
) -> Result<()> {
    check_top_k(call.operation, top_k)?;
    let most = batch.as_ref().requests().map(|(_, targets)| targets.len()).max().unwrap_or(0);
    let variant = variant(top_k, most);
    let keeping = Keeping::new(gpu, call, batch, variant.candidates, top_k)?;
    let scoring = scoring(gpu, call, op, batch.as_ref(), attention, ids)?;
    let (pieces, blocks) = keeping.pieces();
    let search = DecoupledSearchParams { pieces, kept: keeping.kept, scoring };
    let shared = search_shared(scoring.vec4s as usize, variant);
    call.launch(&variant.kernel.blocks(blocks).with_shared(shared), &search)?;
    keeping.select(call, found)
}

/// The variant with the most candidates whose lists K fits, of no more than are useful where no user has more than `most`. Two share
/// the rows of behaviours and half the entries of the lists of one, so that one is for those K alone that two have no room for.
fn variant(top_k: usize, most: usize) -> &'static Variant {
    let is_useful = |candidates: usize| candidates / 2 < most || candidates == 2;
    let fits = |variant: &&Variant| variant.fits(top_k) && is_useful(variant.candidates);
    VARIANTS.iter().find(fits).unwrap_or(&VARIANTS[VARIANTS.len() - 1])
}

/// Bytes of dynamic shared memory per block of a search: the lists, then what is staged.
pub(in crate::cuda) fn search_shared(vec4s: usize, variant: &Variant) -> usize {
    staged_bytes(vec4s, variant.candidates) + list_bytes(variant.candidates, variant.entries)
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    VARIANTS.iter().map(|variant| variant.kernel).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_k_has_lists_with_room() {
        for top_k in 1..=Search::MAX_TOP_K {
            for most in [0, 1, 2, 3, 20] {
                let variant = variant(top_k, most);
                assert!(variant.fits(top_k), "{top_k}: {variant:?}");
                assert!(variant.candidates <= 2 || variant.candidates < 2 * most, "{most}: {variant:?}");
            }
        }
        assert_eq!([1536, 1537].map(|top_k| variant(top_k, 20).candidates), [2, 1]);
    }
}
