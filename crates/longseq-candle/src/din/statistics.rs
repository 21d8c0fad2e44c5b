//! Statistics of a hidden layer over the pairs of a batch, with their gradients.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::ops::sigmoid;
use longseq::{Activation, Din, DinStatistics};

use super::{DinTensors, OUTPUT, Unit};
use crate::error::Wrapped;
use crate::handle::{Batch, Longseq};
use crate::loan::Loan;
use crate::place::Place;
use crate::read::read;
use crate::record::{Backward, Pass, record};
use crate::tensors::{Float, by_float};

/// How many pairs the backward pass holds at a time. candle adds up in one chain of `f32`: sums of more would lose digits.
const PAIRS: usize = 1024;

impl<B: Place> Longseq<B> {
    /// Mean, and sum of squared distances from it, of the numbers of hidden layer `layer` before its activation, over all pairs of a
    /// candidate and a behaviour: `[h]` each, of `f32`. Dice in training normalises by them (with [`longseq::Batch::pairs`] as the number of
    /// pairs).
    ///
    /// They are in the graph: candidates, behaviours, the layer's weight and bias, and all that the layers before it have, get gradients. longseq has
    /// no call for these, so the backward pass computes the layers again with candle's operations, a few thousand pairs at a time; detached
    /// statistics cost nothing there.
    ///
    /// # Errors
    /// Those of [`Din::check_statistics`]; a tensor that is not on the CPU, or of another type.
    pub fn din_statistics(
        &self,
        op: &Din,
        batch: &Batch<B>,
        inputs: DinTensors<'_>,
        layer: usize,
    ) -> Result<(Tensor, Tensor)> {
        let (unit, mut tensors) = Unit::new(self, op, batch, &inputs)?;
        // What the statistics do not depend on has no gradient.
        let last = unit.layers.get(layer).map_or(0, |layer| layer.bias);
        for (index, tensor) in tensors.iter_mut().enumerate() {
            if index > last || OUTPUT.contains(&index) {
                *tensor = tensor.detach();
            }
        }
        let backend = self.fork()?;
        let dtype = tensors[0].dtype();
        let values = by_float!(dtype, T => unit.statistics::<T>(&backend, &tensors, layer))?;
        let units = values.len() / 2;
        let both = record(values, (2, units), tensors, Statistics { unit, layer })?;
        let row = |index| both.narrow(0, index, 1)?.squeeze(0);
        Ok((row(0)?, row(1)?))
    }
}

impl<B: Place> Unit<B> {
    /// The means, then the sums of squares.
    fn statistics<T: Float>(&self, backend: &B, tensors: &[Tensor], layer: usize) -> Result<Vec<f32>> {
        read(tensors, |parts| {
            let loan = Loan::<B, T>::new(backend, parts, &self.kinds)?;
            let hidden = self.hidden(&loan);
            let units = self.layers.get(layer).map_or(0, |layer| loan.number(layer.bias).len());
            let mut mean = backend.output::<f32>(units).wrapped()?;
            let mut squares = backend.output::<f32>(units).wrapped()?;
            let out = DinStatistics::new(backend.output_mut(&mut mean), backend.output_mut(&mut squares));
            let inputs = self.inputs(&loan, &hidden);
            backend.din_statistics_into(&self.op, &self.batch, inputs, layer, out).wrapped()?;
            let mut values = backend.finish::<f32>(mean).wrapped()?;
            values.extend(backend.finish::<f32>(squares).wrapped()?);
            Ok(values)
        })
    }

    /// The numbers of a layer before its activation, `[C·L, h]`, for some candidates and behaviours of one user, in candle's operations.
    fn numbers(&self, targets: &Tensor, history: &Tensor, tensors: &[Tensor], last: usize) -> Result<Tensor> {
        let mut below: Option<(Tensor, Activation<usize>)> = None;
        for layer in &self.layers[..=last] {
            let (weight, bias) = (&tensors[layer.weight], &tensors[layer.bias]);
            let numbers = match below {
                None => first_layer(targets, history, weight, bias)?,
                Some((numbers, activation)) => {
                    activate(&numbers, activation, tensors)?.matmul(&weight.t()?)?.broadcast_add(bias)?
                }
            };
            below = Some((numbers, layer.activation));
        }
        match below {
            Some((numbers, _)) => Ok(numbers),
            None => candle_core::bail!("din_statistics: no layer"),
        }
    }
}

/// The first layer's numbers, `[C·L, h]`, without rows of `4d` numbers: with `W = [W_q, W_s, W_d, W_p]`,
/// `W·[q ; s ; q − s ; q ⊙ s] + b = ((W_q + W_d)·q + b) + (W_s − W_d)·s + W_p·(q ⊙ s)`.
fn first_layer(targets: &Tensor, history: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let ((count, width), (length, units)) = (targets.dims2()?, (history.dim(0)?, bias.elem_count()));
    let part = |index: usize| weight.narrow(1, index * width, width);
    let of_difference = part(2)?;
    let of_targets = targets.matmul(&part(0)?.add(&of_difference)?.t()?)?.broadcast_add(bias)?;
    let of_history = history.matmul(&part(1)?.sub(&of_difference)?.t()?)?;
    let products = targets.unsqueeze(1)?.broadcast_mul(&history.unsqueeze(0)?)?;
    let of_products = products.reshape((count * length, width))?.matmul(&part(3)?.contiguous()?.t()?)?;
    let numbers = of_products.reshape((count, length, units))?.broadcast_add(&of_targets.unsqueeze(1)?)?;
    numbers.broadcast_add(&of_history.unsqueeze(0)?)?.reshape((count * length, units))
}

