//! DIN's local activation unit.

use std::sync::Arc;

use burn_core::backend::TensorMetadata;
use burn_core::tensor::Tensor;
use longseq::prelude::*;
use longseq::{
    Activation, Din, DinGradients, DinInputs, DinLayer, DinLayerGradients, DinStatistics, Result, View,
};

use crate::argument::{Argument, Float, by_float};
use crate::graph::{Differentiate, Input, Pass, plain, record, values};
use crate::handle::{Batch, Longseq};
use crate::loan::{GradientMemory, Kind, Loan, MemoryOf, Views};
use crate::place::{Place, Values};

const NAME: &str = "din";

/// One hidden layer of `h` units with `i` inputs.
#[derive(Clone, Copy)]
pub struct DinLayerTensors<'a> {
    /// `[h, i]`, of the type of the rows; the first layer's columns are in the order `[q ; s ; q − s ; q ⊙ s]`. burn's `Linear` stores
    /// `[i, h]`: give its transpose, which is copied.
    pub weight: &'a Tensor<2>,
    /// `[h]`, of `f32`, or widened; so are the activation's vectors.
    pub bias: &'a Tensor<1>,
    /// The activation after the layer, with PReLU's or Dice's vectors.
    pub activation: Activation<&'a Tensor<1>>,
}

impl<'a> DinLayerTensors<'a> {
    /// A layer of as many units as the bias has numbers.
    pub fn new(weight: &'a Tensor<2>, bias: &'a Tensor<1>, activation: Activation<&'a Tensor<1>>) -> Self {
        Self { weight, bias, activation }
    }
}

/// The inputs of the unit. The types of rows and weights are the same: `f32`, `f16` or `bf16`.
#[derive(Clone, Copy)]
pub struct DinTensors<'a> {
    /// `[M, d]`.
    pub targets: &'a Tensor<2>,
    /// `[N, d]`.
    pub history: &'a Tensor<2>,
    /// One to three hidden layers.
    pub hidden: &'a [DinLayerTensors<'a>],
    /// `[1, h]`.
    pub output_weight: &'a Tensor<2>,
    /// `[1]`, of `f32`, or widened.
    pub output_bias: &'a Tensor<1>,
}

impl<'a> DinTensors<'a> {
    /// Candidates, behaviours, and the network that scores their pairs.
    pub fn new(
        targets: &'a Tensor<2>,
        history: &'a Tensor<2>,
        hidden: &'a [DinLayerTensors<'a>],
        output_weight: &'a Tensor<2>,
        output_bias: &'a Tensor<1>,
    ) -> Self {
        Self { targets, history, hidden, output_weight, output_bias }
    }
}

impl<P: Place> Longseq<P> {
    /// DIN's local activation unit, `[M, d]`; formula: [`Din`]. Everything gets gradients: candidates, behaviours, weights, biases, and the
    /// vectors of PReLU and Dice (of its γ and β too, where [`fold_dice`](crate::fold_dice) made `gain` and `shift` of them).
    ///
    /// # Errors
    /// Those of [`Din::check`]; a tensor on another backend of burn, or of another type.
    pub fn din(&self, op: &Din, batch: &Batch<P>, inputs: DinTensors<'_>) -> Result<Tensor<2>> {
        let (unit, tensors) = Unit::new(self, op, batch, &inputs)?;
        by_float!(tensors[0].dtype(), T => {
            let out = unit.forward::<T>(&self.for_call()?, &tensors)?;
            Ok(Tensor::from_dispatch(record(out, tensors, unit)?))
        })
    }

