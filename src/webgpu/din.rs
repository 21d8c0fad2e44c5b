//! DIN's local activation unit: folds the first layer, then attends with the network as the score.

use crate::element::Element;
use crate::error::{Error, Result};
use crate::memory::{View, ViewMut};
use crate::ops::{Activation, Din, DinInputs, DinPooling, Weighting};
use crate::plan::{Cut, best_tile_rows};
use crate::webgpu::Wgpu;
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::launch::{Binding, Params, fit};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::target_attention::{
    MAX_COLUMNS, PIECES, code, columns_of, merge_kernel, rows_per_binding, step_of, tiles_beside, vectors,
};

const NAME: &str = "din";
/// The most units of a hidden layer: a thread keeps two layers in private memory.
const MAX_UNITS: usize = 256;

fn attend_kernel(group4: u32, history: Format) -> Kernel {
    Kernel {
        name: "din",
        sources: &[include_str!("../../shaders/score_din.wgsl"), include_str!("../../shaders/attend.wgsl")],
        constants: vec![("GROUP4", group4)],
        slots: vec![
            Slot::plain("pieces", "vec4<u32>"),
            Slot::plain("network", "vec4<f32>"),
            Slot::plain("target_rows", "vec4<f32>"),
            Slot::plain("behaviour_rows", "vec4<f32>"),
            Slot::read("values", history),
            Slot::write("out", "f32"),
            Slot::write("lse_bits", "u32"),
            Slot::write("partial", "f32"),
        ],
    }
}

fn fold_kernel(matrix: Format) -> Kernel {
    Kernel {
        name: "din_fold",
        sources: &[include_str!("../../shaders/din_fold.wgsl")],
        constants: vec![],
        slots: vec![Slot::read("matrix", matrix), Slot::write("out", "f32")],
    }
}

