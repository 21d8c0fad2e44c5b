//! Packed signs of rotations.

use crate::cuda::handle::Cuda;
use crate::cuda::kernel::{ByType, Kernel};
use crate::cuda::memory::CudaMemory;
use crate::cuda::search::FILE;
use crate::cuda::twin::twins;
use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::memory::{View, ViewMut};
use crate::ops::Signs;

const NAME: &str = "pack_signs";
const KERNELS: ByType = ByType([
    Kernel::new(FILE, "pack_signs_f32", 256, 47),
    Kernel::new(FILE, "pack_signs_f16", 256, 47),
    Kernel::new(FILE, "pack_signs_bf16", 256, 47),
]);
/// Rows that a block packs, a word of each.
const ROWS: usize = 64;

twins! {
    /// `kernels/search/search.cu`
    pub(in crate::cuda) struct PackSignsParams {
        rows: u64,
        rotations: u64,
        out: u64,
        count: u64,
        width: u32,
        bits: u32,
        words: u32,
        unused: u32,
    }
}

pub(super) fn pack<T: Element>(
    gpu: &Cuda,
    op: &Signs,
    count: usize,
    rows: View<'_, CudaMemory, T>,
    rotations: View<'_, CudaMemory, f32>,
    out: ViewMut<'_, CudaMemory, u32>,
) -> Result<()> {
    let params = PackSignsParams {
        rows: gpu.region(NAME, &rows)?.pointer,
        rotations: gpu.region(NAME, &rotations)?.pointer,
        out: gpu.region_mut(NAME, &out)?.pointer,
        count: count as u64,
        width: fit(NAME, "width", op.width)?,
        bits: fit(NAME, "bits", op.bits)?,
        words: op.words() as u32,
        unused: 0,
    };
    let call = gpu.begin(NAME);
    call.launch(&KERNELS.of::<T>().blocks(count.div_ceil(ROWS).saturating_mul(op.words())), &params)?;
    call.finish()
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    KERNELS.0.to_vec()
}
