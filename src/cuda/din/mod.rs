//! DIN: lays out the network, prepares the candidates, scores and pools, combines. Gradients and statistics.

mod backward;
mod job;
pub(super) mod kernels;
mod layout;
mod moments;
mod outputs;

use crate::cuda::batch::CudaBatch;
use crate::cuda::handle::Cuda;
use crate::cuda::kernel::{ByType, Kernel};
use crate::cuda::memory::CudaMemory;
use crate::cuda::twin::twins;
use crate::element::{DType, Element, GradientOf};
use crate::error::{Error, Result};
use crate::gpu::{activation_code, check_din, fit};
use crate::memory::{View, ViewMut};
use crate::ops::{Activation, Din, DinGradients, DinInputs, DinOps, DinPooling, DinStatistics};
use crate::plan::{Cut, Pace};

impl DinOps for Cuda {
    fn din_into<T: Element>(
        &self,
        op: &Din,
        batch: &CudaBatch,
        inputs: DinInputs<'_, CudaMemory, T>,
        out: ViewMut<'_, CudaMemory, T>,
    ) -> Result<()> {
        attend(self, op, batch, &inputs, out)
    }

    fn din_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &Din,
        batch: &CudaBatch,
        inputs: DinInputs<'_, CudaMemory, T>,
        grad_out: View<'_, CudaMemory, T>,
        grads: DinGradients<'_, CudaMemory, G>,
    ) -> Result<()> {
        backward::backward(self, op, batch, &inputs, grad_out, &grads)
    }

    fn din_statistics_into<T: Element>(
        &self,
        op: &Din,
        batch: &CudaBatch,
        inputs: DinInputs<'_, CudaMemory, T>,
        layer: usize,
        out: DinStatistics<'_, CudaMemory>,
    ) -> Result<()> {
        backward::statistics(self, op, batch, &inputs, layer, &out)
    }
}

const NAME: &str = "din";
/// Lays out the network, and computes the candidates' terms of the first layer.
const PREPARE: ByType = ByType([
    Kernel::new("din", "din_prepare_f32", 128, 27),
    Kernel::new("din", "din_prepare_f16", 128, 32),
    Kernel::new("din", "din_prepare_bf16", 128, 32),
]);
/// Scores and pools the pieces.
const ATTEND: ByType = ByType([
    Kernel::new("din", "din_attend_f32", 128, 120),
    Kernel::new("din", "din_attend_f16", 128, 118),
    Kernel::new("din", "din_attend_bf16", 128, 112),
]);
/// Combines the partial results of pieces.
const COMBINE: ByType = ByType([
    Kernel::new("din", "din_combine_f32", 128, 32),
    Kernel::new("din", "din_combine_f16", 128, 32),
    Kernel::new("din", "din_combine_bf16", 128, 32),
]);
/// Candidates per piece: `TILE` in `kernels/din/layers.cuh`.
const TILE: usize = 8;
/// Behaviours that a warp takes at a time: `ROWS` in `kernels/din/layers.cuh`.
const ROWS: usize = 16;
/// Threads per warp.
const WARP: usize = 32;
/// The most warps per block.
const WARPS: usize = 4;
/// Threads per block of the kernels that prepare and combine.
const THREADS: usize = 128;
/// Bytes of shared memory that a block may have on every GPU from Ampere on.
const SHARED: usize = 99 << 10;
/// Bytes of an input fragment: four registers of every lane.
const FRAGMENT: usize = WARP * 16;

