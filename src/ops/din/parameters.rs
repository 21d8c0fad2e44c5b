//! Parameters, shape rules and costs of DIN's local activation unit.

use crate::element::Element;
use crate::error::{Error, Result};
use crate::jagged::Batch;
use crate::memory::Memory;
use crate::ops::din::inputs::{Activation, DinInputs};
use crate::ops::shape::{dim, elements, expect, product, size, sum};

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
/// An empty history gives a row of zeros. With softmax, a score of `-∞` removes a behaviour, and nothing else does; a history
/// whose behaviours are all removed counts as empty. A NaN score gives NaN in the candidate's row; NaN and infinity in a
/// behaviour that is not removed count even where its weight is 0. With softmax, behaviours may have any size where the
/// network's own numbers are within `f32`; without, each partial sum must be, too.
///
/// The blocks of `W_1` for `q`, `s_l` and `q − s_l` are added up once, before any row is read: `(W_q + W_d)·q + (W_s − W_d)·s_l`. Where
/// `q` and `s_l` are large and near each other, `q − s_l` is therefore as exact as `q` and `s_l` times their weights are in `f32`, not
/// as its own size: rows of 1e5 that differ by 1 give it an error of about 1e-3. Rows of a magnitude that embeddings have, up to a
/// hundred or so, lose nothing that matters.
///
/// GPU backends take up to 256 units per hidden layer, and fewer where a layer's rows do not fit in the memory of a workgroup:
/// they answer [`Error::Limit`] with the argument's name. On [`Cpu`](crate::Cpu) there is no limit.
///
/// ```
/// use longseq::prelude::*;
/// use longseq::{Activation, Cpu, Din, DinInputs, DinLayer, DinPooling, Host, Jagged};
///
/// let backend = Cpu::new();
/// let batch = backend.batch(&Jagged::from_lengths(&[2])?, &Jagged::from_lengths(&[1])?)?;
/// let (targets, history) = ([1.0_f32], [2.0, 3.0]);
/// // One hidden unit over [q ; s ; q − s ; q ⊙ s], whose weights (PyTorch's layout, [out, in]) select q ⊙ s.
/// let (weight, bias) = ([0.0_f32, 0.0, 0.0, 1.0], [0.0]);
/// let hidden = [DinLayer::new(Host::view(&weight), Host::view(&bias), Activation::Relu)];
/// let (output_weight, output_bias) = ([1.0_f32], [0.5]);
/// let inputs = DinInputs::new(
///     Host::view(&targets),
///     Host::view(&history),
///     &hidden,
///     Host::view(&output_weight),
///     Host::view(&output_bias),
/// );
/// let op = Din::new(1).with_pooling(DinPooling::Sum);
/// let out = backend.din(&op, &batch, inputs)?;
/// assert_eq!(*out, [2.5 * 2.0 + 3.5 * 3.0]);
/// # Ok::<(), longseq::Error>(())
/// ```
///
/// Source: Zhou et al., "Deep Interest Network", KDD 2018, arXiv 1706.06978, §4.3 and eq. 3, which does not
/// normalise the weights; the published code, and many models after it, use softmax.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Din {
    /// `d`: width of a behaviour and of a candidate. Default 64.
    pub width: usize,
    /// How scores become weights. Default: the scores are the weights.
    pub pooling: DinPooling,
}

/// How the scores of one candidate become weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DinPooling {
    /// `w = a`, as in the paper.
    #[default]
    Sum,
    /// `w = softmax(a)`, as in the official code and in DIEN; weights within the range of [`Weighting::Softmax`](crate::Weighting::Softmax).
    Softmax,
}

impl Default for Din {
    fn default() -> Self {
        Self { width: 64, pooling: DinPooling::Sum }
    }
}

impl Din {
    /// The largest number of hidden layers.
    pub const MAX_HIDDEN: usize = 3;

    /// A unit over rows of `width` elements, without softmax.
    pub fn new(width: usize) -> Self {
        Self { width, ..Self::default() }
    }

    /// Sets how scores become weights.
    pub fn with_pooling(self, pooling: DinPooling) -> Self {
        Self { pooling, ..self }
    }

    /// `M·d`: the number of elements of the output.
    ///
    /// # Errors
    /// [`Error::Limit`] if it exceeds the address space.
    pub fn output_length(&self, batch: &Batch) -> Result<usize> {
        elements(NAME, "out", &[dim("M", batch.targets().rows()), dim("d", self.width)])
    }

