//! The click model around a system: embeddings, a tower, an item's own bias.

use candle_core::{Device, Result, Tensor};
use candle_nn::{AdamW, Init, Linear, Module, Optimizer, PReLU, ParamsAdamW, linear, prelu};
use longseq::Optimiser;
use longseq_candle::Longseq;

use crate::contents::Contents;
use crate::inputs::{Inputs, Padded, rows};
use crate::samples::Sample;
use crate::systems::{Interest, Sizes, System};
use crate::table::Table;
use crate::weights::Weights;

/// Units of the tower's hidden layer.
const UNITS: usize = 64;
/// The name of the items' biases.
const BIAS: &str = "bias";

/// What computes a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    /// longseq's operations on jagged batches, tables with sparse gradients.
    Longseq,
    /// candle's own operations on padded batches.
    Eager,
}

/// With `q` a candidate's embedding and `u` its user's interest in it, from the system, the log-odds of a click are
/// `tower([q ; u ; q ⊙ u]) + bias[candidate]`, where the tower has one hidden layer with PReLU.
pub(crate) struct Model {
    pub(crate) system: System,
    pub(crate) weights: Weights,
    sizes: Sizes,
    longseq: Longseq,
    items: Table,
    bias: Table,
    interest: Box<dyn Interest>,
    first: Linear,
    slope: PReLU,
    last: Linear,
}

impl Model {
    /// A model with its first weights; `contents` are for systems that read them.
    pub(crate) fn new(system: System, sizes: Sizes, contents: Option<&Contents>, seed: u64) -> Result<Self> {
        let weights = Weights::new(seed);
        let builder = weights.builder();
        Ok(Self {
            system,
            sizes,
            longseq: Longseq::cpu(),
            items: Table::new(&weights, "items", sizes.items, sizes.width)?,
            bias: Table::with(&weights, BIAS, (sizes.items, 1), Init::Const(0.0))?,
            interest: system.build(sizes, contents, &weights)?,
            first: linear(3 * sizes.width, UNITS, builder.pp("first"))?,
            slope: prelu(None, builder.pp("slope"))?,
            last: linear(UNITS, 1, builder.pp("last"))?,
            weights,
        })
    }

    pub(crate) fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// All embedding tables.
    pub(crate) fn tables(&self) -> Vec<&Table> {
        let mut tables = vec![&self.items, &self.bias];
        tables.extend(self.interest.tables());
        tables
    }

    /// Rounds the tables to what `f16` can hold, as a file does.
    pub(crate) fn round_tables(&self) -> Result<()> {
        self.tables().into_iter().try_for_each(|table| table.round(&self.weights))
    }

    /// The log-odds of a click for each candidate, `[M]`.
    pub(crate) fn forward(&self, sample: &Sample, engine: Engine) -> Result<Tensor> {
        let short;
        let sample = match self.system.newest() {
            usize::MAX => sample,
            newest => {
                short = sample.newest(newest);
                &short
            }
        };
        let (targets, interest, bias) = match engine {
            Engine::Longseq => {
                let inputs = Inputs::new(&self.longseq, &self.items, sample)?;
                let interest = self.interest.ours(&inputs)?;
                (inputs.targets, interest, rows(&self.longseq, &self.bias, &inputs.target_ids)?)
            }
            Engine::Eager => {
                let padded = Padded::new(&self.items, sample)?;
                let interest = self.interest.eager(&padded)?;
                let flat = (sample.targets.len(), padded.targets.dim(2)?);
                let bias = self.bias.values().index_select(&padded.target_ids, 0)?;
                (padded.targets.reshape(flat)?, interest.reshape(flat)?, bias)
            }
        };
        let x = Tensor::cat(&[&targets, &interest, &targets.mul(&interest)?], 1)?;
        let x = self.last.forward(&self.slope.forward(&self.first.forward(&x)?)?)?;
        x.add(&bias)?.squeeze(1)
    }
}

