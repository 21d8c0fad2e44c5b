//! Cases of the gradients of DIN's local activation unit.

use longseq::reference::{DinGradientReference, DinLayerGradientReference};
use longseq::*;

use super::bounds::Magnitudes;
use super::{DinCase, Kind, Network};
use crate::by_dtype;
use crate::case::{Calls, Case, Failure, GradientBits, Rules};
use crate::compare::{Bound, NMSE, compare};
use crate::data::{self, Data};
use crate::guard::Guarded;
use crate::named::Work;

/// A backward pass of DIN.
///
/// ReLU and PReLU have a slope that jumps at 0. For them, all numbers are rounded to multiples of powers of two, so that every
/// layer's numbers are exact in `f32` and their signs are those of the reference; 0 itself occurs.
#[derive(Debug, Clone)]
pub struct DinBackwardCase {
    /// The forward pass.
    pub forward: DinCase,
    /// Which gradients are asked for: a bit for each, in the order of `names`. What the network does not have is not asked for.
    pub asked: u32,
    /// Gradients of rows and weights are stored as they are, not as `f32`.
    pub narrow: bool,
    /// A NaN in the gradient of this candidate's output.
    pub nan: Option<usize>,
}

impl Default for DinBackwardCase {
    fn default() -> Self {
        Self { forward: DinCase::default(), asked: u32::MAX, narrow: false, nan: None }
    }
}

/// Inputs and the gradient that comes in.
pub(super) struct Tensors<T> {
    pub(super) targets: Vec<T>,
    pub(super) history: Vec<T>,
    pub(super) network: Network<T>,
    pub(super) grad_out: Vec<T>,
}

/// What has a gradient besides the layers.
const OUTSIDE: [&str; 4] = ["targets", "history", "output_weight", "output_bias"];

/// What has a gradient in a layer.
const INSIDE: [&str; 5] = ["weight", "bias", "alpha", "gain", "shift"];

/// The names of all gradients: targets, history, output weight and bias, then weight, bias, alpha, gain and shift of each layer.
pub(super) fn names(layers: usize) -> Vec<String> {
    let inside = |i| INSIDE.iter().map(move |name| format!("hidden[{i}].{name}"));
    OUTSIDE.iter().map(|&name| name.to_owned()).chain((0..layers).flat_map(inside)).collect()
}

/// Whether this gradient always has the type `f32`: not those of rows and weights.
fn is_f32(index: usize) -> bool {
    index == 3 || index >= OUTSIDE.len() && !(index - OUTSIDE.len()).is_multiple_of(INSIDE.len())
}

/// Whether this gradient adds products with the outputs of a hidden layer: those of a further hidden layer's weights.
fn meets_outputs(index: usize) -> bool {
    index > OUTSIDE.len() && (index - OUTSIDE.len()).is_multiple_of(INSIDE.len())
}

/// Rounds to multiples of `step`.
fn rounded<T: Element>(numbers: &mut [T], step: f32, largest: f32) {
    for number in numbers {
        let multiple = (number.to_f32() / step).round() * step;
        // Not `clamp` on NaN's account: it keeps NaN, as wanted.
        *number = T::from_f32(multiple.clamp(-largest, largest));
    }
}