    /// Mean, and sum of squared distances from it, of the numbers of hidden layer `layer` before its activation, over all pairs of a
    /// candidate and a behaviour: `[h]` each. Dice in training normalises by them (with [`longseq::Batch::pairs`] as the number of pairs).
    /// They have no gradients: the statistics count as constants.
    ///
    /// # Errors
    /// Those of [`Din::check_statistics`]; a tensor on another backend of burn, or of another type.
    pub fn din_statistics(
        &self,
        op: &Din,
        batch: &Batch<P>,
        inputs: DinTensors<'_>,
        layer: usize,
    ) -> Result<(Tensor<1>, Tensor<1>)> {
        let (unit, tensors) = Unit::new(self, op, batch, &inputs)?;
        let place = self.for_call()?;
        let dtype = tensors[0].dtype();
        let tensors = values(&tensors);
        by_float!(dtype, T => {
            let loan = Loan::<P, T>::new(&place, &tensors, &unit.kinds)?;
            let hidden = unit.hidden(&loan);
            let units = unit.layers.get(layer).map_or(0, |layer| loan.number(layer.bias).len());
            let mut mean = place.output::<f32>(units)?;
            let mut squares = place.output::<f32>(units)?;
            let out = DinStatistics::new(place.output_mut(&mut mean), place.output_mut(&mut squares));
            let inputs = unit.inputs(&loan, &hidden);
            place.backend().din_statistics_into(op, &unit.batch, inputs, layer, out)?;
            Ok((vector(&place, mean, units)?, vector(&place, squares, units)?))
        })
    }
}

/// A vector outside of the graph.
fn vector<P: Place>(place: &P, output: P::Output<f32>, length: usize) -> Result<Tensor<1>> {
    Ok(plain::<P, 1, _>(place.finish::<f32>(output, vec![length])?))
}

/// `(gain, shift)` of [`Activation::Dice`] from its statistics and parameters, all `[h]`, in burn's operations: `γ/√(variance + ε)` and
/// `β − mean·gain`. γ and β (1 and 0 where they are `None`) get gradients; so do the statistics, if they have any.
pub fn fold_dice(
    mean: &Tensor<1>,
    variance: &Tensor<1>,
    epsilon: f64,
    gamma: Option<&Tensor<1>>,
    beta: Option<&Tensor<1>>,
) -> (Tensor<1>, Tensor<1>) {
    let inverse = variance.clone().add_scalar(epsilon).sqrt().recip();
    let gain = match gamma {
        Some(gamma) => gamma.clone() * inverse,
        None => inverse,
    };
    let moved = mean.clone() * gain.clone();
    let shift = match beta {
        Some(beta) => beta.clone() - moved,
        None => -moved,
    };
    (gain, shift)
}

/// Where the inputs of a layer are.
struct Layer {
    weight: usize,
    bias: usize,
    activation: Activation<usize>,
}

/// The unit in the graph. Its inputs: targets, history, the output's weight and bias, then those of each layer.
struct Unit<P: Place> {
    place: Arc<P>,
    batch: Arc<<P::Backend as DeviceOps>::Batch>,
    op: Din,
    kinds: Vec<Kind>,
    layers: Vec<Layer>,
}

impl<P: Place> Unit<P> {
    fn new(
        longseq: &Longseq<P>,
        op: &Din,
        batch: &Batch<P>,
        inputs: &DinTensors<'_>,
    ) -> Result<(Self, Vec<Input<P>>)> {
        let vector = |name, tensor: &Tensor<1>| Argument::new(NAME, name, tensor).f32();
        let matrix = |name, tensor: &Tensor<2>| Argument::new(NAME, name, tensor);
        let d = ("d", op.width);
        let (m, n) = (("M", batch.batch().targets().rows()), ("N", batch.batch().histories().rows()));
        let targets = matrix("targets", inputs.targets).of_shape(&[&[m, d]])?.float()?;
        let dtype = targets.dtype();
        let mut tensors: Vec<Input<P>> = vec![
            targets,
            matrix("history", inputs.history).of_shape(&[&[n, d]])?.float_as(dtype)?,
            matrix("output_weight", inputs.output_weight).float_as(dtype)?,
            vector("output_bias", inputs.output_bias)?,
        ];
        let mut kinds = vec![Kind::Row, Kind::Row, Kind::Row, Kind::Number];
        let mut layers = Vec::with_capacity(inputs.hidden.len());
        let mut fan_in = op.width.saturating_mul(4);
        for layer in inputs.hidden {
            let units = ("h", layer.bias.dims()[0]);
            let weight = matrix("hidden.weight", layer.weight).of_shape(&[&[units, ("i", fan_in)]])?;
            tensors.push(weight.float_as(dtype)?);
            tensors.push(vector("hidden.bias", layer.bias)?);
            kinds.extend([Kind::Row, Kind::Number]);
            let (weight, bias) = (kinds.len() - 2, kinds.len() - 1);
            let mut failed = Ok(());
            let activation = layer.activation.map(|given| {
                match vector("hidden.activation", given) {
                    Ok(vector) => tensors.push(vector),
                    Err(error) => failed = Err(error),
                }
                kinds.push(Kind::Number);
                kinds.len() - 1
            });
            failed?;
            layers.push(Layer { weight, bias, activation });
            fan_in = units.1;
        }
        let (place, batch) = (longseq.shared(), longseq.own(NAME, batch)?);
        Ok((Self { place, batch, op: *op, kinds, layers }, tensors))
    }