/// The mean binary cross-entropy of log-odds: `max(x, 0) − x·y + log(1 + exp(−|x|))`, which is finite for all of them (candle-nn's takes the
/// logarithm of a sigmoid, which rounds to 0 or 1).
pub(crate) fn loss(logits: &Tensor, clicks: &[f32]) -> Result<Tensor> {
    let clicks = Tensor::from_slice(clicks, clicks.len(), &Device::Cpu)?;
    let rest = (logits.abs()?.neg()?.exp()? + 1.0)?.log()?;
    logits.relu()?.sub(&logits.mul(&clicks)?)?.add(&rest)?.mean_all()
}

/// How fast a model learns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    /// Of dense weights.
    pub(crate) dense: f64,
    /// Of tables.
    pub(crate) tables: f32,
    /// Of the rows of tables that a step has met, but not of the items' biases: how much of them, times the rate, is lost.
    pub(crate) decay: f32,
}

/// A model that is trained: dense weights by candle's AdamW, tables by their own lazy Adam.
pub(crate) struct Trainer {
    pub(crate) model: Model,
    engine: Engine,
    dense: AdamW,
    rates: Rates,
    /// Of the rates, in the next step.
    share: f64,
    step: u64,
}

impl Trainer {
    pub(crate) fn new(model: Model, engine: Engine, rates: Rates) -> Result<Self> {
        // candle's optimiser would keep moments as large as the tables.
        let is_table = |name: &str| model.tables().iter().any(|table| table.name() == name);
        let named = model.weights.named().into_iter();
        let dense = named.filter(|(name, _)| engine == Engine::Eager || !is_table(name));
        let dense = dense.map(|(_, var)| var).collect();
        let params = ParamsAdamW { lr: rates.dense, weight_decay: 0.0, ..ParamsAdamW::default() };
        let dense = AdamW::new(dense, params)?;
        Ok(Self { model, engine, dense, rates, share: 1.0, step: 0 })
    }

    /// Lets both rates be this share of what they began as, for the steps to come.
    pub(crate) fn scale_rates(&mut self, share: f64) {
        self.share = share;
        self.dense.set_learning_rate(share * self.rates.dense);
    }