impl DinBackwardCase {
    /// How rows are stored.
    pub fn storage(&self) -> &'static str {
        self.forward.storage()
    }

    /// The least that the call must do.
    pub fn work(&self) -> Work {
        let (op, batch) = (self.forward.op(), self.forward.batch());
        let bytes = by_dtype!(self.forward.dtype, T => op.backward_bytes::<T>(&batch));
        Work { flops: op.backward_flops(&batch, &self.forward.hidden), bytes }
    }

    fn tensors<T: Element>(&self) -> Tensors<T> {
        let (mut targets, mut history, mut network) = self.forward.inputs::<T>();
        if matches!(self.forward.activation, Kind::Relu | Kind::Prelu | Kind::PreluShared) {
            rounded(&mut targets, 0.25, 2.0);
            rounded(&mut history, 0.25, 2.0);
            network.weights.iter_mut().for_each(|weight| rounded(weight, 0.125, 2.0));
            network.biases.iter_mut().for_each(|bias| rounded(bias, 0.125, 4.0));
            network.parameters.iter_mut().flatten().for_each(|vector| rounded(vector, 0.25, 4.0));
        }
        let mut rng = data::rng(self.forward.seed ^ 0x9e37);
        let mut grad_out: Vec<T> =
            data::rows(&mut rng, Data::Normal, self.forward.batch().targets().rows(), self.forward.width);
        if let Some(candidate) = self.nan {
            grad_out[candidate * self.forward.width] = T::from_f32(f32::NAN);
        }
        Tensors { targets, history, network, grad_out }
    }

    fn run_as<B: Backend, T: Element, G: GradientOf<T>>(
        &self,
        backend: &B,
        calls: &mut dyn Calls,
    ) -> Result<GradientBits, Failure> {
        let (op, batch) = (self.forward.op(), self.forward.batch());
        run::<B, T, G>(backend, (&op, &batch), &self.tensors(), self.asked, calls)
    }

    fn compare_as<T: Element, G: Element>(&self, got: &GradientBits, rules: Rules) -> Result<(), Failure> {
        let (op, batch) = (self.forward.op(), self.forward.batch());
        let tensors = self.tensors::<T>();
        let exact = exact(&op, &batch, &tensors)?;
        let bounds = Magnitudes::new(&op, &batch, &tensors, rules).bounds();
        let softmax = self.forward.pooling == DinPooling::Softmax;
        // Differences of nearly equal numbers have no small relative error.
        let long = batch.requests().any(|(history, targets)| history.len() >= 4 && !targets.is_empty());
        let forward = &self.forward;
        let plain = forward.data == Data::Normal
            && forward.history_data.is_none()
            && forward.puts.is_empty()
            && forward.output_bias.is_none()
            && self.nan.is_none();
        let all = names(forward.hidden.len()).into_iter().zip(got).zip(exact.iter().zip(bounds));
        for (i, ((name, got), (exact, bound))) in all.enumerate() {
            if got.is_empty() {
                continue;
            }
            let used = match i {
                0 => batch.targets().total() * op.width,
                1 => batch.histories().total() * op.width,
                _ => exact.len(),
            };
            // A single number, the slope of a shared PReLU, is a sum whose terms may cancel, and then its relative error is larger
            // than that of the mean of many; that it is not forgotten shows all the same.
            let most_nmse = if used > 1 { NMSE } else { 0.01 };
            // With softmax the gradients of scores add up to 0, and so, nearly, do those of numbers that are added to them, and of
            // the output's weights and, of layers of few units, of weights that they meet times numbers that sigmoids make nearly equal.
            let cancels = i == 2 || is_f32(i) || meets_outputs(i) && forward.activation == Kind::Sigmoid;
            let bound =
                Bound::uniform(bound, plain && long && !(softmax && cancels)).with_most_nmse(most_nmse);
            if is_f32(i) {
                let got: Vec<f32> = bytemuck::pod_collect_to_vec(got);
                compare(&name, &got, &exact[..used], &bound, rules)?;
            } else {
                let got: Vec<G> = bytemuck::pod_collect_to_vec(got);
                compare(&name, &got, &exact[..used], &bound, rules)?;
            }
        }
        Ok(())
    }
}

/// Runs the backward pass of some inputs into guarded outputs.
pub(super) fn run<B: Backend, T: Element, G: GradientOf<T>>(
    backend: &B,
    (op, batch): (&Din, &Batch),
    tensors: &Tensors<T>,
    asked: u32,
    calls: &mut dyn Calls,
) -> Result<GradientBits, Failure> {
    let device_batch = backend.batch(batch.histories(), batch.targets())?;
    let (targets, history) = (backend.upload(&tensors.targets)?, backend.upload(&tensors.history)?);
    let grad_out = backend.upload(&tensors.grad_out)?;
    let lengths = lengths(&tensors.network);
    let used = |i: usize| match i {
        0 => (batch.targets().total() * op.width, tensors.targets.len()),
        1 => (batch.histories().total() * op.width, tensors.history.len()),
        _ => (lengths[i - 2], lengths[i - 2]),
    };
    let is_asked = |i: usize| asked >> i & 1 == 1 && used(i).1 > 0;
    let (mut wide, mut own) = (Vec::new(), Vec::new());
    for i in 0..lengths.len() + 2 {
        let (used, all) = if is_asked(i) { used(i) } else { (0, 0) };
        let (f32s, numbers) = if is_f32(i) { ((used, all), (0, 0)) } else { ((0, 0), (used, all)) };
        wide.push(Guarded::<B, f32>::new(backend, f32s.0, f32s.1 - f32s.0)?);
        own.push(Guarded::<B, G>::new(backend, numbers.0, numbers.1 - numbers.0)?);
    }
    tensors.network.with_uploaded(backend, |hidden, output_weight, output_bias| {
        let (targets, history) = (backend.view(&targets), backend.view(&history));
        let inputs = DinInputs::new(targets, history, hidden, output_weight, output_bias);
        calls.make("din_backward", &mut || {
            let mut f32s = Vec::new();
            for (i, guarded) in wide.iter_mut().enumerate() {
                f32s.push(if is_asked(i) && is_f32(i) { Some(guarded.view_mut(backend)?) } else { None });
            }
            let mut numbers = Vec::new();
            for (i, guarded) in own.iter_mut().enumerate() {
                numbers.push(if is_asked(i) && !is_f32(i) { Some(guarded.view_mut(backend)?) } else { None });
            }
            let mut layers: Vec<_> = hidden.iter().map(|_| DinLayerGradients::new()).collect();
            for (i, layer) in layers.iter_mut().enumerate() {
                let first = OUTSIDE.len() + i * INSIDE.len();
                layer.weight = numbers[first].take();
                layer.bias = f32s[first + 1].take();
                layer.alpha = f32s[first + 2].take();
                layer.gain = f32s[first + 3].take();
                layer.shift = f32s[first + 4].take();
            }
            let mut grads = DinGradients::new();
            grads.targets = numbers[0].take();
            grads.history = numbers[1].take();
            grads.output_weight = numbers[2].take();
            grads.output_bias = f32s[3].take();
            // None at all, where none of a layer is asked for.
            let any = asked >> OUTSIDE.len() & ((1 << (INSIDE.len() * hidden.len())) - 1) != 0;
            let grads = if any { grads.with_hidden(&mut layers) } else { grads };
            Ok(backend.din_backward_into(op, &device_batch, inputs, backend.view(&grad_out), grads)?)
        })
    })?;
    let mut bits = Vec::new();
    for (i, ((wide, own), name)) in
        wide.into_iter().zip(own).zip(names(tensors.network.parameters.len())).enumerate()
    {
        let (wide, own) = (wide.finish(backend, &name)?, own.finish(backend, &name)?);
        let (wide, own): (&[u8], &[u8]) = (bytemuck::cast_slice(&wide), bytemuck::cast_slice(&own));
        bits.push(if is_f32(i) { wide.to_vec() } else { own.to_vec() });
    }
    Ok(bits)
}