    fn hidden<'b, T: Float>(&self, loan: &'b Loan<'_, P, T>) -> Vec<DinLayer<'b, MemoryOf<P>, T>> {
        let layer = |layer: &Layer| {
            let activation: Activation<View<'b, MemoryOf<P>, f32>> =
                layer.activation.map(|vector| loan.number(vector));
            DinLayer::new(loan.row(layer.weight), loan.number(layer.bias), activation)
        };
        self.layers.iter().map(layer).collect()
    }

    fn inputs<'b, T: Float>(
        &self,
        loan: &'b Loan<'_, P, T>,
        hidden: &'b [DinLayer<'b, MemoryOf<P>, T>],
    ) -> DinInputs<'b, MemoryOf<P>, T> {
        DinInputs::new(loan.row(0), loan.row(1), hidden, loan.row(2), loan.number(3))
    }

    fn forward<T: Float>(&self, place: &P, tensors: &[Input<P>]) -> Result<Values<P>> {
        let tensors = values(tensors);
        let loan = Loan::<P, T>::new(place, &tensors, &self.kinds)?;
        let hidden = self.hidden(&loan);
        let inputs = self.inputs(&loan, &hidden);
        let batch = (*self.batch).as_ref();
        self.op.check(batch, &inputs)?;
        let mut out = place.output::<T>(self.op.output_length(batch)?)?;
        place.backend().din_into(&self.op, &self.batch, inputs, place.output_mut(&mut out))?;
        place.finish::<T>(out, vec![batch.targets().rows(), self.op.width])
    }

    fn layer_grads<'b, T: Float>(
        &self,
        rows: &mut Views<'b, P, T>,
        numbers: &mut Views<'b, P, f32>,
    ) -> Vec<DinLayerGradients<'b, MemoryOf<P>, T>> {
        let grads = |layer: &Layer| {
            let mut grads = DinLayerGradients::new();
            grads.weight = rows[layer.weight].take();
            grads.bias = numbers[layer.bias].take();
            match layer.activation {
                Activation::Prelu { alpha } => grads.alpha = numbers[alpha].take(),
                Activation::Dice { gain, shift, alpha } => {
                    grads.alpha = numbers[alpha].take();
                    (grads.gain, grads.shift) = (numbers[gain].take(), numbers[shift].take());
                }
                _ => {}
            }
            grads
        };
        self.layers.iter().map(grads).collect()
    }

    fn backward<T: Float>(&self, pass: &Pass<'_, P>) -> Result<Vec<Option<Values<P>>>> {
        let place = self.place.for_call()?;
        let mut memory = GradientMemory::<P, T>::new(&place, pass, &self.kinds)?;
        {
            let loan = Loan::<P, T>::new(&place, pass.inputs, &self.kinds)?;
            let hidden = self.hidden(&loan);
            let inputs = self.inputs(&loan, &hidden);
            let grad = place.lend::<T>(pass.grad)?;
            let (mut rows, mut numbers) = memory.views(&place);
            let mut layers = self.layer_grads(&mut rows, &mut numbers);
            let mut grads = DinGradients::new();
            (grads.targets, grads.history) = (rows[0].take(), rows[1].take());
            (grads.output_weight, grads.output_bias) = (rows[2].take(), numbers[3].take());
            grads.hidden = &mut layers;
            place.backend().din_backward_into(&self.op, &self.batch, inputs, grad.view(), grads)?;
        }
        memory.finish(&place, pass)
    }
}

impl<P: Place> Differentiate<P> for Unit<P> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn gradients(&self, pass: &Pass<'_, P>) -> Result<Vec<Option<Values<P>>>> {
        by_float!(pass.inputs[0].dtype(), T => self.backward::<T>(pass))
    }
}
