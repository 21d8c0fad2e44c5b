//! Search by dot products and cosines of rows, and by Hamming distances of packed signs.

use crate::cuda::batch::CudaBatch;
use crate::cuda::call::Call;
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::Kernel;
use crate::cuda::memory::CudaMemory;
use crate::cuda::selection::{BEHAVIOURS, Found, Keeping, KeptLists, THREADS, Variant, list_bytes};
use crate::cuda::twin::twins;
use crate::element::Scalar;
use crate::error::Result;
use crate::gpu::fit;
use crate::memory::View;
use crate::ops::*;

/// The variants for one storage, those with more candidates first.
pub(in crate::cuda) type Variants = [Variant; 3];

const fn variants(kernels: [Kernel; 3]) -> Variants {
    let [many, few, one] = kernels;
    [
        Variant { candidates: 16, entries: 4096, kernel: many },
        Variant { candidates: 4, entries: 4096, kernel: few },
        Variant { candidates: 1, entries: 8192, kernel: one },
    ]
}

static F32: Variants = variants([
    Kernel::new("search_f32", "search_f32_16", THREADS, 116),
    Kernel::new("search_f32", "search_f32_4", THREADS, 147),
    Kernel::new("search_f32", "search_f32_1", THREADS, 56),
]);
static F16: Variants = variants([
    Kernel::new("search_f16", "search_f16_16", THREADS, 115),
    Kernel::new("search_f16", "search_f16_4", THREADS, 124),
    Kernel::new("search_f16", "search_f16_1", THREADS, 64),
]);
static BF16: Variants = variants([
    Kernel::new("search_bf16", "search_bf16_16", THREADS, 115),
    Kernel::new("search_bf16", "search_bf16_4", THREADS, 126),
    Kernel::new("search_bf16", "search_bf16_1", THREADS, 63),
]);
static INT8: Variants = variants([
    Kernel::new("search_int8", "search_int8_16", THREADS, 162),
    Kernel::new("search_int8", "search_int8_4", THREADS, 115),
    Kernel::new("search_int8", "search_int8_1", THREADS, 83),
]);
static CODES: Variants = variants([
    Kernel::new("search_codes", "search_codes_16", THREADS, 124),
    Kernel::new("search_codes", "search_codes_4", THREADS, 111),
    Kernel::new("search_codes", "search_codes_1", THREADS, 48),
]);
static SIGNS: Variants = variants([
    Kernel::new("search_signs", "search_signs_16", THREADS, 163),
    Kernel::new("search_signs", "search_signs_4", THREADS, 87),
    Kernel::new("search_signs", "search_signs_1", THREADS, 48),
]);

/// For rows of more than [`BLOCK_COLUMNS`] numbers.
static F32_WIDE: Variants = variants([
    Kernel::new("search_f32", "search_f32_wide_16", THREADS, 140),
    Kernel::new("search_f32", "search_f32_wide_4", THREADS, 122),
    Kernel::new("search_f32", "search_f32_wide_1", THREADS, 63),
]);
static F16_WIDE: Variants = variants([
    Kernel::new("search_f16", "search_f16_wide_16", THREADS, 168),
    Kernel::new("search_f16", "search_f16_wide_4", THREADS, 122),
    Kernel::new("search_f16", "search_f16_wide_1", THREADS, 64),
]);
static BF16_WIDE: Variants = variants([
    Kernel::new("search_bf16", "search_bf16_wide_16", THREADS, 168),
    Kernel::new("search_bf16", "search_bf16_wide_4", THREADS, 121),
    Kernel::new("search_bf16", "search_bf16_wide_1", THREADS, 64),
]);
static INT8_WIDE: Variants = variants([
    Kernel::new("search_int8", "search_int8_wide_16", THREADS, 168),
    Kernel::new("search_int8", "search_int8_wide_4", THREADS, 124),
    Kernel::new("search_int8", "search_int8_wide_1", THREADS, 95),
]);

/// The widest rows of codes whose products are added up as integers: 2¹⁴ each.
const MAX_CODES: usize = 1 << 16;