twins! {
    /// `kernels/din/network.cuh`
    #[derive(Default)]
    pub(super) struct DinLayer {
        units: u32,
        padded: u32,
        activation: u32,
        first_fragment: u32,
        first_vector: u32,
    }

    /// `kernels/din/network.cuh`
    #[derive(Default)]
    pub(super) struct DinPrepareParams {
        targets: u64,
        weights: [u64; 3],
        biases: [u64; 3],
        gains: [u64; 3],
        shifts: [u64; 3],
        alphas: [u64; 3],
        output_weight: u64,
        fragments: u64,
        vectors: u64,
        rows: u64,
        candidates: u64,
        layers: [DinLayer; 3],
        layer_count: u32,
        width: u32,
        inputs_padded: u32,
        first_difference: u32,
        first_output: u32,
        fragment_words: u32,
        vector_words: u32,
        alpha_shared: [u32; 3],
        network_blocks: u32,
    }

    /// `kernels/din/layers.cuh`
    pub(super) struct DinAttendParams {
        pieces: u64,
        history: u64,
        fragments: u64,
        vectors: u64,
        rows: u64,
        output_bias: u64,
        out: u64,
        partial: u64,
        stats: u64,
        layers: [DinLayer; 3],
        layer_count: u32,
        width: u32,
        inputs_padded: u32,
        first_difference: u32,
        first_output: u32,
        softmax: u32,
        by_vectors: u32,
        stride: u32,
        warp_bytes: u32,
    }

    /// `kernels/din/din.cu`
    pub(super) struct DinCombineParams {
        tiles: u64,
        partial: u64,
        stats: u64,
        out: u64,
        width: u32,
        softmax: u32,
    }
}

/// Parts into which weights, inputs of a layer and differences of weights are split: `Parts` in
/// `kernels/din/network.cuh`.
fn parts<T: Element>() -> [usize; 3] {
    match T::DTYPE {
        DType::F32 => [3, 3, 3],
        DType::F16 => [2, 2, 2],
        DType::Bf16 => [1, 2, 2],
    }
}

/// The layout of the network in device memory and in a warp's shared memory.
#[derive(Debug, Clone)]
struct Layout {
    layers: [DinLayer; 3],
    count: usize,
    inputs_padded: usize,
    first_difference: usize,
    fragment_words: usize,
    first_output: usize,
    vector_words: usize,
    stride: usize,
    warp_bytes: usize,
}

/// Bytes of shared memory per warp: `WarpLayout` in `kernels/din/layers.cuh`. `first` and `second` are the padded units of
/// the first two layers, `inputs` the padded inputs of the first.
pub(super) fn warp_bytes<T: Element>(
    first: usize,
    second: usize,
    layers: usize,
    inputs: usize,
    stride: usize,
) -> usize {
    let [_, input_parts, _] = parts::<T>();
    let area = |units: usize| units / 16 * input_parts * FRAGMENT;
    first / 8 * FRAGMENT
        + (ROWS + TILE) * stride * 4
        + (ROWS + 4) * TILE * 4
        + if layers > 1 { area(first) } else { 0 }
        + area(inputs.max(if layers > 2 { second } else { 0 }))
}

impl Layout {
    fn new<T: Element>(width: usize, units: &[usize]) -> Result<Self> {
        let [weight, _, difference] = parts::<T>();
        let inputs_padded = width.next_multiple_of(16);
        let padded: Vec<usize> = units.iter().map(|units| units.next_multiple_of(16)).collect();
        // A fragment of weights is two registers of a lane for 16 inputs of 8 units.
        let words = |inputs: usize, units: usize, parts: usize| inputs / 16 * (units / 8) * parts * 2 * WARP;
        let (mut fragments, mut vectors) = (0usize, 0usize);
        let mut layers = [DinLayer::default(); 3];
        let mut first_difference = 0;
        let mut inputs = inputs_padded;
        for (index, (&units, &padded)) in units.iter().zip(&padded).enumerate() {
            layers[index] = DinLayer {
                units: units as u32,
                padded: padded as u32,
                activation: 0,
                first_fragment: fit(NAME, "weights", fragments)?,
                first_vector: vectors as u32,
            };
            fragments += words(inputs, padded, weight);
            if index == 0 {
                first_difference = fragments;
                fragments += words(inputs, padded, difference);
            }
            vectors += 4 * padded;
            inputs = padded;
        }
        fit(NAME, "weights", fragments)?;
        let stride = |width: usize| width.next_multiple_of(32) + 8;
        let second = padded.get(1).copied().unwrap_or(0);
        let warp_bytes = |width: usize| {
            let inputs = width.next_multiple_of(16);
            warp_bytes::<T>(padded[0], second, units.len(), inputs, stride(width))
        };
        if warp_bytes(width) > SHARED {
            // The widest rows that a warp has memory for with these units.
            let widest = (1..width).rev().find(|&width| warp_bytes(width) <= SHARED).unwrap_or(0);
            let (needed, limit) = (width as u64, widest as u64);
            return Err(Error::Limit { operation: NAME, argument: "width", needed, limit });
        }
        let (stride, warp_bytes) = (stride(width), warp_bytes(width));
        Ok(Self {
            layers,
            count: units.len(),
            inputs_padded,
            first_difference,
            fragment_words: fragments,
            first_output: vectors,
            vector_words: vectors + inputs,
            stride,
            warp_bytes,
        })
    }

