//! DIN: folds the network, makes the candidates ready, scores and pools, merges.

use std::ops::Range;

use crate::element::Element;
use crate::error::Result;
use crate::gpu::{activation_code, check_units, fit};
use crate::jagged::Batch;
use crate::memory::{View, ViewMut};
use crate::ops::{Activation, DIN_LAYERS as NAMES, Din, DinInputs, DinOps, DinPooling};
use crate::plan::Cut;
use crate::webgpu::Wgpu;
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::launch::{Binding, Params};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::target_attention::{
    MAX_COLUMNS, PIECES, columns_of, merge_groups, merge_kernel, rows_per_binding, vectors,
};

impl DinOps for Wgpu {
    fn din_into<T: Element>(
        &self,
        op: &Din,
        batch: &WgpuBatch,
        inputs: DinInputs<'_, WgpuMemory, T>,
        out: ViewMut<'_, WgpuMemory, T>,
    ) -> Result<()> {
        attend(self, op, batch, &inputs, out)
    }
}

const NAME: &str = "din";

/// Candidates that a workgroup takes.
const TILE: usize = 4;
/// Fours of units that workgroup memory holds.
const ROOM: usize = 960;
/// How many pairs of candidate and behaviour a workgroup may take at a time.
const BEHAVIOURS: [usize; 4] = [32, 16, 8, 4];
/// The fewest of one candidate: what a thread takes, but for the last of these.
const FEWEST_OF_ONE: usize = 8;
/// What a step costs beside its pairs, in pairs: barriers, and lanes that have no unit.
const STEP_COST: usize = 8;
/// What stands beside the weights of four units: bias, gain, shift, alpha, output weight.
const VECTORS: usize = 5;

/// Softmax and the score itself, as target_attention/combine.wgsl counts weightings.
fn weighting(pooling: DinPooling) -> u32 {
    match pooling {
        DinPooling::Softmax => 0,
        DinPooling::Sum => 3,
    }
}

fn din_kernel(layers: usize, behaviours: usize, history: Format) -> Kernel {
    Kernel {
        name: "din",
        sources: &[include_str!("../../shaders/din/attend.wgsl")],
        constants: vec![
            ("LAYERS", layers as u32),
            ("BEHAVIOURS", behaviours as u32),
            ("GROUP4", if behaviours == 4 { 1 } else { 2 }),
        ],
        slots: vec![
            Slot::plain("pieces", "vec4<u32>"),
            Slot::plain("targets", "vec4<f32>"),
            Slot::read("history", history),
            Slot::plain("blocks", "mat4x4<f32>"),
            Slot::plain("vectors", "vec4<f32>"),
            Slot::read("output_bias", Format::f32(false)),
            Slot::write("out", "f32"),
            Slot::write("partial", "f32"),
        ],
    }
}

