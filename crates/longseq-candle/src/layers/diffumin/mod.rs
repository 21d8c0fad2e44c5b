//! DiffuMIN: interest channels, a diffusion module that generates interests like them, and a contrastive loss.

mod axes;
mod contrast;
mod denoiser;
mod noise;
mod schedule;

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::{Linear, Module, VarBuilder, linear_no_bias};
use longseq::InterestChannels;

pub use noise::DiffuMinNoise;

use self::axes::{right_angles, units};
use self::contrast::Contrast;
use self::denoiser::Denoiser;
use self::schedule::{Schedule, column};
use super::sides;
use crate::error::wrong;
use crate::handle::{Batch, Longseq};
use crate::interest_channels::InterestChannelsTensors;
use crate::place::Place;

const NAME: &str = "DiffuMinLayer";

/// Parameters of [`DiffuMinLayer`]. The defaults are those of the published configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct DiffuMin {
    /// The extractor: width `d`, channels `c`, what a channel keeps. Its rows are not normalised.
    pub channels: InterestChannels,
    /// The heads of a denoiser's attention; they divide `d`. Default 2.
    pub heads: usize,
    /// The denoiser's blocks. Default 2.
    pub blocks: usize,
    /// The units of a block's feed-forward layer, as a multiple of `d`. Default 3.
    pub feed_forward: usize,
    /// `T`: the levels of noise. Default 1000.
    pub timesteps: usize,
    /// `S`: the level that generation begins at, and its steps. Default 10.
    pub steps: usize,
    /// The first and the last `β`; those between lie on a line. Default 0.0001 and 0.02.
    pub betas: (f64, f64),
    /// `τ`, which similarities are divided by in the contrastive loss. Default 0.05.
    pub temperature: f64,
}

impl DiffuMin {
    /// The published configuration around an extractor.
    pub fn new(channels: InterestChannels) -> Self {
        Self {
            channels,
            heads: 2,
            blocks: 2,
            feed_forward: 3,
            timesteps: 1000,
            steps: 10,
            betas: (1e-4, 0.02),
            temperature: 0.05,
        }
    }

    /// Sets the heads of the denoiser's attention.
    pub fn with_heads(self, heads: usize) -> Self {
        Self { heads, ..self }
    }

    /// Sets the number of the denoiser's blocks.
    pub fn with_blocks(self, blocks: usize) -> Self {
        Self { blocks, ..self }
    }

    /// Sets the levels of noise, and the level that generation begins at.
    pub fn with_steps(self, timesteps: usize, steps: usize) -> Self {
        Self { timesteps, steps, ..self }
    }

    /// Sets the temperature of the contrastive loss.
    pub fn with_temperature(self, temperature: f64) -> Self {
        Self { temperature, ..self }
    }

    /// Checks the parameters of the diffusion and of the loss; those of the extractor are checked in its call.
    fn validate(&self) -> Result<()> {
        let refused = |argument, expected: String, got: String| Err(wrong(NAME, argument, expected, got));
        let width = self.channels.width;
        if self.heads == 0 || !width.is_multiple_of(self.heads) {
            let got = self.heads.to_string();
            return refused("heads", format!("a divisor of the width of {width}"), got);
        }
        if self.channels.normalise {
            let got = "true".to_owned();
            return refused("channels.normalise", "false: rows of length 1 are made here".to_owned(), got);
        }
        let sizes = [("blocks", self.blocks), ("feed_forward", self.feed_forward), ("steps", self.steps)];
        for (argument, size) in sizes {
            if size == 0 {
                return refused(argument, "at least 1".to_owned(), "0".to_owned());
            }
        }
        if self.steps > self.timesteps {
            let got = self.steps.to_string();
            return refused("steps", format!("at most timesteps = {}", self.timesteps), got);
        }
        let (first, last) = self.betas;
        if !(first > 0.0 && first <= last && last < 1.0) {
            let got = format!("{first} and {last}");
            return refused("betas", "rising, above 0 and below 1".to_owned(), got);
        }
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return refused("temperature", "above 0".to_owned(), self.temperature.to_string());
        }
        Ok(())
    }
}