    /// What pieces cost: 2.5 cycles for each instruction of a warp, which the evidence has about 50 of for a fragment of weights and 16
    /// behaviours. What the first layer makes of a behaviour serves all candidates of a tile.
    fn pace(&self) -> Pace {
        let mut inputs = self.inputs_padded;
        let mut products = |layer: &DinLayer| {
            let numbers = inputs * layer.padded as usize;
            inputs = layer.padded as usize;
            numbers
        };
        let layers = self.layers[..self.count].iter().map(&mut products).collect::<Vec<_>>();
        let first = layers.first().copied().unwrap_or(0);
        Pace {
            resident: 1,
            step: 1000 + first,
            row: 500 + layers.iter().sum::<usize>(),
            piece: 3000,
            combine: 4500,
            slot: 60,
            fewest_steps: 1,
            shrinks: true,
        }
    }

    /// Warps per block for histories of up to `longest` behaviours, so that each has work.
    fn warps(&self, longest: usize) -> usize {
        longest.div_ceil(ROWS).min(SHARED / self.warp_bytes).clamp(1, WARPS)
    }
}

pub(super) fn attend<T: Element>(
    gpu: &Cuda,
    op: &Din,
    batch: &CudaBatch,
    inputs: &DinInputs<'_, CudaMemory, T>,
    out: ViewMut<'_, CudaMemory, T>,
) -> Result<()> {
    let units = check_din(NAME, op, batch.as_ref(), inputs, out.len())?;
    let width = op.width;
    let layout = Layout::new::<T>(width, &units)?;
    let warps = layout.warps(batch.as_ref().histories().max_length());
    let cut = Cut {
        rows_per_target: 1,
        tile_rows: TILE,
        step: ROWS * warps,
        // A warp adds 16 of them at a time.
        longest: 1 << 14,
        pace: layout.pace().on(gpu.busy(ATTEND.of::<T>(), WARP * warps, warps * layout.warp_bytes)),
    };
    let plan = batch.plan(gpu, NAME, &cut)?;
    let candidates = batch.as_ref().targets().total();
    let slots = plan.plan.slots * TILE;
    let numbers = |rows: usize, width: usize| {
        let bytes = rows.checked_mul(width).and_then(|count| count.checked_mul(size_of::<f32>()));
        let limit = isize::MAX as u64;
        bytes.ok_or(Error::Limit { operation: NAME, argument: "scratch memory", needed: u64::MAX, limit })
    };
    let [history, targets, output_weight] =
        [inputs.history, inputs.targets, inputs.output_weight].map(|view| gpu.region(NAME, &view));
    let (history, output_bias) = (history?, gpu.region(NAME, &inputs.output_bias)?);
    let mut call = gpu.begin(NAME);
    let prepared = DinPrepareParams {
        targets: targets?.pointer,
        output_weight: output_weight?.pointer,
        fragments: call.scratch(numbers(layout.fragment_words, 1)?)?,
        vectors: call.scratch(numbers(layout.vector_words, 1)?)?,
        rows: call.scratch(numbers(candidates, layout.inputs_padded + layout.layers[0].padded as usize)?)?,
        ..network(gpu, inputs, &layout, candidates)?
    };
    let partial = call.scratch(numbers(slots, width)?)?;
    let stats = call.scratch(numbers(slots, 2)?)?;
    let out = gpu.region_mut(NAME, &out)?.pointer;
    let softmax = u32::from(op.pooling == DinPooling::Softmax);

    // A warp takes 8 units of a candidate.
    let warps_of_candidates = candidates * (layout.layers[0].padded as usize / 8);
    let blocks = prepared.network_blocks as usize + warps_of_candidates.div_ceil(THREADS / WARP);
    let blocks = if candidates > 0 { blocks } else { 0 };
    call.launch(&PREPARE.of::<T>().blocks(blocks), &prepared)?;
    let params = DinAttendParams {
        pieces: plan.pieces.pointer(),
        history: history.pointer,
        fragments: prepared.fragments,
        vectors: prepared.vectors,
        rows: prepared.rows,
        output_bias: output_bias.pointer,
        out,
        partial,
        stats,
        layers: prepared.layers,
        layer_count: prepared.layer_count,
        width: prepared.width,
        inputs_padded: prepared.inputs_padded,
        first_difference: prepared.first_difference,
        first_output: prepared.first_output,
        softmax,
        by_vectors: u32::from(history.vectors(width, 16)),
        stride: fit(NAME, "width", layout.stride)?,
        warp_bytes: layout.warp_bytes as u32,
    };
    let attend = ATTEND.of::<T>().blocks(plan.plan.pieces.len());
    call.launch(&attend.with_threads(WARP * warps).with_shared(layout.warp_bytes * warps), &params)?;
    let tiles = plan.split_tiles.pointer();
    let params = DinCombineParams { tiles, partial, stats, out, width: prepared.width, softmax };
    call.launch(&COMBINE.of::<T>().blocks(plan.split_count * TILE), &params)?;
    call.finish()
}

