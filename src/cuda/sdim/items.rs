//! SDIM: signatures of rows from those of their items, in scratch memory.

use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::Kernel;
use crate::cuda::memory::CudaMemory;
use crate::cuda::sdim::signatures::{Codes, FLAT_THREADS, Sizes};
use crate::cuda::twin::twins;
use crate::element::Scalar;
use crate::error::Result;
use crate::gpu::Bound;
use crate::memory::View;
use crate::ops::Sdim;

/// Gathers signatures.
const ITEMS: Kernel = Kernel::new("sdim_items", "sdim_items", FLAT_THREADS, 16);

twins! {
    /// `kernels/sdim/items.cu`
    pub(in crate::cuda) struct SdimItemsParams {
        signatures: u64,
        ids: u64,
        out: u64,
        id_record: u64,
        record: u64,
        items: u64,
        count: u64,
        groups: u32,
        bits: u32,
        code_bytes: u32,
        unused: u32,
    }
}

/// The signatures of the items of the first `count` rows. Ids and signatures out of range are reported here.
pub(super) fn gather<W: Scalar>(
    gpu: &Cuda,
    call: &mut Call<'_>,
    op: &Sdim,
    count: usize,
    (signatures, ids): (&View<'_, CudaMemory, W>, &View<'_, CudaMemory, u32>),
) -> Result<Codes> {
    let sizes = Sizes::of(call.operation, op)?;
    let items = signatures.len() / op.groups;
    let bound = |most: usize| Bound::Columns(vec![most as u64]);
    let id_record = call.record("ids", count, bound(items))?;
    let record = call.record("signatures", signatures.len(), bound(op.buckets()))?;
    let (signatures, ids) = (gpu.region(call.operation, signatures)?, gpu.region(call.operation, ids)?);
    let bytes = size_of::<W>();
    let out = call.scratch(count * op.groups * bytes)?;
    let params = SdimItemsParams {
        signatures: signatures.pointer,
        ids: ids.pointer,
        out,
        id_record,
        record,
        items: items as u64,
        count: count as u64,
        groups: sizes.groups,
        bits: sizes.bits,
        code_bytes: bytes as u32,
        unused: 0,
    };
    let blocks = (count * op.groups).div_ceil(FLAT_THREADS as usize);
    call.launch(&ITEMS.blocks(blocks), &params)?;
    Ok(Codes { pointer: out, bytes: bytes as u32, record: 0 })
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    vec![ITEMS]
}
