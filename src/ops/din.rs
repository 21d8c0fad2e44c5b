//! DIN's local activation unit: a small network scores every pair of candidate and behaviour.

use crate::device::{Buffer, DeviceOps, unsupported};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::jagged::Batch;
use crate::memory::{Memory, View, ViewMut};
use crate::ops::shape::{copy_views, dim, elements, expect};

const NAME: &str = "din";

/// The local activation unit of Deep Interest Network.
///
/// For candidate `q` and each of its user's behaviours `s_l`:
///
/// ```text
/// x_l = [q ; s_l ; q − s_l ; q ⊙ s_l] ∈ R^{4d}
/// a_l = W_out · f(… f(W_1 x_l + b_1) …) + b_out         1 to 3 hidden layers
/// out = Σ_l w_l · s_l,   w = a  or  w = softmax(a)
/// ```
///
/// An empty history gives a row of zeros.
///
/// Source: Zhou et al., "Deep Interest Network", KDD 2018, arXiv 1706.06978, §4.3 and eq. 3, which does not
/// normalise the weights; the published code, and many models after it, use softmax.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Din {
    /// `d`: width of a behaviour and of a candidate. Default 64.
    pub width: usize,
    /// How scores become weights. Default: the scores themselves.
    pub pooling: DinPooling,
}

/// How the scores of one candidate become weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DinPooling {
    /// `w = a`: the paper's.
    #[default]
    Sum,
    /// `w = softmax(a)`: the official code's, and DIEN's.
    Softmax,
}

/// The activation behind a hidden layer of `h` channels; `V` is a view of `f32`s on the device.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Activation<V> {
    /// `max(x, 0)`.
    Relu,
    /// `σ(x)`.
    Sigmoid,
    /// `max(x, 0) + α·min(x, 0)`.
    Prelu {
        /// `[1]` or `[h]`.
        alpha: V,
    },
    /// `x·(p + α(1 − p))`, `p = σ(gain·x + shift)`: Dice in inference form; [`fold_dice`] makes the two vectors.
    Dice {
        /// `[h]`: `γ/√(var + ε)`.
        gain: V,
        /// `[h]`: `β − mean·γ/√(var + ε)`.
        shift: V,
        /// `[h]`.
        alpha: V,
    },
}

impl<V> Activation<V> {
    /// The same activation with its vectors elsewhere.
    pub fn map<W>(self, mut vector: impl FnMut(V) -> W) -> Activation<W> {
        match self {
            Self::Relu => Activation::Relu,
            Self::Sigmoid => Activation::Sigmoid,
            Self::Prelu { alpha } => Activation::Prelu { alpha: vector(alpha) },
            Self::Dice { gain, shift, alpha } => {
                Activation::Dice { gain: vector(gain), shift: vector(shift), alpha: vector(alpha) }
            }
        }
    }
}

/// Statistics and parameters of a trained Dice activation, all `[h]`.
#[derive(Debug, Clone, Copy)]
pub struct DiceStatistics<'a> {
    /// Running mean.
    pub mean: &'a [f32],
    /// Running variance.
    pub variance: &'a [f32],
    /// Added to the variance; 1e-9 in FuxiCTR and DeepCTR, 1e-8 in deepctr-torch.
    pub epsilon: f32,
    /// `γ`, or `None` for 1.
    pub gamma: Option<&'a [f32]>,
    /// `β`, or `None` for 0.
    pub beta: Option<&'a [f32]>,
}

impl<'a> DiceStatistics<'a> {
    /// Running statistics, with `γ = 1` and `β = 0`.
    pub fn new(mean: &'a [f32], variance: &'a [f32], epsilon: f32) -> Self {
        Self { mean, variance, epsilon, gamma: None, beta: None }
    }

    /// Sets `γ` and `β`.
    pub fn with_affine(self, gamma: &'a [f32], beta: &'a [f32]) -> Self {
        Self { gamma: Some(gamma), beta: Some(beta), ..self }
    }
}

/// Folds Dice's batch statistics into `(gain, shift)` for [`Activation::Dice`].
///
/// # Errors
/// [`Error::Shape`] where the vectors differ in length.
pub fn fold_dice(statistics: &DiceStatistics<'_>) -> Result<(Vec<f32>, Vec<f32>)> {
    let channels = statistics.mean.len();
    let vectors =
        [("variance", Some(statistics.variance)), ("gamma", statistics.gamma), ("beta", statistics.beta)];
    for (argument, vector) in vectors {
        if let Some(vector) = vector {
            expect("fold_dice", argument, vector.len(), &[dim("h", channels)])?;
        }
    }
    let fold = |channel: usize| {
        let gamma = statistics.gamma.map_or(1.0, |gamma| f64::from(gamma[channel]));
        let beta = statistics.beta.map_or(0.0, |beta| f64::from(beta[channel]));
        let deviation = (f64::from(statistics.variance[channel]) + f64::from(statistics.epsilon)).sqrt();
        let gain = gamma / deviation;
        (gain as f32, (beta - f64::from(statistics.mean[channel]) * gain) as f32)
    };
    Ok((0..channels).map(fold).unzip())
}

