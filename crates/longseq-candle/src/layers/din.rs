//! DIN's local activation unit with its weights.

use candle_core::{Result, Tensor, Var};
use candle_nn::{Init, VarBuilder};
use longseq::{Activation, Din};

use crate::din::{DinLayerTensors, DinTensors, fold_dice};
use crate::handle::{Batch, Longseq};
use crate::place::Place;

/// How much of a new batch's statistics goes into the running ones.
const MOMENTUM: f64 = 0.1;
/// Added to Dice's variance.
const EPSILON: f64 = 1e-8;

/// The activation of the hidden layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DinActivation {
    /// `max(x, 0)`.
    Relu,
    /// `σ(x)`.
    Sigmoid,
    /// With one learnt slope, `alpha` `[1]`, at first 0.25.
    Prelu,
    /// With learnt slopes, `alpha` `[h]`, at first 0, and running statistics, `running_mean` and `running_var` `[h]`.
    Dice,
}

/// DIN's local activation unit: a network scores each pair of a candidate and a behaviour, and weighs the behaviours.
///
/// Formula: [`Din`]. Weights: `hidden.0.weight` `[h, 4d]`, `hidden.0.bias` `[h]` and what the activation has, the same of up to three layers, and
/// `output.weight` `[1, h]`, `output.bias` `[1]`. All of them but Dice's statistics get gradients, as do candidates and behaviours.
///
/// **Dice in training** normalises by mean and variance of the batch's pairs, and moves the running statistics by a tenth towards them (with the
/// unbiased variance, as PyTorch's batch normalisation does); otherwise it uses the running ones. Gradients go through the statistics of the batch, too,
/// as in PyTorch's; see [`Longseq::din_statistics`] for what that costs. (Published codes also count padded behaviours in them; here there are none.)
///
/// Source: Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018, arXiv 1706.06978, §4.3 (the unit) and eq. 3
/// (Dice, without γ and β, as in the codes of FuxiCTR and deepctr-torch).
pub struct DinLayer {
    op: Din,
    hidden: Vec<Hidden>,
    output_weight: Tensor,
    output_bias: Tensor,
}

struct Hidden {
    weight: Tensor,
    bias: Tensor,
    activation: Learnt,
}

/// An activation with what it has.
enum Learnt {
    Relu,
    Sigmoid,
    Prelu(Tensor),
    Dice { alpha: Tensor, mean: Var, variance: Var },
}

/// Gain, shift and alpha of Dice, of the layers that have it.
type Folded = Option<[Tensor; 3]>;

impl DinLayer {
    /// A unit whose hidden layers have so many units each.
    ///
    /// # Errors
    /// Those of candle, such as a weight that the builder has not.
    pub fn new(op: Din, units: &[usize], activation: DinActivation, builder: VarBuilder<'_>) -> Result<Self> {
        let mut hidden = Vec::with_capacity(units.len());
        let mut fan_in = op.width.saturating_mul(4);
        let uniform = |fan_in: usize| {
            let bound = 1.0 / (fan_in as f64).sqrt();
            Init::Uniform { lo: -bound, up: bound }
        };
        let init = candle_nn::init::DEFAULT_KAIMING_NORMAL;
        for (index, &units) in units.iter().enumerate() {
            let builder = builder.pp("hidden").pp(index);
            let get = |name, value| builder.get_with_hints(units, name, Init::Const(value));
            let variable = |name, value| Var::from_tensor(&get(name, value)?);
            hidden.push(Hidden {
                weight: builder.get_with_hints((units, fan_in), "weight", init)?,
                bias: builder.get_with_hints(units, "bias", uniform(fan_in))?,
                activation: match activation {
                    DinActivation::Relu => Learnt::Relu,
                    DinActivation::Sigmoid => Learnt::Sigmoid,
                    DinActivation::Prelu => {
                        Learnt::Prelu(builder.get_with_hints(1, "alpha", Init::Const(0.25))?)
                    }
                    DinActivation::Dice => Learnt::Dice {
                        alpha: get("alpha", 0.0)?,
                        mean: variable("running_mean", 0.0)?,
                        variance: variable("running_var", 1.0)?,
                    },
                },
            });
            fan_in = units;
        }
        let builder = builder.pp("output");
        let output_weight = builder.get_with_hints((1, fan_in), "weight", init)?;
        let output_bias = builder.get_with_hints(1, "bias", uniform(fan_in))?;
        Ok(Self { op, hidden, output_weight, output_bias })
    }