/// The parameters of the kernel that prepares: the network, and where it is laid out.
fn network<T: Element>(
    gpu: &Cuda,
    inputs: &DinInputs<'_, CudaMemory, T>,
    layout: &Layout,
    candidates: usize,
) -> Result<DinPrepareParams> {
    let words = layout.fragment_words + layout.vector_words;
    let mut network = DinPrepareParams {
        candidates: candidates as u64,
        layers: layout.layers,
        layer_count: layout.count as u32,
        width: fit(NAME, "width", inputs.hidden[0].weight.len() / inputs.hidden[0].bias.len() / 4)?,
        inputs_padded: layout.inputs_padded as u32,
        first_difference: layout.first_difference as u32,
        first_output: layout.first_output as u32,
        fragment_words: layout.fragment_words as u32,
        vector_words: layout.vector_words as u32,
        network_blocks: fit(NAME, "weights", words)?.div_ceil(THREADS as u32),
        ..Default::default()
    };
    let vector = |view: View<'_, CudaMemory, f32>| Ok::<u64, Error>(gpu.region(NAME, &view)?.pointer);
    for (index, layer) in inputs.hidden.iter().enumerate() {
        network.weights[index] = gpu.region(NAME, &layer.weight)?.pointer;
        network.biases[index] = vector(layer.bias)?;
        network.layers[index].activation = activation_code(&layer.activation);
        match layer.activation {
            Activation::Relu | Activation::Sigmoid => {}
            Activation::Prelu { alpha } => {
                network.alphas[index] = vector(alpha)?;
                network.alpha_shared[index] = u32::from(alpha.len() == 1);
            }
            Activation::Dice { gain, shift, alpha } => {
                network.gains[index] = vector(gain)?;
                network.shifts[index] = vector(shift)?;
                network.alphas[index] = vector(alpha)?;
            }
        }
    }
    Ok(network)
}

/// All kernels of this stem.
#[cfg(test)]
pub(super) fn table() -> Vec<crate::cuda::kernel::Kernel> {
    [&PREPARE.0[..], &ATTEND.0, &COMBINE.0, &kernels::table()].concat()
}