/// One hidden layer of `h` units over `i` inputs: the layer before it, or `i = 4d` for the first.
pub struct DinLayer<'a, S: Memory, T: Element> {
    /// `[h, i]`, PyTorch's layout; the first layer's columns in the order `[q ; s ; q − s ; q ⊙ s]`.
    pub weight: View<'a, S, T>,
    /// `[h]`; its length says how many units the layer has.
    pub bias: View<'a, S, f32>,
    /// What comes behind the layer.
    pub activation: Activation<View<'a, S, f32>>,
}

/// What the unit reads.
pub struct DinInputs<'a, S: Memory, T: Element> {
    /// `[M, d]`, one row per candidate.
    pub targets: View<'a, S, T>,
    /// `[N, d]`, one row per behaviour.
    pub history: View<'a, S, T>,
    /// One to three hidden layers.
    pub hidden: &'a [DinLayer<'a, S, T>],
    /// `[1, h]`, `h` the units of the last hidden layer.
    pub output_weight: View<'a, S, T>,
    /// `[1]`.
    pub output_bias: View<'a, S, f32>,
}

copy_views!(DinLayer<T>, DinInputs<T>);

impl<'a, S: Memory, T: Element> DinLayer<'a, S, T> {
    /// A layer of `bias.len()` units.
    pub fn new(
        weight: View<'a, S, T>,
        bias: View<'a, S, f32>,
        activation: Activation<View<'a, S, f32>>,
    ) -> Self {
        Self { weight, bias, activation }
    }
}

impl<'a, S: Memory, T: Element> DinInputs<'a, S, T> {
    /// Candidates, behaviours and the network that scores their pairs.
    pub fn new(
        targets: View<'a, S, T>,
        history: View<'a, S, T>,
        hidden: &'a [DinLayer<'a, S, T>],
        output_weight: View<'a, S, T>,
        output_bias: View<'a, S, f32>,
    ) -> Self {
        Self { targets, history, hidden, output_weight, output_bias }
    }
}

impl Default for Din {
    fn default() -> Self {
        Self { width: 64, pooling: DinPooling::Sum }
    }
}

impl Din {
    /// The most hidden layers there are.
    pub const MAX_HIDDEN: usize = 3;

    /// A unit over rows of `width`, without softmax.
    pub fn new(width: usize) -> Self {
        Self { width, ..Self::default() }
    }

    /// Sets how scores become weights.
    pub fn with_pooling(self, pooling: DinPooling) -> Self {
        Self { pooling, ..self }
    }

    /// `M·d`: how many numbers the output has.
    ///
    /// # Errors
    /// [`Error::Limit`] where that does not fit the address space.
    pub fn output_length(&self, batch: &Batch) -> Result<usize> {
        elements(NAME, "out", &[dim("M", batch.targets().rows()), dim("d", self.width)])
    }

    /// Checks the output against a batch.
    ///
    /// # Errors
    /// [`Error::Shape`] where it is not `[M, d]`.
    pub fn check_output(&self, batch: &Batch, out: usize) -> Result<()> {
        expect(NAME, "out", out, &[dim("M", batch.targets().rows()), dim("d", self.width)])?;
        Ok(())
    }

