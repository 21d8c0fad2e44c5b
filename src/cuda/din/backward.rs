//! DIN: gradients, and the statistics of layers.
//!
//! Pairs are computed in parts of bounded memory, one after the other: see `kernels/din/backward.cu`.

use crate::cuda::batch::CudaBatch;
use crate::cuda::din::job::{Job, Mode, Write};
use crate::cuda::din::layout::{Places, TILE};
use crate::cuda::din::outputs::{Out, Outs};
use crate::cuda::handle::Cuda;
use crate::cuda::memory::CudaMemory;
use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::gpu::din_moments::{self, Moments};
use crate::gpu::{CHAIN, DinLayout, DinPart, DinWanted, check_units};
use crate::memory::View;
use crate::ops::{Activation, Din, DinGradients, DinInputs, DinPooling, DinStatistics};

const NAME: &str = "din_backward";

pub(super) fn backward<T: Element, G: GradientOf<T>>(
    gpu: &Cuda,
    op: &Din,
    batch: &CudaBatch,
    inputs: &DinInputs<'_, CudaMemory, T>,
    grad_out: View<'_, CudaMemory, T>,
    grads: &DinGradients<'_, CudaMemory, G>,
) -> Result<()> {
    op.check_backward(batch.as_ref(), inputs, grad_out.len(), grads)?;
    let units = check_units(NAME, inputs)?;
    batch.check_stream(gpu, NAME)?;
    let (outs, grad_out) = (Outs::new::<T, G>(gpu, NAME, grads)?, gpu.region(NAME, &grad_out)?);
    let Some(wanted) = DinWanted::new(grads, units.len()) else { return Ok(()) };
    let layout = DinLayout::new(op.width, &units, TILE);
    let places = Places::new::<T>(&layout);
    let lists = batch.din_parts(gpu, NAME, &places.limits(&layout))?;
    let plan = &lists.parts;
    let mut job = Job::new(gpu, NAME, (op, &layout, &places, &lists), (inputs, Some(grad_out)), wanted)?;
    let candidates = batch.as_ref().targets().total();
    let history = gpu.asked(NAME, grads.history.as_ref())?;
    job.clear_rows(&batch.as_ref().histories().gaps(), history, op.width);
    let totals = if wanted.targets { job.target_totals(candidates)? } else { 0 };
    if op.pooling == DinPooling::Softmax {
        for part in plan.parts.iter().filter(|part| part.tiles > 0) {
            let params = job.part(part)?;
            job.pairs(part, params, Mode::Scores)?;
            job.states(part, params)?;
        }
    }
    for (index, part) in plan.parts.iter().enumerate() {
        let params = job.part(part)?;
        if part.tiles > 0 {
            job.pairs(part, params, Mode::Gradients)?;
            job.sums(part, params)?;
        }
        if (index + 1).is_multiple_of(CHAIN) {
            job.take_recent()?;
        }
        if let Some(out) = outs.history {
            job.history(part, params, out)?;
        }
    }
    job.take_recent()?;
    let used = |out: Out| Out { length: candidates * op.width, ..out };
    let row = Write::Rows { width: op.width, stride: op.width };
    job.write(outs.targets.map(used), totals, row)?;
    write_network(&job, &layout, inputs, &outs)?;
    job.finish()
}

/// Writes the gradients of the network.
fn write_network<T: Element>(
    job: &Job<'_, T>,
    layout: &DinLayout,
    inputs: &DinInputs<'_, CudaMemory, T>,
    outs: &Outs,
) -> Result<()> {
    let at = |number: usize| job.totals + (number * size_of::<f32>()) as u64;
    for (i, layer) in inputs.hidden.iter().enumerate() {
        let (units, units4, stride) = (layout.units[i], layout.units4[i], 4 * layout.inputs4(i));
        let how = match i {
            0 => Write::First { width: layout.width, stride, matrix: 4 * units4 * stride },
            _ => Write::Rows { width: layout.units[i - 1], stride },
        };
        job.write(outs.weights[i], at(layout.first_weight(i)), how)?;
        let shared = matches!(&layer.activation, Activation::Prelu { alpha } if alpha.len() == 1);
        for (vector, out) in outs.vectors[i].into_iter().enumerate() {
            let row = Write::Rows { width: units, stride: 4 * units4 };
            let how = if shared && vector == 1 { Write::One(units) } else { row };
            job.write(out, at(4 * (layout.sums[i] + vector * units4)), how)?;
        }
    }
    let last = layout.units.len() - 1;
    let row = Write::Rows { width: layout.units[last], stride: 4 * layout.units4[last] };
    job.write(outs.output_weight, at(4 * layout.output_sums), row)?;
    let one = Write::Rows { width: 1, stride: 1 };
    job.write(outs.output_bias, at(4 * (layout.output_sums + layout.units4[last])), one)
}

pub(super) fn statistics<T: Element>(
    gpu: &Cuda,
    op: &Din,
    batch: &CudaBatch,
    inputs: &DinInputs<'_, CudaMemory, T>,
    layer: usize,
    out: &DinStatistics<'_, CudaMemory>,
) -> Result<()> {
    const NAME: &str = "din_statistics";
    op.check_statistics(batch.as_ref(), inputs, layer, out)?;
    let units = check_units(NAME, inputs)?;
    batch.check_stream(gpu, NAME)?;
    let mean = Out::of_vector(gpu, NAME, &out.mean)?;
    let squares = Out::of_vector(gpu, NAME, &out.centred_squares)?;
    let mut layout = DinLayout::new(op.width, &units, TILE);
    let units4 = layout.units4[layer];
    layout.tile_sums = 2 * units4 + 1;
    let places = Places::new::<T>(&layout);
    let lists = batch.din_parts(gpu, NAME, &places.limits(&layout))?;
    let plan = &lists.parts;
    let mut job =
        Job::new(gpu, NAME, (op, &layout, &places, &lists), (inputs, None), DinWanted::none(units.len()))?;
    let parts: Vec<&DinPart> = plan.parts.iter().filter(|part| part.tiles > 0).collect();
    let kept = job.kept_moments(din_moments::levels(parts.len()), layer)?;
    let (mut parts, mut pairs) = (parts.into_iter(), 0.0);
    for merge in din_moments::merges(parts.len()) {
        match merge {
            Moments::Part { is_first, to } => {
                let Some(part) = parts.next() else { break };
                let params = job.part(part)?;
                job.pairs(part, params, Mode::Statistics(layer))?;
                pairs = if is_first { 0.0 } else { pairs };
                job.moments(part, layer, params, (job.place(kept, to, layer), pairs))?;
                pairs += plan.pairs(part);
            }
            Moments::Level { level, rows, to } => job.merge_moments(kept, (level, rows, to), layer)?,
        }
    }
    let row = Write::Rows { width: units[layer], stride: 4 * units4 };
    job.write(Some(mean), job.totals, row)?;
    job.write(Some(squares), job.totals + (16 * units4) as u64, row)?;
    job.finish()
}