/// As in `kernels/search/search.cuh`: the vectors of rows that a block stages (double-buffered), and the quads of candidates.
/// Both have 16 bytes.
const STAGED_VECTORS: usize = 4;
const STAGED_QUADS: usize = 32;
/// Columns whose products kernels for wide rows add up before they add these sums.
const BLOCK_COLUMNS: usize = 4096;
const VECTOR: usize = 16;

twins! {
    /// `kernels/search/params.cuh`
    pub(in crate::cuda) struct SearchParams {
        pieces: u64,
        kept: KeptLists,
        queries: u64,
        keys: u64,
        query_scales: u64,
        query_offsets: u64,
        key_scales: u64,
        key_offsets: u64,
        bias: u64,
        scale: f32,
        cosine: u32,
        width: u32,
        row_bytes: u32,
        vectors: u32,
        access: u32,
    }
}

/// Rows of both sides in device memory.
struct Rows {
    variants: &'static Variants,
    queries: u64,
    keys: u64,
    /// Scales and offsets of candidates and of behaviours, or 0.
    scales: [u64; 2],
    offsets: [u64; 2],
    row_bytes: usize,
    /// Quads of candidates per vector of a row.
    quads: usize,
}

impl Rows {
    /// Rows of `width` elements.
    fn new<T: Scalar>(
        gpu: &Cuda,
        operation: &'static str,
        (variants, quads): (&'static Variants, usize),
        [queries, keys]: [&View<'_, CudaMemory, T>; 2],
        width: usize,
    ) -> Result<Self> {
        Ok(Self {
            variants,
            queries: gpu.region(operation, queries)?.pointer,
            keys: gpu.region(operation, keys)?.pointer,
            scales: [0; 2],
            offsets: [0; 2],
            row_bytes: width.saturating_mul(size_of::<T>()),
            quads,
        })
    }

    /// Rows that are stored alike, which the operation has checked; `None` for others.
    fn of(
        gpu: &Cuda,
        operation: &'static str,
        op: &Search,
        inputs: &SimilarityInputs<'_, CudaMemory>,
    ) -> Result<Option<Self>> {
        let width = op.width;
        let is_wide = width > BLOCK_COLUMNS;
        let either = |narrow, wide| if is_wide { wide } else { narrow };
        let int8 = (either(&INT8, &INT8_WIDE), 4);
        let pointer =
            |view: &View<'_, CudaMemory, f32>| -> Result<u64> { Ok(gpu.region(operation, view)?.pointer) };
        Ok(Some(match (&inputs.queries, &inputs.keys) {
            (SearchRows::F32(q), SearchRows::F32(k)) => {
                Self::new(gpu, operation, (either(&F32, &F32_WIDE), 1), [q, k], width)?
            }
            (SearchRows::F16(q), SearchRows::F16(k)) => {
                Self::new(gpu, operation, (either(&F16, &F16_WIDE), 2), [q, k], width)?
            }
            (SearchRows::Bf16(q), SearchRows::Bf16(k)) => {
                Self::new(gpu, operation, (either(&BF16, &BF16_WIDE), 2), [q, k], width)?
            }
            (SearchRows::Codes(q), SearchRows::Codes(k)) => {
                let variants = if width <= MAX_CODES { (&CODES, 1) } else { int8 };
                Self::new(gpu, operation, variants, [q, k], width)?
            }
            (
                SearchRows::Int8 { codes: q, scale: q_scale, offset: q_offset },
                SearchRows::Int8 { codes: k, scale: k_scale, offset: k_offset },
            ) => Self {
                scales: [pointer(q_scale)?, pointer(k_scale)?],
                offsets: [pointer(q_offset)?, pointer(k_offset)?],
                ..Self::new(gpu, operation, int8, [q, k], width)?
            },
            (SearchRows::Signs(q), SearchRows::Signs(k)) => {
                Self::new(gpu, operation, (&SIGNS, 1), [q, k], op.words())?
            }
            _ => return Ok(None),
        }))
    }

    /// How rows can be read: number by number, 4 bytes or, those of behaviours, 16 bytes at a time.
    fn access(&self) -> u32 {
        let are_aligned = |rows: u64, bytes: usize| {
            rows.is_multiple_of(bytes as u64) && self.row_bytes.is_multiple_of(bytes)
        };
        if !are_aligned(self.queries, 4) || !are_aligned(self.keys, 4) {
            0
        } else if !are_aligned(self.keys, VECTOR) {
            1
        } else {
            2
        }
    }
}

/// A search whose arguments are checked; the launches of a call.
pub(in crate::cuda) fn search_into(
    gpu: &Cuda,
    call: &mut Call<'_>,
    op: &Search,
    batch: &CudaBatch,
    inputs: &SimilarityInputs<'_, CudaMemory>,
    found: Found,
) -> Result<()> {
    let operation = call.operation;
    let Some(rows) = Rows::of(gpu, operation, op, inputs)? else { return Ok(()) };
    let bias = inputs.bias.as_ref().map(|bias| gpu.region(operation, bias)).transpose()?;
    // Kernels count bytes past the end of a row in 32 bits, too.
    fit(operation, "width", op.width.max(rows.row_bytes.saturating_add(4 * VECTOR)))?;
    let most = batch.as_ref().requests().map(|(_, targets)| targets.len()).max().unwrap_or(0);
    let variant = variant(rows.variants, op.top_k, most);
    let keeping = Keeping::new(gpu, call, batch, variant.candidates, op.top_k)?;
    let (pieces, blocks) = keeping.pieces();
    let vectors = rows.row_bytes.div_ceil(VECTOR);
    let params = SearchParams {
        pieces,
        kept: keeping.kept,
        queries: rows.queries,
        keys: rows.keys,
        query_scales: rows.scales[0],
        query_offsets: rows.offsets[0],
        key_scales: rows.scales[1],
        key_offsets: rows.offsets[1],
        bias: bias.map_or(0, |bias| bias.pointer),
        scale: if let SearchScore::Dot { scale } = op.score { scale } else { 1.0 },
        cosine: u32::from(op.score == SearchScore::Cosine),
        width: op.width as u32,
        row_bytes: rows.row_bytes as u32,
        vectors: vectors as u32,
        access: rows.access(),
    };
    let shared = shared_bytes(vectors, vectors * rows.quads, variant);
    call.launch(&variant.kernel.blocks(blocks).with_shared(shared), &params)?;
    keeping.select(call, found)
}

/// The variant with the most candidates whose lists K fits, of no more than are useful where no user has more than `most`.
fn variant(variants: &'static Variants, top_k: usize, most: usize) -> &'static Variant {
    let [many, few, one] = variants;
    match (many.fits(top_k), few.fits(top_k)) {
        (true, _) if most > few.candidates => many,
        (_, true) => few,
        _ => one,
    }
}

/// Bytes of dynamic shared memory per block: the lists and factors of candidates, then what is staged.
pub(in crate::cuda) fn shared_bytes(vectors: usize, quads: usize, variant: &Variant) -> usize {
    let candidates = variant.candidates;
    let kept = list_bytes(candidates, variant.entries)
        + (candidates * 2 * size_of::<f32>()).next_multiple_of(VECTOR);
    let columns = STAGED_VECTORS.min(vectors);
    let lanes = if columns > 2 { STAGED_VECTORS } else { columns.max(1) };
    let rows = 2 * columns * (BEHAVIOURS + 8 / lanes);
    kept + (rows + STAGED_QUADS.min(quads) * (candidates + 1)) * VECTOR
}

/// All variants, with the quads of a vector.
#[cfg(test)]
pub(in crate::cuda) fn all_variants() -> impl Iterator<Item = (&'static Variant, usize)> {
    let stored = [(&F32, 1), (&F16, 2), (&BF16, 2), (&INT8, 4), (&CODES, 1), (&SIGNS, 1)];
    let wide = [(&F32_WIDE, 1), (&F16_WIDE, 2), (&BF16_WIDE, 2), (&INT8_WIDE, 4)];
    stored
        .into_iter()
        .chain(wide)
        .flat_map(|(variants, quads)| variants.iter().map(move |variant| (variant, quads)))
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    all_variants().map(|(variant, _)| variant.kernel).collect()
}
