//! SDIM: signatures of rows from those of their items, in scratch memory.

use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::Kernel;
use crate::cuda::memory::CudaMemory;
use crate::cuda::twin::twins;
use crate::element::Scalar;
use crate::error::Result;
use crate::gpu::{Bound, fit};
use crate::memory::View;
use crate::ops::Sdim;

/// Gathers signatures.
const ITEMS: Kernel = Kernel::new("sdim_items", "sdim_items", THREADS, 16);
/// Threads per block: one for each signature.
const THREADS: u32 = 256;

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

/// The address of the signatures of the items of the first `count` rows, of the same type. Ids and signatures out of range are reported, and
/// have signatures of 0.
pub(super) fn gather<W: Scalar>(
    gpu: &Cuda,
    call: &mut Call<'_>,
    op: &Sdim,
    count: usize,
    (signatures, ids): (&View<'_, CudaMemory, W>, &View<'_, CudaMemory, u32>),
) -> Result<u64> {
    let groups = fit(call.operation, "groups", op.groups)?;
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
        groups,
        bits: op.bits as u32,
        code_bytes: bytes as u32,
        unused: 0,
    };
    let blocks = (count * op.groups).div_ceil(THREADS as usize);
    call.launch(&ITEMS.blocks(blocks), &params)?;
    Ok(out)
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    vec![ITEMS]
}