/// DiffuMIN's multi-interest network: what a user likes of what a candidate is about, in channels at right angles to each other; a diffusion module
/// that generates interests like these; and the loss that keeps the generated ones near the user's own.
///
/// For a candidate `t` and its user's behaviours:
///
/// ```text
/// M = reshape(W·t)                          the candidate's c axes; O: the same at right angles
/// r_i                                       interest channels, formula of InterestChannels
/// r̂_i = r_i/‖r_i‖
/// x_n = √ᾱ_n·r̂_i + √(1 − ᾱ_n)·ε             noise of level n; ᾱ_n = Π_{k ≤ n} (1 − β_k)
/// f(x, n, r̂_{j ≠ i}, O_i)                    the denoiser: r̂_i again, from x, the other channels as context, and the axis
/// r*_i                                      from x_{S−1}, for n from S − 1 down to 0:  x ← a_n·f(x, n, …) + b_n·x + σ_n·ε
/// diffusion   = mean ‖f(x_n, n, …) − r̂_i‖²/d                                   n drawn from 0 to T − 1
/// contrastive = mean −ln (exp(⟨g(r̂_i), h(r*_i)⟩/τ) / Σ_others exp(⟨g(r̂_i), h(r*_i')⟩/τ))
/// ```
///
/// with DDPM's `a_n`, `b_n` and `σ_n` (posterior of `x_{n−1}` given `x_n` and the clean row); the denoiser is a transformer over the candidate's channels
/// with an embedding of `n` added to its rows: blocks of self-attention, the axis, and a feed-forward layer, each with a residual and layer
/// normalisation. `g` and `h` are networks of one hidden layer whose results have length 1; the others are the candidate itself and those of other
/// users.
///
/// A model reads `[t, r, r*]` and adds `0.01·diffusion + 0.001·contrastive` to its loss (the published weights).
///
/// **Noise** is the caller's ([`DiffuMinNoise::draw`] with a seed of each step), so that results can be had again. Without it, as in serving, `ε` is 0.
/// Generation costs `S` passes of the denoiser in the graph. Weights and rows are of `f32`.
///
/// **Weights.** `axes.weight` `[c·d, d]`; `denoiser.time.{0,1}`; `denoiser.blocks.N.{query, key, value, output, condition_value, condition_output}.weight`
/// `[d, d]`, `.feed.{0,1}` and `.norms.{0,1,2}`; `contrast.own.{0,1}` and `contrast.generated.{0,1}`. All get gradients from the result or from the losses, as do candidates and
/// behaviours. Attention to a single axis has the weight 1 whatever query and key are, so these are left out of it.
///
/// Source: Lai et al., "Modeling Long-term User Behaviors with Diffusion-driven Multi-interest Network for CTR Prediction" (DiffuMIN), RecSys 2025, arXiv
/// 2508.15311: the extractor (OMIE), the generator (DMIG), the calibrator (CMIC). Where the published code cannot be meant, this differs: it trains the
/// denoiser to give the clean row and then takes the same output for the noise; it adds noise of any level up to `T` and begins to
/// remove it at level `S`; it makes its short-term transformer of the denoiser's blocks (there is none here: it is a layer of its own). Two
/// candidates of one user are no negatives of each other here, and users without behaviours count in no loss.
pub struct DiffuMinLayer {
    op: DiffuMin,
    axes: Linear,
    schedule: Schedule,
    denoiser: Denoiser,
    contrast: Contrast,
}

/// What [`DiffuMinLayer`] makes of a history.
#[derive(Debug, Clone)]
pub struct DiffuMinInterests {
    /// `r`: `[M, c, d]`.
    pub interests: Tensor,
    /// `r*`: `[M, c, d]`.
    pub generated: Tensor,
    /// `r̂`: `[M, c, d]`.
    units: Tensor,
    /// `O`: `[M, c, d]`.
    channels: Tensor,
}

/// The losses of [`DiffuMinLayer`], numbers in the graph.
#[derive(Debug, Clone)]
pub struct DiffuMinLosses {
    /// Of the denoiser.
    pub diffusion: Tensor,
    /// Between generated interests and the user's own.
    pub contrastive: Tensor,
}

impl DiffuMinLosses {
    /// `0.01·diffusion + 0.001·contrastive`: the published weights.
    ///
    /// # Errors
    /// Those of candle.
    pub fn weighted(&self) -> Result<Tensor> {
        (&self.diffusion * 0.01)?.add(&(&self.contrastive * 0.001)?)
    }
}

