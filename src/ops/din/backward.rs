//! The gradients of DIN's local activation unit: what is asked for, and its checks.

use crate::element::Element;
use crate::error::{Error, Result};
use crate::jagged::Batch;
use crate::memory::{Memory, ViewMut};
use crate::ops::din::inputs::{Activation, DinInputs};
use crate::ops::din::parameters::Din;
use crate::ops::shape::{Dim, dim, expect};

const NAME: &str = "din_backward";

const STATISTICS: &str = "din_statistics";

/// The gradients of one hidden layer that a call is to write; see [`DinOps::din_backward_into`](crate::DinOps::din_backward_into).
#[non_exhaustive]
pub struct DinLayerGradients<'a, S: Memory, G: Element> {
    /// `[h, i]`, as the layer's weight.
    pub weight: Option<ViewMut<'a, S, G>>,
    /// `[h]`.
    pub bias: Option<ViewMut<'a, S, f32>>,
    /// As the activation's `alpha`: of PReLU and Dice.
    pub alpha: Option<ViewMut<'a, S, f32>>,
    /// `[h]`: of Dice.
    pub gain: Option<ViewMut<'a, S, f32>>,
    /// `[h]`: of Dice.
    pub shift: Option<ViewMut<'a, S, f32>>,
}

/// The gradients that a call is to write; see [`DinOps::din_backward_into`](crate::DinOps::din_backward_into).
#[non_exhaustive]
pub struct DinGradients<'a, S: Memory, G: Element> {
    /// `[M, d]`.
    pub targets: Option<ViewMut<'a, S, G>>,
    /// `[N, d]`: as input of the network and as what is pooled, in one sum.
    pub history: Option<ViewMut<'a, S, G>>,
    /// One for each hidden layer, or none at all.
    pub hidden: &'a mut [DinLayerGradients<'a, S, G>],
    /// `[1, h]`.
    pub output_weight: Option<ViewMut<'a, S, G>>,
    /// `[1]`.
    pub output_bias: Option<ViewMut<'a, S, f32>>,
}

/// Statistics of the numbers of one hidden layer before its activation; see
/// [`DinOps::din_statistics_into`](crate::DinOps::din_statistics_into).
#[non_exhaustive]
pub struct DinStatistics<'a, S: Memory> {
    /// `[h]`: the mean over all pairs; zeros without pairs.
    pub mean: ViewMut<'a, S, f32>,
    /// `[h]`: the sum of the squared distances from the mean.
    pub centred_squares: ViewMut<'a, S, f32>,
}

impl<'a, S: Memory> DinStatistics<'a, S> {
    /// Where the statistics go.
    pub fn new(mean: ViewMut<'a, S, f32>, centred_squares: ViewMut<'a, S, f32>) -> Self {
        Self { mean, centred_squares }
    }
}

impl<S: Memory, G: Element> Default for DinLayerGradients<'_, S, G> {
    fn default() -> Self {
        Self { weight: None, bias: None, alpha: None, gain: None, shift: None }
    }
}

impl<'a, S: Memory, G: Element> DinLayerGradients<'a, S, G> {
    /// None of them.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the weight's gradient, `[h, i]`.
    pub fn with_weight(self, weight: ViewMut<'a, S, G>) -> Self {
        Self { weight: Some(weight), ..self }
    }

    /// Asks for the bias's gradient, `[h]`.
    pub fn with_bias(self, bias: ViewMut<'a, S, f32>) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// Asks for the gradient of the `alpha` of PReLU or Dice, in its shape.
    pub fn with_alpha(self, alpha: ViewMut<'a, S, f32>) -> Self {
        Self { alpha: Some(alpha), ..self }
    }

    /// Asks for the gradient of Dice's `gain`, `[h]`.
    pub fn with_gain(self, gain: ViewMut<'a, S, f32>) -> Self {
        Self { gain: Some(gain), ..self }
    }

    /// Asks for the gradient of Dice's `shift`, `[h]`.
    pub fn with_shift(self, shift: ViewMut<'a, S, f32>) -> Self {
        Self { shift: Some(shift), ..self }
    }
}

impl<S: Memory, G: Element> Default for DinGradients<'_, S, G> {
    fn default() -> Self {
        Self { targets: None, history: None, hidden: &mut [], output_weight: None, output_bias: None }
    }
}