    /// A step of training; returns the loss.
    ///
    /// # Errors
    /// Those of the operations; a loss that is not finite.
    pub(crate) fn step(&mut self, sample: &Sample) -> Result<f32> {
        self.step += 1;
        let loss = loss(&self.model.forward(sample, self.engine)?, &sample.clicks)?;
        let value = loss.to_scalar::<f32>()?;
        if !value.is_finite() {
            candle_core::bail!("the loss of step {} is {value}: try smaller rates", self.step);
        }
        self.dense.backward_step(&loss)?;
        if self.engine == Engine::Longseq {
            for table in self.model.tables() {
                let decay = if table.name() == BIAS { 0.0 } else { self.rates.decay };
                let rate = self.share as f32 * self.rates.tables;
                let optimiser = Optimiser::adam(rate, self.step).with_weight_decay(decay);
                table.sparse().step(&optimiser)?;
            }
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Seeded;

    const SIZES: Sizes = Sizes { items: 30, width: 8, history: 40 };

    /// Users with histories of 1 to 40 behaviours and three candidates each.
    fn sample() -> Sample {
        let (mut sample, mut random) = (Sample::default(), Seeded::new(5));
        for length in [3, 40, 1, 25] {
            let history: Vec<u32> = (0..length).map(|_| random.below(SIZES.items) as u32).collect();
            let candidate = |place: usize, random: &mut Seeded| {
                (random.below(SIZES.items) as u32, if place == 0 { 1.0 } else { 0.0 })
            };
            let candidates: Vec<_> = (0..3).map(|place| candidate(place, &mut random)).collect();
            sample.push(&history, &candidates);
        }
        sample
    }

    /// A model whose weights are large enough for attention to tell behaviours apart.
    fn model(system: System) -> Model {
        let mut random = Seeded::new(9);
        let codes = (0..SIZES.items * 16).map(|_| random.below(256) as u8).collect();
        let contents = Contents::new(codes, SIZES.items, 16).unwrap();
        let model = Model::new(system, SIZES, Some(&contents), 3).unwrap();
        for table in model.tables() {
            let var = model.weights.var(table.name()).unwrap();
            var.set(&(var.as_detached_tensor() * 10.0).unwrap()).unwrap();
        }
        model
    }

    fn flat(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[track_caller]
    fn assert_near(what: &str, got: &[f32], exact: &[f32]) {
        let largest = exact.iter().fold(1e-2f32, |largest, x| largest.max(x.abs()));
        assert_eq!(got.len(), exact.len(), "{what}");
        for (got, exact) in got.iter().zip(exact) {
            assert!((got - exact).abs() <= 1e-4 * largest, "{what}: {got}, exact {exact}");
        }
    }

    #[test]
    fn both_engines_compute_the_same_model_and_gradients() {
        let sample = sample();
        for system in System::ALL {
            let model = model(system);
            let [ours, eager] = [Engine::Longseq, Engine::Eager].map(|engine| {
                let logits = model.forward(&sample, engine).unwrap();
                let grads = loss(&logits, &sample.clicks).unwrap().backward().unwrap();
                (flat(&logits), grads)
            });
            assert_near(system.name(), &ours.0, &eager.0);
            for (name, var) in model.weights.named() {
                let exact = eager.1.get(&var).map(flat);
                let got = match model.tables().iter().find(|table| table.name() == name) {
                    // Rows that were not read have no gradient.
                    Some(table) => table.sparse().gradient().unwrap().map(|gradient| {
                        let width = var.dims()[1];
                        let mut dense = vec![0.0; var.elem_count()];
                        for (&id, row) in gradient.ids.iter().zip(gradient.rows.chunks(width)) {
                            dense[id as usize * width..][..width].copy_from_slice(row);
                        }
                        dense
                    }),
                    None => ours.1.get(&var).map(flat),
                };
                match (got, exact) {
                    (Some(got), Some(exact)) => {
                        assert_near(&format!("{}: {name}", system.name()), &got, &exact)
                    }
                    (None, None) => assert_eq!(name, "interest.rotations"),
                    (got, _) => panic!("{}: {name} has a gradient in one engine: {got:?}", system.name()),
                }
            }
        }
    }

    #[test]
    fn the_loss_is_that_of_the_definition_and_finite_everywhere() {
        let of = |logits: &[f32], clicks: &[f32]| {
            let logits = Tensor::from_slice(logits, logits.len(), &Device::Cpu).unwrap();
            loss(&logits, clicks).unwrap().to_scalar::<f32>().unwrap()
        };
        // −log σ(1) and −log(1 − σ(1)).
        assert!((of(&[1.0], &[1.0]) - 0.313_261_7).abs() < 1e-6);
        assert!((of(&[1.0], &[0.0]) - 1.313_261_7).abs() < 1e-6);
        assert!((of(&[0.0, 0.0], &[1.0, 0.0]) - std::f32::consts::LN_2).abs() < 1e-6);
        assert_eq!(of(&[200.0, -200.0], &[1.0, 0.0]), 0.0);
        assert_eq!(of(&[200.0, -200.0], &[0.0, 1.0]), 200.0);
    }

    #[test]
    fn a_step_lowers_the_loss_and_changes_tables_in_place() {
        let (sample, rates) = (sample(), Rates { dense: 0.01, tables: 0.01, decay: 0.0 });
        for (system, engine) in [(System::Dare, Engine::Longseq), (System::Tin, Engine::Eager)] {
            let mut trainer = Trainer::new(model(system), engine, rates).unwrap();
            let before = flat(trainer.model.items.values());
            let losses: Vec<f32> = (0..30).map(|_| trainer.step(&sample).unwrap()).collect();
            assert!(losses[29] < 0.7 * losses[0], "{losses:?}");
            assert_ne!(flat(trainer.model.items.values()), before);
        }
    }

    #[test]
    fn the_last_twenty_are_all_that_their_system_reads() {
        let (model, sample) = (model(System::LastTwenty), sample());
        let mut other = sample.clone();
        // The first of the 40 behaviours of the second user.
        other.history[3] = (other.history[3] + 1) % SIZES.items as u32;
        let scores = |sample: &Sample| flat(&model.forward(sample, Engine::Longseq).unwrap());
        assert_eq!(scores(&sample), scores(&other));
        // The last of them.
        other.history[42] = (other.history[42] + 1) % SIZES.items as u32;
        assert_ne!(scores(&sample), scores(&other));
    }
}