impl DiffuMinInterests {
    /// `[M, 2·c·d]`: a candidate's interests and the generated ones, for the next layer.
    ///
    /// # Errors
    /// Those of candle.
    pub fn joined(&self) -> Result<Tensor> {
        Tensor::cat(&[self.interests.flatten_from(1)?, self.generated.flatten_from(1)?], 1)
    }
}

impl DiffuMinLayer {
    /// A layer over rows of `op.channels.width` numbers, of `f32`.
    ///
    /// # Errors
    /// Parameters out of their range; a builder of another type; those of candle, such as a weight that the builder has not.
    pub fn new(op: DiffuMin, builder: VarBuilder<'_>) -> Result<Self> {
        op.validate()?;
        if builder.dtype() != DType::F32 {
            return Err(wrong(NAME, "builder", "weights of f32", builder.dtype().as_str()));
        }
        let (width, channels) = (op.channels.width, op.channels.channels);
        Ok(Self {
            op,
            axes: linear_no_bias(width, channels * width, builder.pp("axes"))?,
            schedule: Schedule::new(&op),
            denoiser: Denoiser::new(&op, builder.pp("denoiser"))?,
            contrast: Contrast::new(&op, builder.pp("contrast"))?,
        })
    }

    /// Interests and generated interests, from candidates `[M, d]` and behaviours `[N, d]`.
    ///
    /// # Errors
    /// Candidates or behaviours of another shape or type; noise for another number of candidates; those of [`Longseq::interest_channels`].
    pub fn forward<B: Place>(
        &self,
        longseq: &Longseq<B>,
        batch: &Batch<B>,
        targets: &Tensor,
        history: &Tensor,
        noise: Option<&DiffuMinNoise>,
    ) -> Result<DiffuMinInterests> {
        let op = &self.op.channels;
        let [targets, history] = sides(NAME, batch, (op.width, DType::F32), targets, history)?;
        let rows = targets.dim(0)?;
        noise.map_or(Ok(()), |noise| noise.check(&self.op, rows))?;
        if rows == 0 {
            let none = Tensor::zeros((0, op.channels, op.width), DType::F32, &Device::Cpu)?;
            let [interests, generated, units, channels] = std::array::from_fn(|_| none.clone());
            return Ok(DiffuMinInterests { interests, generated, units, channels });
        }
        let axes = self.axes.forward(&targets)?.reshape((rows, op.channels, op.width))?;
        let interests =
            longseq.interest_channels(op, batch, InterestChannelsTensors::new(&axes, &history))?;
        let (units, channels) = (units(&interests)?, right_angles(&axes)?);
        let generated = self.generate(&units, &channels, noise)?;
        Ok(DiffuMinInterests { interests, generated, units, channels })
    }

    /// The losses of what [`forward`](Self::forward) made of the same batch.
    ///
    /// # Errors
    /// Interests or noise for another number of candidates; those of candle.
    pub fn losses<B: Place>(
        &self,
        batch: &Batch<B>,
        interests: &DiffuMinInterests,
        noise: &DiffuMinNoise,
    ) -> Result<DiffuMinLosses> {
        let (rows, expected) = (interests.units.dim(0)?, batch.batch().targets().rows());
        if rows != expected {
            return Err(wrong(
                NAME,
                "interests",
                format!("those of {expected} candidates"),
                format!("of {rows}"),
            ));
        }
        noise.check(&self.op, rows)?;
        let owners = owners(batch.batch());
        if owners.iter().all(Option::is_none) {
            let zero = Tensor::zeros((), DType::F32, &Device::Cpu)?;
            return Ok(DiffuMinLosses { diffusion: zero.clone(), contrastive: zero });
        }
        let (units, generated) = (&interests.units, &interests.generated);
        Ok(DiffuMinLosses {
            diffusion: self.diffusion(interests, &owners, noise)?,
            contrastive: self.contrast.loss(units, generated, &owners, self.op.temperature)?,
        })
    }

