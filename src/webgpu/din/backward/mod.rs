//! The gradients of DIN, and the statistics of its layers.
//!
//! Pairs are computed in parts of bounded memory, one after the other (src/gpu/din.rs). Of each part, one dispatch computes the
//! network forwards and backwards, 16 behaviours and a candidate at a time, and leaves the inputs of the layers and the gradients
//! before their activations; others add these up over pairs into the gradients of weights, over candidates into those of behaviours,
//! and over behaviours into those of candidates. With softmax, a first pass over all parts finds the states of the candidates.
//! Parts add to what earlier ones left, in their order: the same bits on every run.

mod checks;
mod job;
mod network;
mod pairs;
mod rows;
mod statistics;
mod sums;

pub(super) use statistics::statistics;

use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::gpu::{CHAIN, DinLayout, DinPart, DinWanted, check_units, fit};
use crate::memory::{View, ViewMut};
use crate::ops::{Activation, DIN_GRADIENTS as GRADIENTS, Din, DinGradients, DinInputs, DinPooling};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::binding::Binding;
use crate::webgpu::din::backward::checks::{check_inputs, check_loops, check_outputs};
use crate::webgpu::din::backward::job::{Job, limits_of};
use crate::webgpu::din::backward::pairs::Mode;
use crate::webgpu::din::backward::sums::Write;
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::output::Output;
use crate::webgpu::shader::Kernel;
use crate::webgpu::state::Wgpu;

const NAME: &str = "din_backward";

pub(super) fn variants() -> Vec<Kernel> {
    let all = [network::variants(), pairs::variants(), rows::variants(), sums::variants()];
    [&all.concat()[..], &statistics::variants()].concat()
}

pub(super) fn backward<T: Element, G: GradientOf<T>>(
    gpu: &Wgpu,
    op: &Din,
    batch: &WgpuBatch,
    inputs: &DinInputs<'_, WgpuMemory, T>,
    grad_out: View<'_, WgpuMemory, T>,
    mut grads: DinGradients<'_, WgpuMemory, G>,
) -> Result<()> {
    op.check_backward(batch.as_ref(), inputs, grad_out.len(), &grads)?;
    let units = check_units(NAME, inputs)?;
    check_loops(NAME, op.width, &units)?;
    batch.check_owner(gpu, NAME)?;
    check_inputs(gpu, NAME, inputs)?;
    let grad_out = Region::of(grad_out);
    gpu.check_device(NAME, "grad_out", &grad_out)?;
    check_outputs(gpu, NAME, &grads)?;
    let Some(wanted) = DinWanted::new(&grads, units.len()) else { return Ok(()) };
    let layout = DinLayout::new(op.width, &units, 4);
    let lists = batch.din_parts(gpu, NAME, &limits_of(&layout))?;
    let candidates = batch.as_ref().targets().total() * op.width;
    let targets = match &grads.targets {
        Some(view) => {
            fit(NAME, "grads.targets", candidates)?;
            Some(gpu.output(NAME, "grads.targets", view, candidates, &[], &[])?)
        }
        None => None,
    };
    let network = network::lay_out(gpu, NAME, &layout, inputs)?;
    let job = Job::new(gpu, NAME, (op, &layout, &lists), (inputs, Some(grad_out)), (wanted, network))?;
    if let Some(targets) = &targets {
        gpu.clear(NAME, &targets.binding, candidates);
    }
    gpu.clear_rows(NAME, "grads.history", &mut grads.history, &batch.as_ref().histories().gaps(), op.width)?;
    if op.pooling == DinPooling::Softmax {
        for part in lists.parts.parts.iter().filter(|part| part.tiles > 0) {
            job.candidates(part)?;
            job.pairs(part, Mode::Scores)?;
            job.states(part)?;
        }
    }
    job.gradients(targets.as_ref().map(|targets| &targets.binding), &mut grads.history)?;
    targets.map_or(Ok(()), |targets| gpu.finish(targets))?;
    job.write_network(grads)
}

impl<T: Element> Job<'_, T> {
    /// Computes the gradients of all parts.
    fn gradients<G: Element>(
        &self,
        targets: Option<&Binding>,
        history: &mut Option<ViewMut<'_, WgpuMemory, G>>,
    ) -> Result<()> {
        let (gpu, width) = (self.gpu, self.layout.width);
        let mut rows: Option<Output> = None;
        for (index, part) in self.plan.parts.iter().enumerate() {
            if part.tiles > 0 {
                self.part(part, targets)?;
            }
            if (index + 1).is_multiple_of(CHAIN) {
                self.take_recent()?;
            }
            let Some(view) = history.as_mut() else { continue };
            let out = match rows.take().filter(|_| !part.first) {
                Some(out) => out,
                None => {
                    let view = view.reborrow().slice(part.rows.start * width, part.rows.len() * width)?;
                    gpu.output(NAME, "grads.history", &view, view.len(), &[], &[])?
                }
            };
            self.history(part, &out.binding)?;
            if part.last {
                gpu.finish(out)?;
            } else {
                rows = Some(out);
            }
        }
        self.take_recent()
    }

    /// Computes the pairs of a part, and adds to the gradients of the network and of the candidates.
    fn part(&self, part: &DinPart, targets: Option<&Binding>) -> Result<()> {
        self.candidates(part)?;
        self.pairs(part, Mode::Gradients(self.wanted.deepest))?;
        if self.wanted.vectors {
            self.vectors(part)?;
        }
        for layer in (0..self.layout.units.len()).filter(|&layer| self.wanted.sums(layer)) {
            self.weight(part, layer)?;
        }
        targets.map_or(Ok(()), |out| self.targets(part, out))
    }

    /// Writes the gradients of the network.
    fn write_network<G: Element>(&self, grads: DinGradients<'_, WgpuMemory, G>) -> Result<()> {
        let layout = self.layout;
        for (i, (grads, layer)) in grads.hidden.iter().zip(self.inputs.hidden).enumerate() {
            let (units, units4) = (layout.units[i], layout.units4[i]);
            if let Some(out) = &grads.weight {
                let stride = 4 * layout.inputs4(i);
                let how = match i {
                    0 => Write::First { width: layout.width, stride, matrix: 4 * units4 * stride },
                    _ => Write::Rows { width: layout.units[i - 1], stride },
                };
                self.write(GRADIENTS[i][0], out, layout.first_weight(i), how)?;
            }
            let row = Write::Rows { width: units, stride: 4 * units4 };
            let shared = matches!(&layer.activation, Activation::Prelu { alpha } if alpha.len() == 1);
            let alpha = if shared { Write::One(units) } else { row };
            let vectors =
                [(&grads.bias, row), (&grads.alpha, alpha), (&grads.gain, row), (&grads.shift, row)];
            for (vector, (out, how)) in vectors.into_iter().enumerate() {
                if let Some(out) = out {
                    let first = 4 * (layout.sums[i] + vector * units4);
                    self.write(GRADIENTS[i][vector + 1], out, first, how)?;
                }
            }
        }
        let (units, units4) = (layout.units[layout.units.len() - 1], layout.units4[layout.units.len() - 1]);
        if let Some(out) = &grads.output_weight {
            let how = Write::Rows { width: units, stride: 4 * units4 };
            self.write("grads.output_weight", out, 4 * layout.output_sums, how)?;
        }
        if let Some(out) = &grads.output_bias {
            let how = Write::Rows { width: 1, stride: 4 };
            self.write("grads.output_bias", out, 4 * (layout.output_sums + units4), how)?;
        }
        Ok(())
    }
}