impl<'a, S: Memory, G: Element> DinGradients<'a, S, G> {
    /// None of them.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the targets' gradient, `[M, d]`.
    pub fn with_targets(self, targets: ViewMut<'a, S, G>) -> Self {
        Self { targets: Some(targets), ..self }
    }

    /// Asks for the history's gradient, `[N, d]`.
    pub fn with_history(self, history: ViewMut<'a, S, G>) -> Self {
        Self { history: Some(history), ..self }
    }

    /// Asks for gradients of the hidden layers: one entry for each of them.
    pub fn with_hidden(self, hidden: &'a mut [DinLayerGradients<'a, S, G>]) -> Self {
        Self { hidden, ..self }
    }

    /// Asks for the gradient of the output layer's weight, `[1, h]`.
    pub fn with_output_weight(self, output_weight: ViewMut<'a, S, G>) -> Self {
        Self { output_weight: Some(output_weight), ..self }
    }

    /// Asks for the gradient of the output layer's bias, `[1]`.
    pub fn with_output_bias(self, output_bias: ViewMut<'a, S, f32>) -> Self {
        Self { output_bias: Some(output_bias), ..self }
    }
}

impl Din {
    /// Checks parameters, inputs, the gradient that comes in (`grad_out` elements of it) and those asked for.
    ///
    /// # Errors
    /// Those of [`check`](Self::check); [`Error::Shape`] for a gradient that has not the shape of what it belongs to, for
    /// `hidden` that has neither no entry nor one for each layer, and for histories that share rows; [`Error::Unsupported`] for the gradient of a vector that the
    /// layer's activation does not have.
    pub fn check_backward<S: Memory, T: Element, G: Element>(
        &self,
        batch: &Batch,
        inputs: &DinInputs<'_, S, T>,
        grad_out: usize,
        grads: &DinGradients<'_, S, G>,
    ) -> Result<()> {
        self.check_in(NAME, batch, inputs)?;
        batch.histories().check_disjoint(NAME)?;
        let width = dim("d", self.width);
        let (rows, behaviours) = (dim("M", batch.targets().rows()), dim("N", batch.histories().rows()));
        expect(NAME, "grad_out", grad_out, &[rows, width])?;
        let asked = |argument: &'static str, view: Option<usize>, shape: &[Dim]| match view {
            Some(length) => expect(NAME, argument, length, shape).map(|_| ()),
            None => Ok(()),
        };
        asked("grads.targets", grads.targets.as_ref().map(ViewMut::len), &[rows, width])?;
        asked("grads.history", grads.history.as_ref().map(ViewMut::len), &[behaviours, width])?;
        if !grads.hidden.is_empty() && grads.hidden.len() != inputs.hidden.len() {
            let expected = format!("none or {} layers", inputs.hidden.len());
            let got = format!("{} layers", grads.hidden.len());
            return Err(Error::Shape { operation: NAME, argument: "grads.hidden", expected, got });
        }
        for ((layer, grads), names) in inputs.hidden.iter().zip(grads.hidden.iter()).zip(DIN_GRADIENTS) {
            let units = dim("h", layer.bias.len());
            let fan_in = dim("i", layer.weight.len() / layer.bias.len());
            asked(names[0], grads.weight.as_ref().map(ViewMut::len), &[units, fan_in])?;
            asked(names[1], grads.bias.as_ref().map(ViewMut::len), &[units])?;
            let lengths = match &layer.activation {
                Activation::Relu | Activation::Sigmoid => [None; 3],
                Activation::Prelu { alpha } => [Some(alpha.len()), None, None],
                Activation::Dice { gain, shift, alpha } => {
                    [Some(alpha.len()), Some(gain.len()), Some(shift.len())]
                }
            };
            let views = [&grads.alpha, &grads.gain, &grads.shift];
            for ((view, length), name) in views.into_iter().zip(lengths).zip(&names[2..]) {
                match (view.as_ref().map(ViewMut::len), length) {
                    (Some(_), None) => {
                        return Err(Error::Unsupported {
                            operation: NAME,
                            what: format!("{name}, of an activation without such a vector,"),
                            supported: "alpha of PReLU and Dice; gain and shift of Dice".into(),
                        });
                    }
                    (view, length) => asked(name, view, &[dim("h", length.unwrap_or(0))])?,
                }
            }
        }
        let units = dim("h", inputs.output_weight.len());
        asked("grads.output_weight", grads.output_weight.as_ref().map(ViewMut::len), &[dim("1", 1), units])?;
        asked("grads.output_bias", grads.output_bias.as_ref().map(ViewMut::len), &[dim("1", 1)])
    }

    /// Checks parameters, inputs, and the statistics of a layer asked for.
    ///
    /// # Errors
    /// Those of [`check`](Self::check); [`Error::Parameter`] for a layer that is not there; [`Error::Shape`] for statistics that
    /// are not `[h]`.
    pub fn check_statistics<S: Memory, T: Element>(
        &self,
        batch: &Batch,
        inputs: &DinInputs<'_, S, T>,
        layer: usize,
        out: &DinStatistics<'_, S>,
    ) -> Result<()> {
        self.check_in(STATISTICS, batch, inputs)?;
        let Some(asked) = inputs.hidden.get(layer) else {
            let expected = format!("below {}, the number of hidden layers", inputs.hidden.len());
            let got = layer.to_string();
            return Err(Error::Parameter { operation: STATISTICS, argument: "layer", expected, got });
        };
        let units = [dim("h", asked.bias.len())];
        expect(STATISTICS, "mean", out.mean.len(), &units)?;
        expect(STATISTICS, "centred_squares", out.centred_squares.len(), &units)?;
        Ok(())
    }

    /// Multiplications and additions of the backward pass: those of the network three times, and of the pooling twice. At most
    /// `u64::MAX`, as the other counts.
    pub fn backward_flops(&self, batch: &Batch, hidden: &[usize]) -> u64 {
        let pooling = batch.pairs().saturating_mul(2).saturating_mul(self.width as u64);
        self.flops(batch, hidden).saturating_mul(3).saturating_sub(pooling)
    }

    /// The fewest bytes that the backward pass moves: each behaviour and candidate with its gradient, and each gradient that
    /// comes in, once.
    pub fn backward_bytes<T: Element>(&self, batch: &Batch) -> u64 {
        let behaviours = (batch.histories().total_length() as u64).saturating_mul(2);
        let rows = behaviours.saturating_add((batch.targets().total() as u64).saturating_mul(3));
        rows.saturating_mul(self.width as u64).saturating_mul(size_of::<T>() as u64)
    }
}

/// The names of a layer's gradients in errors.
pub(crate) const DIN_GRADIENTS: [[&str; 5]; Din::MAX_HIDDEN] = [
    [
        "grads.hidden[0].weight",
        "grads.hidden[0].bias",
        "grads.hidden[0].alpha",
        "grads.hidden[0].gain",
        "grads.hidden[0].shift",
    ],
    [
        "grads.hidden[1].weight",
        "grads.hidden[1].bias",
        "grads.hidden[1].alpha",
        "grads.hidden[1].gain",
        "grads.hidden[1].shift",
    ],
    [
        "grads.hidden[2].weight",
        "grads.hidden[2].bias",
        "grads.hidden[2].alpha",
        "grads.hidden[2].gain",
        "grads.hidden[2].shift",
    ],
];