    /// The mean squared error of the denoiser over candidates that count.
    fn diffusion(
        &self,
        interests: &DiffuMinInterests,
        owners: &[Option<usize>],
        noise: &DiffuMinNoise,
    ) -> Result<Tensor> {
        let places = Places::new(&interests.units, &interests.channels)?;
        let levels = noise.levels();
        let (signal, deviation) = self.schedule.noised(levels);
        let clean = interests.units.reshape(((), self.op.channels.width))?;
        let noisy = clean.broadcast_mul(&column(&signal)?)?;
        let noisy = noisy.add(&noise.training().broadcast_mul(&column(&deviation)?)?)?;
        let times = self.denoiser.times(levels)?;
        let error = self.clean(&places, &noisy, &times)?.sub(&clean)?.sqr()?.mean(D::Minus1)?;
        let of_candidates = error.reshape((owners.len(), ()))?.mean(D::Minus1)?;
        counted_mean(&of_candidates, owners)
    }

    /// `r*`, from noise of level `S − 1` on.
    fn generate(&self, units: &Tensor, channels: &Tensor, noise: Option<&DiffuMinNoise>) -> Result<Tensor> {
        let places = Places::new(units, channels)?;
        let last = self.op.steps - 1;
        let (signal, deviation) = self.schedule.noised(&[last as u32]);
        let mut rows = (units.reshape(((), self.op.channels.width))? * f64::from(signal[0]))?;
        if let Some(noise) = noise {
            rows = rows.add(&(noise.generation(0)? * f64::from(deviation[0]))?)?;
        }
        for level in (0..=last).rev() {
            let clean = self.clean(&places, &rows, &self.denoiser.times(&[level as u32])?)?;
            let [of_clean, of_rows, deviation] = self.schedule.posterior(level);
            rows = (clean * of_clean)?.add(&(rows * of_rows)?)?;
            if let (Some(noise), true) = (noise, level > 0) {
                rows = rows.add(&(noise.generation(self.op.steps - level)? * deviation)?)?;
            }
        }
        rows.reshape(units.shape())
    }

    /// The denoiser's idea of the clean rows `[M·c, d]`, each among the other channels of its candidate, which are clean.
    fn clean(&self, places: &Places, rows: &Tensor, times: &Tensor) -> Result<Tensor> {
        let own = rows.unsqueeze(1)?.broadcast_mul(&places.own)?;
        let out = self.denoiser.forward(&places.others.add(&own)?, &places.axes, times)?;
        out.broadcast_mul(&places.own)?.sum(1)
    }
}

/// For each channel of each candidate, `M·c` in all: what the denoiser reads with it.
struct Places {
    /// `[M·c, c, d]`: the candidate's channels, zeros in the channel's own place.
    others: Tensor,
    /// `[M·c, c, 1]`: 1 in the channel's own place.
    own: Tensor,
    /// `[M·c, 1, d]`: its axis.
    axes: Tensor,
}

impl Places {
    fn new(units: &Tensor, channels: &Tensor) -> Result<Self> {
        let (m, c, d) = units.dims3()?;
        let own = Tensor::eye(c, units.dtype(), units.device())?.reshape((1, c, c, 1))?;
        let others = units.unsqueeze(1)?.broadcast_mul(&own.affine(-1.0, 1.0)?)?;
        Ok(Self {
            others: others.reshape((m * c, c, d))?,
            own: own.broadcast_as((m, c, c, 1))?.reshape((m * c, c, 1))?,
            axes: channels.reshape((m * c, 1, d))?,
        })
    }
}

/// The user of each candidate, if the user has behaviours.
fn owners(batch: &longseq::Batch) -> Vec<Option<usize>> {
    let mut owners = vec![None; batch.targets().rows()];
    for (user, (history, targets)) in batch.requests().enumerate() {
        if !history.is_empty() {
            owners[targets].fill(Some(user));
        }
    }
    owners
}

/// The mean of a number of each candidate, `[M]`, over those that count.
fn counted_mean(of_candidates: &Tensor, owners: &[Option<usize>]) -> Result<Tensor> {
    let weights: Vec<f32> = owners.iter().map(|owner| f32::from(u8::from(owner.is_some()))).collect();
    let count: f32 = weights.iter().sum();
    let weights = Tensor::from_vec(weights, owners.len(), &Device::Cpu)?;
    of_candidates.mul(&weights)?.sum_all()? / f64::from(count)
}