fn project_kernel(rows: Format) -> Kernel {
    Kernel {
        name: "din_project",
        sources: &[include_str!("../../shaders/din_project.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::read("rows", rows),
            Slot::plain("weights", "vec4<f32>"),
            Slot::write("out", "vec4<f32>"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let each = |format: Format| {
        let folded = (!format.vectors).then(|| fold_kernel(format));
        [attend_kernel(1, format), attend_kernel(2, format), project_kernel(format)].into_iter().chain(folded)
    };
    Format::ALL.into_iter().flat_map(each).collect()
}

/// `[rows, columns]` of a matrix on its way into f32 memory, from column `first` on, and perhaps other columns
/// beside them: `a·first + b·second`.
struct Fold {
    rows: usize,
    columns: usize,
    stride: usize,
    first: (usize, f32),
    second: (usize, f32),
}

impl Fold {
    fn plain(rows: usize, columns: usize) -> Self {
        Self { rows, columns, stride: columns, first: (0, 1.0), second: (0, 0.0) }
    }

    /// Writes it at `place`, `out_stride` numbers a row, `padded_rows` rows of whole fours.
    fn write<T: Element>(
        &self,
        gpu: &Wgpu,
        matrix: View<'_, WgpuMemory, T>,
        (out, place, out_stride): (&Binding, usize, usize),
        padded_rows: usize,
    ) -> Result<()> {
        let matrix = gpu.bind(NAME, "hidden", &Region::of(matrix))?;
        let padded = self.columns.next_multiple_of(4);
        let threads = fit(NAME, "hidden", padded_rows * padded)?;
        let u = |value: usize| value as u32;
        // One number may serve all columns.
        let step = u32::from(self.stride > 0);
        let params = Params::default()
            .u32s(&[threads, u(self.rows), u(self.columns), u(padded), matrix.base, u(self.stride), step])
            .u32s(&[u(self.first.0), u(self.second.0), u(place), u(out_stride)])
            .f32s(&[self.first.1, self.second.1]);
        let kernel = fold_kernel(Format::of::<T>(false));
        gpu.dispatch(&kernel, params, &[&matrix, out], u64::from(threads).div_ceil(64))
    }
}

/// Where the parts of a layer begin in the network's memory, in fours.
#[derive(Clone, Copy, Default)]
struct Place {
    units4: usize,
    weight: usize,
    bias: usize,
    vectors: usize,
    activation: u32,
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
    if let Some(layer) = inputs.hidden.iter().find(|layer| layer.bias.len() > MAX_UNITS) {
        let (needed, limit) = (layer.bias.len() as u64, MAX_UNITS as u64);
        return Err(Error::Limit { operation: NAME, argument: "hidden units", needed, limit });
    }
    let (histories, targets) = (batch.as_ref().histories(), batch.as_ref().targets());
    let (behaviours, candidates) = (histories.total(), targets.total());
    if candidates == 0 {
        return Ok(());
    }
    let d = op.width;
    let d4 = d.div_ceil(4);
    let history = Region::of(inputs.history);
    let out = gpu.output(NAME, "out", &out, candidates * d, &[history.buffer])?;
    let window = rows_per_binding::<T>(gpu, d);
    let h4 = inputs.hidden[0].bias.len().div_ceil(4);
    // All that can be refused is, before the first pass.
    fit(NAME, "history", behaviours * h4)?;
    let target_rows = gpu.scratch(NAME, (candidates * (h4 + d4) * 4) as u64)?;
    let behaviour_rows = gpu.scratch(NAME, (behaviours * h4 * 4) as u64)?;
    let (network, places, output_weight) = network(gpu, d, inputs)?;
    first_layer(gpu, d, inputs, (candidates, behaviours), &target_rows, &behaviour_rows)?;

    let columns = columns_of(d.min(MAX_COLUMNS));
    // A pair costs far more than loading a behaviour.
    let tile_rows = best_tile_rows(batch.as_ref(), 1, tiles_beside(columns), 0);
    let step = step_of(tile_rows);
    let cut = Cut { rows_per_target: 1, tile_rows, step, wanted: PIECES, longest: window };
    let plan = batch.plan(gpu, NAME, &cut)?;
    let (weighting, _) = code(match op.pooling {
        DinPooling::Softmax => Weighting::Softmax,
        DinPooling::Sum => Weighting::Identity,
    });
    let u = |value: usize| value as u32;
    let no_lse = gpu.no_output(NAME)?;
    for first_column in (0..d).step_by(MAX_COLUMNS) {
        let value_columns = MAX_COLUMNS.min(d - first_column);
        let sums = plan.plan.slots * tile_rows;
        let first_stats = fit(NAME, "partial results", sums * value_columns)?;
        let partial = gpu.scratch(NAME, (sums * (value_columns + 2)) as u64)?;
        for (pieces, span) in plan.plan.windows(window) {
            let values = gpu.bind(NAME, "history", &history.rows(span.start, span.len(), d))?;
            let [one, two, three] = places;
            let params = Params::default()
                .u32s(&[u(pieces.start), 1, u(d), u(d), u(first_column), u(value_columns), u(span.start)])
                .u32s(&[values.base, out.binding.base, 0, first_stats])
                .f32s(&[1.0])
                .u32s(&[u(tile_rows), u(columns), weighting, 0, u(d), u(inputs.hidden.len())])
                .u32s(&[u(one.units4), u(two.units4), u(three.units4)])
                .u32s(&[one.activation, two.activation, three.activation])
                .u32s(&[u(one.weight), u(two.weight), u(three.weight), u(two.bias), u(three.bias)])
                .u32s(&[u(one.vectors), u(two.vectors), u(three.vectors)])
                .u32s(&[u(output_weight), u(output_weight + inputs.output_weight.len().div_ceil(4))]);
            let bindings = [
                &plan.pieces,
                &network,
                &target_rows,
                &behaviour_rows,
                &values,
                &out.binding,
                &no_lse,
                &partial,
            ];
            let kernel = attend_kernel(if tile_rows == 4 { 1 } else { 2 }, vectors::<T>(&values, d));
            gpu.dispatch(&kernel, params, &bindings, pieces.len() as u64)?;
        }
        let params = Params::default()
            .u32s(&[1, 1, u(d), u(first_column), u(value_columns), out.binding.base, 0, first_stats])
            .u32s(&[u(tile_rows), weighting, 0]);
        let bindings = [&plan.merges, &partial, &out.binding, &no_lse];
        gpu.dispatch(&merge_kernel(), params, &bindings, (plan.merge_count * tile_rows) as u64)?;
    }
    gpu.finish(out)
}

/// The network's matrices and vectors in f32, where each layer's are, and where the output's are.
fn network<T: Element>(
    gpu: &Wgpu,
    d: usize,
    inputs: &DinInputs<'_, WgpuMemory, T>,
) -> Result<(Binding, [Place; Din::MAX_HIDDEN], usize)> {
    let mut places = [Place::default(); Din::MAX_HIDDEN];
    let mut end = 0;
    let mut inputs4 = d.div_ceil(4);
    let mut take = |fours: usize| {
        end += fours;
        end - fours
    };
    for (layer, place) in inputs.hidden.iter().zip(&mut places) {
        place.units4 = layer.bias.len().div_ceil(4);
        place.weight = take(4 * place.units4 * inputs4);
        place.bias = take(place.units4);
        place.vectors = take(3 * place.units4);
        place.activation = match layer.activation {
            Activation::Relu => 0,
            Activation::Sigmoid => 1,
            Activation::Prelu { .. } => 2,
            Activation::Dice { .. } => 3,
        };
        inputs4 = place.units4;
    }
    let output_weight = take(inputs4);
    let output_bias = take(1);
    let memory = gpu.scratch(NAME, (take(0) * 4) as u64)?;
    let mut fan_in = d;
    for (index, (layer, place)) in inputs.hidden.iter().zip(&places).enumerate() {
        let units = layer.bias.len();
        // Of the first layer only the block of q ⊙ s; the other three are in `first_layer`.
        let weight = match index {
            0 => Fold { stride: 4 * d, first: (3 * d, 1.0), ..Fold::plain(units, d) },
            _ => Fold::plain(units, fan_in),
        };
        let at = |fours: usize, width: usize| (&memory, 4 * fours, width.next_multiple_of(4));
        weight.write(gpu, layer.weight, at(place.weight, weight.columns), 4 * place.units4)?;
        let vector = |values: View<'_, WgpuMemory, f32>, place: usize| {
            let stride = if values.len() == 1 { 0 } else { units };
            Fold { stride, ..Fold::plain(1, units) }.write(gpu, values, at(place, units), 1)
        };
        vector(layer.bias, place.bias)?;
        let [gain, shift, alpha] = [0, 1, 2].map(|index| place.vectors + index * place.units4);
        match layer.activation {
            Activation::Relu | Activation::Sigmoid => {}
            Activation::Prelu { alpha: values } => vector(values, alpha)?,
            Activation::Dice { gain: gains, shift: shifts, alpha: alphas } => {
                vector(gains, gain)?;
                vector(shifts, shift)?;
                vector(alphas, alpha)?;
            }
        }
        fan_in = units;
    }
    Fold::plain(1, fan_in).write(gpu, inputs.output_weight, (&memory, 4 * output_weight, 0), 1)?;
    Fold::plain(1, 1).write(gpu, inputs.output_bias, (&memory, 4 * output_bias, 0), 1)?;
    Ok((memory, places, output_weight))
}

/// The parts of the first layer that depend on a candidate or a behaviour alone, and the candidates in f32.
fn first_layer<T: Element>(
    gpu: &Wgpu,
    d: usize,
    inputs: &DinInputs<'_, WgpuMemory, T>,
    (candidates, behaviours): (usize, usize),
    target_rows: &Binding,
    behaviour_rows: &Binding,
) -> Result<()> {
    let layer = &inputs.hidden[0];
    let (units, units4, d4) = (layer.bias.len(), layer.bias.len().div_ceil(4), d.div_ceil(4));
    let size = 4 * units4 * d4;
    let folded = gpu.scratch(NAME, ((2 * size + units4) * 4) as u64)?;
    let wide = |first, second| Fold { stride: 4 * d, first, second, ..Fold::plain(units, d) };
    wide((0, 1.0), (2 * d, 1.0)).write(gpu, layer.weight, (&folded, 0, 4 * d4), 4 * units4)?;
    wide((d, 1.0), (2 * d, -1.0)).write(gpu, layer.weight, (&folded, 4 * size, 4 * d4), 4 * units4)?;
    let bias = Fold { stride: if units == 1 { 0 } else { units }, ..Fold::plain(1, units) };
    bias.write(gpu, layer.bias, (&folded, 8 * size, 0), 1)?;
    let place = (target_rows, 4 * units4, 4 * (units4 + d4));
    Fold::plain(candidates, d).write(gpu, inputs.targets, place, candidates)?;
    let u = |value: usize| value as u32;
    let project = |rows: Region<'_, T>, count: usize, weight: usize, has_bias, out: &Binding, stride| {
        let window = rows_per_binding::<T>(gpu, d);
        for first in (0..count).step_by(window) {
            let part = window.min(count - first);
            let rows = gpu.bind(NAME, "history", &rows.rows(first, part, d))?;
            let threads = fit(NAME, "history", part * units4)?;
            let params = Params::default()
                .u32s(&[threads, u(d), u(units4), rows.base, u(weight), u(2 * size), has_bias])
                .u32s(&[u(first * stride), u(stride)]);
            let kernel = project_kernel(vectors::<T>(&rows, d));
            gpu.dispatch(&kernel, params, &[&rows, &folded, out], u64::from(threads).div_ceil(64))?;
        }
        Ok(())
    };
    project(Region::of(inputs.targets), candidates, 0, 1, target_rows, units4 + d4)?;
    project(Region::of(inputs.history), behaviours, size, 0, behaviour_rows, units4)
}