    /// Checks parameters and inputs against a batch.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a width of 0; [`Error::Unsupported`] for no hidden layer or more than three;
    /// [`Error::Shape`] for a buffer of the wrong size; [`Error::Limit`] for sizes beyond the address space.
    pub fn check<S: Memory, T: Element>(&self, batch: &Batch, inputs: &DinInputs<'_, S, T>) -> Result<()> {
        if self.width == 0 {
            let (expected, got) = ("at least 1".into(), "0".into());
            return Err(Error::Parameter { operation: NAME, argument: "width", expected, got });
        }
        if !(1..=Self::MAX_HIDDEN).contains(&inputs.hidden.len()) {
            return Err(Error::Unsupported {
                operation: NAME,
                what: format!("a network of {} hidden layers", inputs.hidden.len()),
                supported: "1 to 3 hidden layers".into(),
            });
        }
        let width = dim("d", self.width);
        expect(NAME, "targets", inputs.targets.len(), &[dim("M", batch.targets().rows()), width])?;
        expect(NAME, "history", inputs.history.len(), &[dim("N", batch.histories().rows()), width])?;
        let mut fan_in = [dim("4", 4), width];
        let mut shape = &fan_in[..];
        for (layer, names) in inputs.hidden.iter().zip(DIN_LAYERS) {
            let units = dim("h", layer.bias.len());
            if layer.bias.is_empty() {
                let (expected, got) = ("at least 1 element".into(), "0 elements".into());
                return Err(Error::Shape { operation: NAME, argument: names.bias, expected, got });
            }
            let weight: Vec<_> = std::iter::once(units).chain(shape.iter().copied()).collect();
            expect(NAME, names.weight, layer.weight.len(), &weight)?;
            match &layer.activation {
                Activation::Relu | Activation::Sigmoid => {}
                Activation::Prelu { alpha } if alpha.len() == 1 => {}
                Activation::Prelu { alpha } => {
                    expect(NAME, names.alpha, alpha.len(), &[units])?;
                }
                Activation::Dice { gain, shift, alpha } => {
                    expect(NAME, names.gain, gain.len(), &[units])?;
                    expect(NAME, names.shift, shift.len(), &[units])?;
                    expect(NAME, names.alpha, alpha.len(), &[units])?;
                }
            }
            fan_in[0] = units;
            shape = &fan_in[..1];
        }
        expect(NAME, "output_weight", inputs.output_weight.len(), shape)?;
        expect(NAME, "output_bias", inputs.output_bias.len(), &[dim("1", 1)])?;
        Ok(())
    }

    /// Multiplications and additions with the first layer folded: `2·L·C·(d·h₁ + h₁·h₂ + … + h + d)`, summed over
    /// users, for the units of each hidden layer.
    pub fn flops(&self, batch: &Batch, hidden: &[usize]) -> u64 {
        let fan_in = std::iter::once(&self.width).chain(hidden);
        let network: usize = fan_in.zip(hidden.iter().chain(&[1])).map(|(input, units)| input * units).sum();
        2 * batch.pairs() * (network + self.width) as u64
    }

    /// The fewest bytes to move: each behaviour, candidate and output once.
    pub fn bytes<T: Element>(&self, batch: &Batch) -> u64 {
        let rows = batch.histories().total() + 2 * batch.targets().total();
        rows as u64 * self.width as u64 * size_of::<T>() as u64
    }
}

/// How the errors name the buffers of a layer.
pub(crate) struct LayerNames {
    pub(crate) weight: &'static str,
    pub(crate) bias: &'static str,
    pub(crate) alpha: &'static str,
    pub(crate) gain: &'static str,
    pub(crate) shift: &'static str,
}

pub(crate) const DIN_LAYERS: [LayerNames; Din::MAX_HIDDEN] = [
    LayerNames {
        weight: "hidden[0].weight",
        bias: "hidden[0].bias",
        alpha: "hidden[0].activation.alpha",
        gain: "hidden[0].activation.gain",
        shift: "hidden[0].activation.shift",
    },
    LayerNames {
        weight: "hidden[1].weight",
        bias: "hidden[1].bias",
        alpha: "hidden[1].activation.alpha",
        gain: "hidden[1].activation.gain",
        shift: "hidden[1].activation.shift",
    },
    LayerNames {
        weight: "hidden[2].weight",
        bias: "hidden[2].bias",
        alpha: "hidden[2].activation.alpha",
        gain: "hidden[2].activation.gain",
        shift: "hidden[2].activation.shift",
    },
];

/// DIN's local activation unit on a device; see [`Din`].
///
/// A method that a backend does not implement answers [`Unsupported`](crate::Error::Unsupported).
pub trait DinOps: DeviceOps {
    /// DIN's local activation unit into a given output `[M, d]`; see [`Din`].
    ///
    /// # Errors
    /// Those of [`Din::check`].
    fn din_into<T: Element>(
        &self,
        op: &Din,
        batch: &Self::Batch,
        inputs: DinInputs<'_, Self::Memory, T>,
        out: ViewMut<'_, Self::Memory, T>,
    ) -> Result<()> {
        let _ = (op, batch, inputs, out);
        Err(unsupported(self, "din"))
    }

    /// DIN's local activation unit, `[M, d]`; see [`Din`].
    ///
    /// # Errors
    /// As [`din_into`](Self::din_into).
    fn din<T: Element>(
        &self,
        op: &Din,
        batch: &Self::Batch,
        inputs: DinInputs<'_, Self::Memory, T>,
    ) -> Result<Buffer<Self, T>> {
        let mut out = self.zeros(op.output_length(batch.as_ref())?)?;
        self.din_into(op, batch, inputs, self.view_mut(&mut out))?;
        Ok(out)
    }
}