fn activate(numbers: &Tensor, activation: Activation<usize>, tensors: &[Tensor]) -> Result<Tensor> {
    match activation {
        Activation::Relu => numbers.relu(),
        Activation::Sigmoid => sigmoid(numbers),
        Activation::Prelu { alpha } => {
            numbers.relu()?.sub(&numbers.neg()?.relu()?.broadcast_mul(&tensors[alpha])?)
        }
        Activation::Dice { gain, shift, alpha } => {
            let normalised = numbers.broadcast_mul(&tensors[gain])?.broadcast_add(&tensors[shift])?;
            let share = sigmoid(&normalised)?;
            let rest = (1.0 - &share)?.broadcast_mul(&tensors[alpha])?;
            numbers.mul(&share.add(&rest)?)
        }
        other => candle_core::bail!("din_statistics: no gradient through {other:?}"),
    }
}

/// The statistics in the graph. Their inputs are those of the unit.
struct Statistics<B: Place> {
    unit: Unit<B>,
    layer: usize,
}

/// What the parts of a batch add to: rows of candidates and of behaviours, and a tensor for each input after them.
struct Sums {
    rows: [Vec<f32>; 2],
    weights: Vec<Option<Tensor>>,
}

impl<B: Place> Statistics<B> {
    /// Adds the gradients of some candidates with some behaviours of one user. `values` are the inputs, those that gradients are wanted of as
    /// variables.
    fn add(
        &self,
        sums: &mut Sums,
        pass: &Pass<'_>,
        values: &[Tensor],
        places: [[usize; 2]; 2],
    ) -> Result<()> {
        let mut sides = Vec::with_capacity(2);
        for (side, [start, count]) in places.into_iter().enumerate() {
            sides.push(Var::from_tensor(&values[side].narrow(0, start, count)?.detach())?);
        }
        let numbers = self.unit.numbers(&sides[0], &sides[1], values, self.layer)?;
        let pairs = (*self.unit.batch).as_ref().pairs() as f64;
        let of_mean = (pass.grad.narrow(0, 0, 1)? / pairs)?;
        let centred = numbers.broadcast_sub(&pass.out.narrow(0, 0, 1)?)?;
        // The squares are of distances from the mean, so the mean counts as a constant in them: the distances add up to 0.
        let of_squares = centred.sqr()?.broadcast_mul(&pass.grad.narrow(0, 1, 1)?)?.sum_all()?;
        let loss = numbers.broadcast_mul(&of_mean)?.sum_all()?.add(&of_squares)?;
        let grads = loss.backward()?;
        for (side, [start, count]) in places.into_iter().enumerate() {
            let Some(grad) = grads.get(&sides[side]) else { continue };
            let grad = grad.flatten_all()?.to_vec1::<f32>()?;
            let width = self.unit.op.width;
            let rows = &mut sums.rows[side][start * width..(start + count) * width];
            rows.iter_mut().zip(grad).for_each(|(sum, grad)| *sum += grad);
        }
        for (sum, value) in sums.weights.iter_mut().zip(values).skip(2) {
            if let Some(grad) = grads.get(value) {
                *sum = Some(match sum.take() {
                    Some(sum) => sum.add(grad)?,
                    None => grad.clone(),
                });
            }
        }
        Ok(())
    }
}

impl<B: Place> Backward for Statistics<B> {
    fn name(&self) -> &'static str {
        "din_statistics"
    }

    fn gradients(&self, pass: &Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let mut values = Vec::with_capacity(pass.inputs.len());
        for (index, (input, &wanted)) in pass.inputs.iter().zip(pass.wanted).enumerate() {
            let value = input.to_dtype(DType::F32)?;
            // Rows become variables part by part.
            values.push(if wanted && index >= 2 { Var::from_tensor(&value)?.into_inner() } else { value });
        }
        let batch = (*self.unit.batch).as_ref();
        let rows = [values[0].elem_count(), values[1].elem_count()].map(|length| vec![0.0; length]);
        let mut sums = Sums { rows, weights: vec![None; values.len()] };
        for (history, targets) in batch.requests() {
            let span = history.len().clamp(1, PAIRS);
            let step = (PAIRS / span).max(1);
            for target in targets.clone().step_by(step) {
                for behaviour in history.clone().step_by(span) {
                    let of_targets = [target, step.min(targets.end - target)];
                    let of_history = [behaviour, span.min(history.end - behaviour)];
                    self.add(&mut sums, pass, &values, [of_targets, of_history])?;
                }
            }
        }
        let [targets, history] = sums.rows;
        let mut rows = [Some(targets), Some(history)];
        let mut grads = Vec::with_capacity(values.len());
        for (index, (input, &wanted)) in pass.inputs.iter().zip(pass.wanted).enumerate() {
            let sum = match rows.get_mut(index).and_then(Option::take) {
                Some(rows) => Some(Tensor::from_vec(rows, input.shape(), &Device::Cpu)?),
                None => sums.weights[index].take(),
            };
            grads.push(match sum {
                _ if !wanted => None,
                Some(sum) => Some(sum.to_dtype(input.dtype())?),
                None => Some(input.zeros_like()?),
            });
        }
        Ok(grads)
    }
}
