//! DIN's local activation unit.

mod statistics;

use std::sync::Arc;

use candle_core::{Result, Tensor};
use longseq::{Activation, Din, DinGradients, DinInputs, DinLayer, DinLayerGradients, View};

use crate::error::Wrapped;
use crate::handle::{Batch, Longseq};
use crate::loan::{GradientMemory, Kind, Loan, Views};
use crate::place::Place;
use crate::read::read;
use crate::record::{Backward, Pass, record};
use crate::tensors::{Argument, Float, by_float};

const NAME: &str = "din";
/// Where the weight and the bias of the output are among the inputs.
const OUTPUT: [usize; 2] = [2, 3];

/// One hidden layer of `h` units with `i` inputs.
#[derive(Clone, Copy)]
pub struct DinLayerTensors<'a> {
    /// `[h, i]`, of the type of the rows; the first layer's columns are in the order `[q ; s ; q − s ; q ⊙ s]`.
    pub weight: &'a Tensor,
    /// `[h]`, of `f32`, or widened; so are the activation's vectors.
    pub bias: &'a Tensor,
    /// The activation after the layer, with PReLU's or Dice's vectors.
    pub activation: Activation<&'a Tensor>,
}

impl<'a> DinLayerTensors<'a> {
    /// A layer of `bias.elem_count()` units.
    pub fn new(weight: &'a Tensor, bias: &'a Tensor, activation: Activation<&'a Tensor>) -> Self {
        Self { weight, bias, activation }
    }
}

/// The inputs of the unit. The types of rows and weights are the same: `f32`, `f16` or `bf16`.
#[derive(Clone, Copy)]
pub struct DinTensors<'a> {
    /// `[M, d]`.
    pub targets: &'a Tensor,
    /// `[N, d]`.
    pub history: &'a Tensor,
    /// One to three hidden layers.
    pub hidden: &'a [DinLayerTensors<'a>],
    /// `[1, h]`.
    pub output_weight: &'a Tensor,
    /// `[1]`, of `f32`, or widened.
    pub output_bias: &'a Tensor,
}

impl<'a> DinTensors<'a> {
    /// Candidates, behaviours, and the network that scores their pairs.
    pub fn new(
        targets: &'a Tensor,
        history: &'a Tensor,
        hidden: &'a [DinLayerTensors<'a>],
        output_weight: &'a Tensor,
        output_bias: &'a Tensor,
    ) -> Self {
        Self { targets, history, hidden, output_weight, output_bias }
    }
}

impl<B: Place> Longseq<B> {
    /// DIN's local activation unit, `[M, d]`; formula: [`Din`]. Everything gets gradients: candidates, behaviours, weights, biases, and the
    /// vectors of PReLU and Dice (of its γ and β too, where [`fold_dice`](crate::fold_dice) made `gain` and `shift` of them).
    ///
    /// # Errors
    /// Those of [`Din::check`], in longseq's words; a tensor that is not on the CPU, or of another type.
    pub fn din(&self, op: &Din, batch: &Batch<B>, inputs: DinTensors<'_>) -> Result<Tensor> {
        let (unit, tensors) = Unit::new(self, op, batch, &inputs)?;
        let shape = (batch.batch().targets().rows(), op.width);
        by_float!(tensors[0].dtype(), T => {
            let out = unit.forward::<T>(&self.fork()?, &tensors)?;
            record(out, shape, tensors, unit)
        })
    }
}

/// `(gain, shift)` of [`Activation::Dice`] from its statistics and parameters, all `[h]`, in candle's operations: `γ/√(variance + ε)` and
/// `β − mean·gain`. γ and β (1 and 0 where they are `None`) get gradients; so do the statistics, if they have any.
///
/// # Errors
/// Those of candle, for shapes or types that differ.
pub fn fold_dice(
    mean: &Tensor,
    variance: &Tensor,
    epsilon: f64,
    gamma: Option<&Tensor>,
    beta: Option<&Tensor>,
) -> Result<(Tensor, Tensor)> {
    let inverse = (variance + epsilon)?.sqrt()?.recip()?;
    let gain = match gamma {
        Some(gamma) => gamma.mul(&inverse)?,
        None => inverse,
    };
    let moved = mean.mul(&gain)?;
    let shift = match beta {
        Some(beta) => beta.sub(&moved)?,
        None => moved.neg()?,
    };
    Ok((gain, shift))
}

/// Where the inputs of a layer are.
struct Layer {
    weight: usize,
    bias: usize,
    activation: Activation<usize>,
}

/// The unit in the graph. Its inputs: targets, history, the output's weight and bias, then those of each layer.
struct Unit<B: Place> {
    backend: Arc<B>,
    batch: Arc<B::Batch>,
    op: Din,
    kinds: Vec<Kind>,
    layers: Vec<Layer>,
}