fn fold_kernel(weights: Format) -> Kernel {
    Kernel {
        name: "din_fold",
        sources: &[include_str!("../../shaders/din/fold.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::read("weight", weights),
            Slot::plain("bias", "f32"),
            Slot::plain("gain", "f32"),
            Slot::plain("shift", "f32"),
            Slot::plain("alpha", "f32"),
            Slot::read("output_weight", weights),
            Slot::write("blocks", "vec4<f32>"),
            Slot::write("vectors", "vec4<f32>"),
        ],
    }
}

fn targets_kernel(targets: Format) -> Kernel {
    Kernel {
        name: "din_targets",
        sources: &[include_str!("../../shaders/din/targets.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::read("targets", targets),
            Slot::plain("blocks", "mat4x4<f32>"),
            Slot::plain("vectors", "vec4<f32>"),
            Slot::write("packed", "vec4<f32>"),
        ],
    }
}

/// Every kernel of this file.
pub(super) fn variants() -> Vec<Kernel> {
    let each = |format: Format| {
        let sizes =
            (1..=Din::MAX_HIDDEN).flat_map(|layers| BEHAVIOURS.map(|behaviours| (layers, behaviours)));
        let scoring = sizes.map(move |(layers, behaviours)| din_kernel(layers, behaviours, format));
        scoring.chain([targets_kernel(format)]).chain((!format.vectors).then(|| fold_kernel(format)))
    };
    Format::ALL.into_iter().flat_map(each).collect()
}

/// Pairs a workgroup takes at a time, and of how many candidates: what takes the fewest steps of the least cost. The
/// first of equals wins: more pairs share each load of a weight, fewer candidates each load of a behaviour.
fn shape_of(batch: &Batch, fitting: impl Iterator<Item = usize>) -> (usize, usize) {
    let shapes = fitting.flat_map(|pairs| [1, 2, TILE].map(|beside| (pairs, beside)));
    let shapes = shapes.filter(|&(pairs, beside)| beside == 1 || pairs / beside >= FEWEST_OF_ONE);
    let cost = |&(pairs, beside): &(usize, usize)| -> usize {
        let user = |(history, targets): (Range<usize>, Range<usize>)| {
            let (tiles, rest) = (targets.len() / TILE, targets.len() % TILE);
            let rounds = tiles * (TILE / beside) + rest.div_ceil(beside);
            history.len().div_ceil(pairs / beside) * rounds * (pairs + STEP_COST)
        };
        batch.requests().map(user).sum()
    };
    shapes.min_by_key(cost).unwrap_or((4, 1))
}

/// How the network lies in the memory of the device and of a workgroup.
#[derive(Debug, Clone, PartialEq)]
struct Layout {
    /// Units of each hidden layer, and what feeds them.
    units: Vec<usize>,
    inputs: Vec<usize>,
    /// Fours of units of each layer, 0 for the layers there are not.
    units4: [usize; Din::MAX_HIDDEN],
    /// Where the blocks of weights of each layer begin; behind the last lie those that the candidates meet.
    first_block: [usize; Din::MAX_HIDDEN],
    first_query_block: usize,
    blocks: usize,
    /// Pairs a workgroup takes at a time, and of how many candidates beside each other.
    behaviours: usize,
    beside: usize,
    /// Where workgroup memory holds the second layer.
    second_room: usize,
}

impl Layout {
    fn new(width: usize, units: &[usize], batch: &Batch) -> Self {
        let mut units4 = [0; Din::MAX_HIDDEN];
        units4.iter_mut().zip(units).for_each(|(fours, units)| *fours = units.div_ceil(4));
        let [first, second, third] = units4;
        // The last layer leaves a number where the others leave four.
        let (before_second, needed) = match units.len() {
            1 => (0, first.div_ceil(4)),
            2 => (first, first + second.div_ceil(4)),
            _ => (first.max(third.div_ceil(4)), first.max(third.div_ceil(4)) + second),
        };
        let fitting = BEHAVIOURS.into_iter().filter(|&behaviours| behaviours * needed <= ROOM);
        let (behaviours, beside) = shape_of(batch, fitting);
        let width4 = width.div_ceil(4);
        // Two blocks for each four inputs of the first layer: of the behaviour and of its product with the candidate.
        let first_block = [0, 2 * first * width4, 2 * first * width4 + second * first];
        let first_query_block = first_block[2] + third * second;
        Self {
            units: units.to_vec(),
            inputs: std::iter::once(&width).chain(units).take(units.len()).copied().collect(),
            units4,
            first_block,
            first_query_block,
            blocks: first_query_block + first * width4,
            behaviours,
            beside,
            second_room: before_second * behaviours,
        }
    }

    /// Lanes of each of the candidates beside each other; a lane takes 8 behaviours, or 4 of the smallest step.
    fn candidate_lanes(&self) -> usize {
        self.behaviours / self.beside / if self.behaviours == 4 { 4 } else { 8 }
    }

    /// Where the vectors of a layer begin.
    fn first_vector(&self, layer: usize) -> usize {
        VECTORS * self.units4[..layer].iter().sum::<usize>()
    }
}

pub(super) fn attend<T: Element>(
    gpu: &Wgpu,
    op: &Din,
    batch: &WgpuBatch,
    inputs: &DinInputs<'_, WgpuMemory, T>,
    out: ViewMut<'_, WgpuMemory, T>,
) -> Result<()> {
    op.check(batch.as_ref(), inputs)?;
    op.check_output(batch.as_ref(), out.len())?;
    let units: Vec<usize> = inputs.hidden.iter().map(|layer| layer.bias.len()).collect();
    check_units(NAME, &units)?;
    let width = op.width;
    let layout = Layout::new(width, &units, batch.as_ref());
    let history = Region::of(inputs.history);
    let window = rows_per_binding::<T>(gpu, width);
    let cut =
        Cut { rows_per_target: 1, tile_rows: TILE, step: layout.behaviours, wanted: PIECES, longest: window };
    let plan = batch.plan(gpu, NAME, &cut)?;
    if plan.plan.tiles.is_empty() {
        return Ok(());
    }
    let candidates = batch.as_ref().targets().total();
    fit(NAME, "out", candidates.saturating_mul(width))?;
    // All memory first: what the device refuses, it refuses before anything runs.
    let output_bias = gpu.bind(NAME, "output_bias", &Region::of(inputs.output_bias))?;
    let sums = plan.plan.slots * TILE;
    let partial = gpu.scratch(NAME, (sums * (MAX_COLUMNS.min(width) + 2)) as u64)?;
    let read = [history.buffer, &output_bias.buffer];
    let out = gpu.output(NAME, "out", &out, candidates * width, &read)?;
    let blocks = gpu.scratch(NAME, layout.blocks.saturating_mul(16) as u64)?;
    let vectors_of_units = gpu.scratch(NAME, 4 * layout.first_vector(Din::MAX_HIDDEN) as u64)?;
    let row4 = layout.units4[0] + width.div_ceil(4);
    let packed = gpu.scratch(NAME, candidates.saturating_mul(4 * row4) as u64)?;

    for layer in 0..units.len() {
        fold(gpu, inputs, &layout, layer, &blocks, &vectors_of_units)?;
    }
    pack_targets(
        gpu,
        Region::of(inputs.targets),
        candidates,
        &layout,
        [&blocks, &vectors_of_units, &packed],
    )?;
    let u = |value: usize| value as u32;
    let weighting = weighting(op.pooling);
    let mut activations = [0; Din::MAX_HIDDEN];
    let codes = inputs.hidden.iter().map(|layer| activation_code(&layer.activation));
    activations.iter_mut().zip(codes).for_each(|(activation, code)| *activation = code);
    // Wider rows than a workgroup sums take several dispatches, each of which scores anew.
    for first_column in (0..width).step_by(MAX_COLUMNS) {
        let columns = MAX_COLUMNS.min(width - first_column);
        let first_stats = u(sums * columns);
        for (pieces, span) in plan.plan.windows(window) {
            let history = gpu.bind(NAME, "history", &history.rows(span.start, span.len(), width))?;
            let kernel = din_kernel(units.len(), layout.behaviours, vectors::<T>(&history, width));
            let params = Params::default()
                .u32s(&[u(pieces.start), u(width), u(first_column), u(columns)])
                .u32s(&[u(columns_of(columns)), u(span.start), history.base, output_bias.base])
                .u32s(&[out.binding.base, first_stats, weighting])
                .u32s(&layout.units4.map(u))
                .u32s(&activations)
                .u32s(&[u(layout.first_block[1]), u(layout.first_block[2]), u(layout.second_room)])
                .u32s(&[u(layout.beside), u(layout.candidate_lanes())]);
            let bindings = [
                &plan.pieces,
                &packed,
                &history,
                &blocks,
                &vectors_of_units,
                &output_bias,
                &out.binding,
                &partial,
            ];
            gpu.dispatch(&kernel, params, &bindings, pieces.len() as u64)?;
        }
        // One head, and no log-sum-exp, for which an output must be bound all the same.
        let params = Params::default()
            .u32s(&[1, 1, u(width), u(first_column)])
            .u32s(&[u(columns), out.binding.base, 0, first_stats])
            .u32s(&[u(TILE), weighting, 0]);
        let bindings = [&plan.merges, &partial, &out.binding, &gpu.no_output(NAME)?];
        gpu.dispatch(
            &merge_kernel(columns),
            params,
            &bindings,
            merge_groups(plan.merge_count * TILE, columns),
        )?;
    }
    gpu.finish(out)
}

/// Brings one layer of the network into the form that the other kernels read.
fn fold<T: Element>(
    gpu: &Wgpu,
    inputs: &DinInputs<'_, WgpuMemory, T>,
    layout: &Layout,
    index: usize,
    blocks: &Binding,
    vectors: &Binding,
) -> Result<()> {
    let layer = &inputs.hidden[index];
    let names = &NAMES[index];
    let bind = |argument, view: View<'_, WgpuMemory, f32>| gpu.bind(NAME, argument, &Region::of(view));
    let nothing = || gpu.nothing();
    let (gain, shift, alpha, alpha_stride) = match layer.activation {
        Activation::Relu | Activation::Sigmoid => (nothing(), nothing(), nothing(), 0),
        Activation::Prelu { alpha } => {
            (nothing(), nothing(), bind(names.alpha, alpha)?, u32::from(alpha.len() > 1))
        }
        Activation::Dice { gain, shift, alpha } => {
            (bind(names.gain, gain)?, bind(names.shift, shift)?, bind(names.alpha, alpha)?, 1)
        }
    };
    let weight = gpu.bind(NAME, names.weight, &Region::of(layer.weight))?;
    let bias = bind(names.bias, layer.bias)?;
    let output_weight = gpu.bind(NAME, "output_weight", &Region::of(inputs.output_weight))?;
    let threads = 4 * layout.units4[index] * layout.inputs[index].div_ceil(4);
    let u = |value: usize| value as u32;
    let is_last = index + 1 == layout.units.len();
    let params = Params::default()
        .u32s(&[fit(NAME, names.weight, threads)?, u(layout.units[index]), u(layout.inputs[index])])
        .u32s(&[u32::from(index == 0), u32::from(is_last), activation_code(&layer.activation)])
        .u32s(&[weight.base, bias.base, gain.base, shift.base, alpha.base, alpha_stride, output_weight.base])
        .u32s(&[u(layout.first_block[index]), u(layout.first_query_block), u(layout.first_vector(index))]);
    let kernel = fold_kernel(Format::of::<T>(false));
    let bindings = [&weight, &bias, &gain, &shift, &alpha, &output_weight, blocks, vectors];
    gpu.dispatch(&kernel, params, &bindings, threads.div_ceil(64) as u64)
}

/// Widens the candidates and computes what they add to the first layer. `memory`: blocks, vectors, result.
fn pack_targets<T: Element>(
    gpu: &Wgpu,
    targets: Region<'_, T>,
    candidates: usize,
    layout: &Layout,
    memory: [&Binding; 3],
) -> Result<()> {
    let width = layout.inputs[0];
    let targets = gpu.bind(NAME, "targets", &targets.rows(0, candidates, width))?;
    let threads = candidates * (layout.units4[0] + width.div_ceil(4));
    let u = |value: usize| value as u32;
    let params = Params::default().u32s(&[fit(NAME, "targets", threads)?, u(candidates), u(width)]).u32s(&[
        u(layout.units4[0]),
        targets.base,
        u(layout.first_query_block),
    ]);
    let [blocks, vectors_of_units, packed] = memory;
    let bindings = [&targets, blocks, vectors_of_units, packed];
    let kernel = targets_kernel(vectors::<T>(&targets, width));
    gpu.dispatch(&kernel, params, &bindings, threads.div_ceil(64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jagged::Jagged;

    #[test]
    fn two_layers_fit_workgroup_memory() {
        let long = batch(1000, 4);
        let sizes = [1, 4, 10, 40, 80, 128, 200, 255, 256];
        let fours = |units: usize| units.div_ceil(4);
        for first in sizes {
            for second in sizes {
                for third in sizes {
                    for layers in 1..=3 {
                        let layout = Layout::new(64, &[first, second, third][..layers], &long);
                        let place = layout.second_room;
                        // What each layer leaves: units, or in the last its share of the scores.
                        let size = |index: usize, units: usize| {
                            let whole = fours(units) * layout.behaviours;
                            if index + 1 == layers { whole.div_ceil(4) } else { whole }
                        };
                        assert!(size(0, first) <= ROOM);
                        if layers > 1 {
                            assert!(size(0, first) <= place && place + size(1, second) <= ROOM);
                        }
                        if layers > 2 {
                            assert!(size(2, third) <= place);
                        }
                    }
                }
            }
        }
        assert_eq!(Layout::new(64, &[80, 40], &long).behaviours, 32);
        assert_eq!(Layout::new(64, &[256, 256, 256], &long).behaviours, 4);
    }

    fn batch(history: usize, targets: usize) -> Batch {
        let one = |rows| Jagged::from_lengths(&[rows]).unwrap();
        Batch::new(one(history), one(targets)).unwrap()
    }

    #[test]
    fn short_histories_fill_the_lanes() {
        let shape = |history, targets| shape_of(&batch(history, targets), BEHAVIOURS.into_iter());
        assert_eq!(shape(1024, 4), (32, 1));
        assert_eq!(shape(16, 4), (32, 2));
        assert_eq!(shape(8, 4), (32, 4));
        assert_eq!(shape(8, 1), (8, 1));
        assert_eq!(shape(20, 1), (32, 1));
    }
}
