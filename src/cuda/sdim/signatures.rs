//! SDIM: signatures, computed or given.

use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::{ByType, Kernel};
use crate::cuda::memory::{CudaMemory, Region};
use crate::cuda::sdim::items::gather;
use crate::cuda::twin::twins;
use crate::element::{Element, Scalar, Signature};
use crate::error::Result;
use crate::gpu::{Bound, fit};
use crate::memory::{View, ViewMut};
use crate::ops::{Hash, Sdim};

/// Hashes rows.
const SIGNATURES: ByType = ByType([
    Kernel::new("sdim", "sdim_signatures_f32", FLAT_THREADS, 64),
    Kernel::new("sdim", "sdim_signatures_f16", FLAT_THREADS, 64),
    Kernel::new("sdim", "sdim_signatures_bf16", FLAT_THREADS, 64),
]);
/// Looks for given signatures out of range.
const CHECK: Kernel = Kernel::new("sdim", "sdim_check", FLAT_THREADS, 12);
/// Rows that a block hashes or adds at a time, and groups that it hashes.
pub(super) const TILE_ROWS: usize = 64;
const TILE_GROUPS: usize = 16;
/// Threads per block of the kernels with one thread per number.
pub(super) const FLAT_THREADS: u32 = 256;
/// Threads per block in `kernels/sdim/scan.cu` and `query.cu`.
pub(super) const SCAN_THREADS: u32 = 128;
/// The most bytes of partial results: a small part of a GPU's memory.
pub(super) const PARTIAL_BYTES: usize = 64 << 20;

twins! {
    /// `kernels/sdim/sdim.cu`
    pub(in crate::cuda) struct SdimSignatureParams {
        rows: u64,
        rotations: u64,
        out: u64,
        count: u64,
        width: u32,
        groups: u32,
        bits: u32,
        vectors: u32,
        code_bytes: u32,
        unused: u32,
    }
}

twins! {
    /// `kernels/sdim/sdim.cu`
    pub(in crate::cuda) struct SdimCheckParams {
        codes: u64,
        record: u64,
        length: u64,
        bits: u32,
        code_bytes: u32,
    }
}

/// Sizes as the kernels take them.
pub(super) struct Sizes {
    pub(super) width: u32,
    pub(super) groups: u32,
    pub(super) bits: u32,
    /// Numbers of one user's table.
    pub(super) table: usize,
}

impl Sizes {
    pub(super) fn of(operation: &'static str, op: &Sdim) -> Result<Self> {
        fit(operation, "rotations", op.width.saturating_mul(op.groups).saturating_mul(op.bits))?;
        fit(operation, "buckets", op.groups.saturating_mul(op.buckets()))?;
        Ok(Self {
            width: fit(operation, "width", op.width)?,
            groups: fit(operation, "groups", op.groups)?,
            bits: fit(operation, "bits", op.bits)?,
            table: op.table_length(1)?,
        })
    }
}

/// Signatures on the device.
#[derive(Clone, Copy, Default)]
pub(super) struct Codes {
    pub(super) pointer: u64,
    pub(super) bytes: u32,
    /// The record for those out of range; 0 for signatures that were computed, and for those of items, which have been checked.
    pub(super) record: u64,
}

pub(super) fn signatures<T: Element, W: Signature>(
    gpu: &Cuda,
    op: &Sdim,
    rows: View<'_, CudaMemory, T>,
    rotations: View<'_, CudaMemory, f32>,
    out: ViewMut<'_, CudaMemory, W>,
) -> Result<()> {
    const NAME: &str = "sdim_signatures";
    let count = op.check_signatures(rows.len(), rotations.len())?;
    op.check_signatures_output::<W>(count, out.len())?;
    let (rows, rotations) = (gpu.region(NAME, &rows)?, gpu.region(NAME, &rotations)?);
    let out = gpu.region_mut(NAME, &out)?;
    let call = gpu.begin(NAME);
    hash(&call, op, count, rows, rotations, out.pointer, size_of::<W>() as u32)?;
    call.finish()
}

fn hash<T: Element>(
    call: &Call<'_>,
    op: &Sdim,
    count: usize,
    rows: Region<T>,
    rotations: Region<f32>,
    out: u64,
    code_bytes: u32,
) -> Result<()> {
    let sizes = Sizes::of(call.operation, op)?;
    let params = SdimSignatureParams {
        rows: rows.pointer,
        rotations: rotations.pointer,
        out,
        count: count as u64,
        width: sizes.width,
        groups: sizes.groups,
        bits: sizes.bits,
        vectors: rows.vectors(op.width, 16).into(),
        code_bytes,
        unused: 0,
    };
    let blocks = count.div_ceil(TILE_ROWS) * op.groups.div_ceil(TILE_GROUPS);
    call.launch(&SIGNATURES.of::<T>().blocks(blocks), &params)
}

/// The signatures of the first `count` rows: computed, given, or those of their items.
pub(super) fn codes<T: Element>(
    gpu: &Cuda,
    call: &mut Call<'_>,
    op: &Sdim,
    count: usize,
    rows: Option<View<'_, CudaMemory, T>>,
    given: &Hash<'_, CudaMemory>,
) -> Result<Codes> {
    fn region<W: Scalar>(
        gpu: &Cuda,
        call: &Call<'_>,
        op: &Sdim,
        count: usize,
        words: &View<'_, CudaMemory, W>,
    ) -> Result<Codes> {
        let bound = Bound::Columns(vec![op.buckets() as u64]);
        let record = call.record("signatures", count * op.groups, bound)?;
        let pointer = gpu.region(call.operation, words)?.pointer;
        Ok(Codes { pointer, bytes: size_of::<W>() as u32, record })
    }
    match (given, rows) {
        (Hash::Signatures8(words), _) => region(gpu, call, op, count, words),
        (Hash::Signatures16(words), _) => region(gpu, call, op, count, words),
        (Hash::Items8 { signatures, ids }, _) => {
            let pointer = gather(gpu, call, op, count, (signatures, ids))?;
            Ok(Codes { pointer, bytes: 1, record: 0 })
        }
        (Hash::Items16 { signatures, ids }, _) => {
            let pointer = gather(gpu, call, op, count, (signatures, ids))?;
            Ok(Codes { pointer, bytes: 2, record: 0 })
        }
        (Hash::Rotations(rotations), rows) => {
            let bytes = if op.bits <= 8 { 1 } else { 2 };
            let pointer = call.scratch(count * op.groups * bytes as usize)?;
            if let Some(rows) = rows {
                let (rows, rotations) =
                    (gpu.region(call.operation, &rows)?, gpu.region(call.operation, rotations)?);
                hash(call, op, count, rows, rotations, pointer, bytes)?;
            }
            Ok(Codes { pointer, bytes, record: 0 })
        }
    }
}

/// Checks given signatures, for kernels that do not read all of them.
pub(super) fn check(call: &Call<'_>, op: &Sdim, count: usize, codes: Codes) -> Result<()> {
    if codes.record == 0 {
        return Ok(());
    }
    let length = count * op.groups;
    let params = SdimCheckParams {
        codes: codes.pointer,
        record: codes.record,
        length: length as u64,
        bits: op.bits as u32,
        code_bytes: codes.bytes,
    };
    call.launch(&CHECK.blocks(length.div_ceil(FLAT_THREADS as usize)), &params)
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    [&SIGNATURES.0[..], &[CHECK]].concat()
}