    /// Checks the output against a batch.
    ///
    /// # Errors
    /// [`Error::Shape`] if it is not `[M, d]`.
    pub fn check_output(&self, batch: &Batch, out: usize) -> Result<()> {
        expect(NAME, "out", out, &[dim("M", batch.targets().rows()), dim("d", self.width)])?;
        Ok(())
    }

    /// Checks parameters and inputs against a batch.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a width of 0; [`Error::Unsupported`] for no hidden layer or more than three;
    /// [`Error::Shape`] for a buffer of the wrong size; [`Error::Limit`] for sizes that exceed the address space.
    pub fn check<S: Memory, T: Element>(&self, batch: &Batch, inputs: &DinInputs<'_, S, T>) -> Result<()> {
        self.check_in(NAME, batch, inputs)
    }

    /// The same for the call that is named.
    pub(crate) fn check_in<S: Memory, T: Element>(
        &self,
        operation: &'static str,
        batch: &Batch,
        inputs: &DinInputs<'_, S, T>,
    ) -> Result<()> {
        if self.width == 0 {
            let (expected, got) = ("at least 1".into(), "0".into());
            return Err(Error::Parameter { operation, argument: "width", expected, got });
        }
        if !(1..=Self::MAX_HIDDEN).contains(&inputs.hidden.len()) {
            return Err(Error::Unsupported {
                operation,
                what: format!("a network of {} hidden layers", inputs.hidden.len()),
                supported: "1 to 3 hidden layers".into(),
            });
        }
        let width = dim("d", self.width);
        expect(operation, "targets", inputs.targets.len(), &[dim("M", batch.targets().rows()), width])?;
        expect(operation, "history", inputs.history.len(), &[dim("N", batch.histories().rows()), width])?;
        let mut fan_in = [dim("4", 4), width];
        let mut shape = &fan_in[..];
        for (layer, names) in inputs.hidden.iter().zip(DIN_LAYERS) {
            let units = dim("h", layer.bias.len());
            if layer.bias.is_empty() {
                let (expected, got) = ("at least 1 element".into(), "0 elements".into());
                return Err(Error::Shape { operation, argument: names.bias, expected, got });
            }
            let weight: Vec<_> = std::iter::once(units).chain(shape.iter().copied()).collect();
            expect(operation, names.weight, layer.weight.len(), &weight)?;
            match &layer.activation {
                Activation::Relu | Activation::Sigmoid => {}
                Activation::Prelu { alpha } if alpha.len() == 1 => {}
                Activation::Prelu { alpha } => {
                    expect(operation, names.alpha, alpha.len(), &[units])?;
                }
                Activation::Dice { gain, shift, alpha } => {
                    expect(operation, names.gain, gain.len(), &[units])?;
                    expect(operation, names.shift, shift.len(), &[units])?;
                    expect(operation, names.alpha, alpha.len(), &[units])?;
                }
            }
            fan_in[0] = units;
            shape = &fan_in[..1];
        }
        expect(operation, "output_weight", inputs.output_weight.len(), shape)?;
        expect(operation, "output_bias", inputs.output_bias.len(), &[dim("1", 1)])?;
        Ok(())
    }

    /// Multiplications and additions with the first layer folded: `2·L·C·(d·h₁ + h₁·h₂ + … + h + d)`, summed over users.
    /// `hidden` has the number of units of each hidden layer. This and the other counts are at most `u64::MAX`.
    pub fn flops(&self, batch: &Batch, hidden: &[usize]) -> u64 {
        let fan_in = std::iter::once(&self.width).chain(hidden);
        let layers = fan_in.zip(hidden.iter().chain(&[1]));
        let network = sum(layers.map(|(&input, &units)| product(&[input as u64, units as u64])));
        product(&[2, batch.pairs(), sum([network, self.width as u64])])
    }

    /// The fewest bytes to move: each behaviour, candidate and output once.
    pub fn bytes<T: Element>(&self, batch: &Batch) -> u64 {
        let rows =
            sum([batch.histories().total_length() as u64, product(&[2, batch.targets().total() as u64])]);
        product(&[rows, self.width as u64, size::<T>()])
    }
}

/// The names of a layer's buffers in errors.
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