/// The numbers of each gradient of the network, from the output weight on.
fn lengths<T: Element>(network: &Network<T>) -> Vec<usize> {
    let layers = network.parameters.len();
    let mut lengths = vec![network.weights[layers].len(), network.biases[layers].len()];
    for (i, [gain, shift, alpha]) in network.parameters.iter().enumerate() {
        let [gain, shift, alpha] = match network.kind {
            Kind::Relu | Kind::Sigmoid => [0; 3],
            Kind::Prelu | Kind::PreluShared => [0, 0, alpha.len()],
            Kind::Dice => [gain.len(), shift.len(), alpha.len()],
        };
        lengths.extend([network.weights[i].len(), network.biases[i].len(), alpha, gain, shift]);
    }
    lengths
}

/// The reference's gradients, in the order of [`names`].
pub(super) fn exact<T: Element>(
    op: &Din,
    batch: &Batch,
    tensors: &Tensors<T>,
) -> Result<Vec<Vec<f64>>, Failure> {
    let grad_out: Vec<f64> = tensors.grad_out.iter().map(|x| x.to_f32().into()).collect();
    let (targets, history) = (Host::view(&tensors.targets), Host::view(&tensors.history));
    let gradient = tensors.network.with_uploaded(&Cpu::new(), |hidden, output_weight, output_bias| {
        let inputs = DinInputs::new(targets, history, hidden, output_weight, output_bias);
        Ok(reference::din_backward(op, batch, &inputs, &grad_out)?)
    })?;
    let DinGradientReference { targets, history, hidden, output_weight, output_bias, .. } = gradient;
    let mut all = vec![targets, history, output_weight, output_bias];
    for DinLayerGradientReference { weight, bias, activation, .. } in hidden {
        all.extend([weight, bias]);
        all.extend(match activation {
            Activation::Prelu { alpha } => [alpha, vec![], vec![]],
            Activation::Dice { gain, shift, alpha } => [alpha, gain, shift],
            _ => [vec![], vec![], vec![]],
        });
    }
    Ok(all)
}

impl Case for DinBackwardCase {
    type Output = GradientBits;

    fn run_with<B: Backend>(&self, backend: &B, calls: &mut dyn Calls) -> Result<GradientBits, Failure> {
        by_dtype!(self.forward.dtype, T => if self.narrow {
            self.run_as::<B, T, T>(backend, calls)
        } else {
            self.run_as::<B, T, f32>(backend, calls)
        })
    }

    fn compare(&self, output: &GradientBits, rules: Rules) -> Result<(), Failure> {
        by_dtype!(self.forward.dtype, T => if self.narrow {
            self.compare_as::<T, T>(output, rules)
        } else {
            self.compare_as::<T, f32>(output, rules)
        })
    }
}