    /// The interest of each candidate's user in it, `[M, d]`, from candidates `[M, d]` and behaviours `[N, d]`.
    ///
    /// # Errors
    /// Those of [`Longseq::din`].
    pub fn forward<B: Place>(
        &self,
        longseq: &Longseq<B>,
        batch: &Batch<B>,
        targets: &Tensor,
        history: &Tensor,
    ) -> Result<Tensor> {
        self.forward_t(longseq, batch, targets, history, false)
    }

    /// The same in training, which matters to Dice alone.
    ///
    /// # Errors
    /// Those of [`Longseq::din`].
    pub fn forward_t<B: Place>(
        &self,
        longseq: &Longseq<B>,
        batch: &Batch<B>,
        targets: &Tensor,
        history: &Tensor,
        train: bool,
    ) -> Result<Tensor> {
        let mut folded: Vec<Folded> = Vec::with_capacity(self.hidden.len());
        for hidden in &self.hidden {
            folded.push(hidden.folded()?);
        }
        let pairs = batch.batch().pairs() as f64;
        // The statistics of a layer depend on the layers before it.
        for (index, hidden) in self.hidden.iter().enumerate() {
            let Learnt::Dice { alpha, mean, variance } = &hidden.activation else { continue };
            if !train || pairs == 0.0 {
                continue;
            }
            let layers = self.layers(&folded)?;
            let tensors = self.tensors(targets, history, &layers);
            let (of_batch, squares) = longseq.din_statistics(&self.op, batch, tensors, index)?;
            let dtype = mean.dtype();
            let (of_batch, squares) = (of_batch.to_dtype(dtype)?, squares.to_dtype(dtype)?);
            let (gain, shift) = fold_dice(&of_batch, &(&squares / pairs)?, EPSILON, None, None)?;
            folded[index] = Some([gain, shift, alpha.clone()]);
            move_towards(mean, &of_batch.detach())?;
            move_towards(variance, &(squares.detach() / (pairs - 1.0).max(1.0))?)?;
        }
        let layers = self.layers(&folded)?;
        longseq.din(&self.op, batch, self.tensors(targets, history, &layers))
    }

    fn layers<'a>(&'a self, folded: &'a [Folded]) -> Result<Vec<DinLayerTensors<'a>>> {
        let layer = |(hidden, folded): (&'a Hidden, &'a Folded)| {
            let activation = match (&hidden.activation, folded) {
                (Learnt::Relu, _) => Activation::Relu,
                (Learnt::Sigmoid, _) => Activation::Sigmoid,
                (Learnt::Prelu(alpha), _) => Activation::Prelu { alpha },
                (Learnt::Dice { .. }, Some([gain, shift, alpha])) => Activation::Dice { gain, shift, alpha },
                (Learnt::Dice { .. }, None) => candle_core::bail!("DinLayer: Dice without statistics"),
            };
            Ok(DinLayerTensors::new(&hidden.weight, &hidden.bias, activation))
        };
        self.hidden.iter().zip(folded).map(layer).collect()
    }

    fn tensors<'a>(
        &'a self,
        targets: &'a Tensor,
        history: &'a Tensor,
        layers: &'a [DinLayerTensors<'a>],
    ) -> DinTensors<'a> {
        DinTensors::new(targets, history, layers, &self.output_weight, &self.output_bias)
    }
}

impl Hidden {
    /// Dice with the running statistics, which have no gradients.
    fn folded(&self) -> Result<Folded> {
        let Learnt::Dice { alpha, mean, variance } = &self.activation else { return Ok(None) };
        let (mean, variance) = (mean.as_detached_tensor(), variance.as_detached_tensor());
        let (gain, shift) = fold_dice(&mean, &variance, EPSILON, None, None)?;
        Ok(Some([gain, shift, alpha.clone()]))
    }
}

/// Moves a running statistic towards that of a batch.
fn move_towards(running: &Var, of_batch: &Tensor) -> Result<()> {
    let kept = (running.as_detached_tensor() * (1.0 - MOMENTUM))?;
    running.set(&kept.add(&(of_batch * MOMENTUM)?)?)
}