impl<B: Place> Unit<B> {
    fn new(
        longseq: &Longseq<B>,
        op: &Din,
        batch: &Batch<B>,
        inputs: &DinTensors<'_>,
    ) -> Result<(Self, Vec<Tensor>)> {
        let argument = |name, tensor| Argument::new(NAME, name, tensor);
        let d = ("d", op.width);
        let (m, n) = (("M", batch.batch().targets().rows()), ("N", batch.batch().histories().rows()));
        let targets = argument("targets", inputs.targets).of_shape(&[&[m, d]])?.float()?;
        let dtype = targets.dtype();
        let mut tensors = vec![
            targets,
            argument("history", inputs.history).of_shape(&[&[n, d]])?.float_as(dtype)?,
            argument("output_weight", inputs.output_weight).float_as(dtype)?,
            argument("output_bias", inputs.output_bias).f32()?,
        ];
        let mut kinds = vec![Kind::Row, Kind::Row, Kind::Row, Kind::Number];
        let mut layers = Vec::with_capacity(inputs.hidden.len());
        let mut fan_in = op.width.saturating_mul(4);
        for layer in inputs.hidden {
            let units = ("h", layer.bias.elem_count());
            let weight = argument("hidden.weight", layer.weight).of_shape(&[&[units, ("i", fan_in)]])?;
            tensors.push(weight.float_as(dtype)?);
            tensors.push(argument("hidden.bias", layer.bias).f32()?);
            kinds.extend([Kind::Row, Kind::Number]);
            let (weight, bias) = (kinds.len() - 2, kinds.len() - 1);
            let mut failed = Ok(());
            let activation = layer.activation.map(|vector| {
                match argument("hidden.activation", vector).f32() {
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
        let (backend, batch) = (longseq.shared(), longseq.own(NAME, batch)?);
        Ok((Self { backend, batch, op: *op, kinds, layers }, tensors))
    }

    fn hidden<'b, T: Float>(&self, loan: &'b Loan<'_, B, T>) -> Vec<DinLayer<'b, B::Memory, T>> {
        let layer = |layer: &Layer| {
            let activation: Activation<View<'b, B::Memory, f32>> =
                layer.activation.map(|vector| loan.number(vector));
            DinLayer::new(loan.row(layer.weight), loan.number(layer.bias), activation)
        };
        self.layers.iter().map(layer).collect()
    }

    fn inputs<'b, T: Float>(
        &self,
        loan: &'b Loan<'_, B, T>,
        hidden: &'b [DinLayer<'b, B::Memory, T>],
    ) -> DinInputs<'b, B::Memory, T> {
        DinInputs::new(loan.row(0), loan.row(1), hidden, loan.row(OUTPUT[0]), loan.number(OUTPUT[1]))
    }

    fn forward<T: Float>(&self, backend: &B, tensors: &[Tensor]) -> Result<Vec<T>> {
        read(tensors, |parts| {
            let loan = Loan::<B, T>::new(backend, parts, &self.kinds)?;
            let hidden = self.hidden(&loan);
            let inputs = self.inputs(&loan, &hidden);
            let batch = (*self.batch).as_ref();
            self.op.check(batch, &inputs).wrapped()?;
            let mut out = backend.output::<T>(self.op.output_length(batch).wrapped()?).wrapped()?;
            backend.din_into(&self.op, &self.batch, inputs, backend.output_mut(&mut out)).wrapped()?;
            backend.finish::<T>(out).wrapped()
        })
    }

    fn layer_grads<'b, T: Float>(
        &self,
        rows: &mut Views<'b, B, T>,
        numbers: &mut Views<'b, B, f32>,
    ) -> Vec<DinLayerGradients<'b, B::Memory, T>> {
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

    fn backward<T: Float>(&self, pass: &Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let backend = self.backend.fork().wrapped()?;
        let mut memory = GradientMemory::<B, T>::new(&backend, pass, &self.kinds)?;
        read(&pass.inputs_and(&[pass.grad]), |parts| {
            let loan = Loan::<B, T>::new(&backend, parts, &self.kinds)?;
            let hidden = self.hidden(&loan);
            let inputs = self.inputs(&loan, &hidden);
            let grad = backend.lend(parts.of::<T>(pass.inputs.len())?).wrapped()?;
            let (mut rows, mut numbers) = memory.views(&backend);
            let mut layers = self.layer_grads(&mut rows, &mut numbers);
            let mut grads = DinGradients::new();
            (grads.targets, grads.history) = (rows[0].take(), rows[1].take());
            (grads.output_weight, grads.output_bias) = (rows[OUTPUT[0]].take(), numbers[OUTPUT[1]].take());
            grads.hidden = &mut layers;
            backend.din_backward_into(&self.op, &self.batch, inputs, grad.view(), grads).wrapped()
        })?;
        memory.finish(&backend, pass)
    }
}

impl<B: Place> Backward for Unit<B> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn gradients(&self, pass: &Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        by_float!(pass.inputs[0].dtype(), T => self.backward::<T>(pass))
    }
}
