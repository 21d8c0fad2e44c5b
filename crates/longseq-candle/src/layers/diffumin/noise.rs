//! The noise of a step of training, or of one generation.

use candle_core::{Device, Result, Tensor};

use super::{DiffuMin, NAME};
use crate::error::wrong;
use crate::tensors::Argument;

/// The noise of [`DiffuMinLayer`](super::DiffuMinLayer) for the candidates of a batch.
#[derive(Debug, Clone)]
pub struct DiffuMinNoise {
    /// `[S, M·c, d]`.
    generation: Tensor,
    /// `[M·c, d]`.
    training: Tensor,
    /// `M·c`, below `T`.
    levels: Vec<u32>,
}

impl DiffuMinNoise {
    /// Draws noise for so many candidates: numbers from the standard normal distribution, levels from the uniform one; the same for the same
    /// seed.
    ///
    /// # Errors
    /// Those of candle.
    pub fn draw(op: &DiffuMin, candidates: usize, seed: u64) -> Result<Self> {
        let (rows, width) = (candidates * op.channels.channels, op.channels.width);
        let mut random = Random(seed);
        let mut normal = |count: usize| (0..count).map(|_| random.normal()).collect::<Vec<f32>>();
        let generation =
            Tensor::from_vec(normal(op.steps * rows * width), (op.steps, rows, width), &Device::Cpu)?;
        let training = Tensor::from_vec(normal(rows * width), (rows, width), &Device::Cpu)?;
        let levels = (0..rows).map(|_| random.below(op.timesteps)).collect();
        Ok(Self { generation, training, levels })
    }

    /// Noise of the caller's: `generation` `[S, M·c, d]`, of where generation begins and then of each of its steps but the last; `training` `[M·c, d]`, and the levels at
    /// which it is added, below `T`, for the diffusion loss. All of `f32`.
    ///
    /// # Errors
    /// Tensors of another shape or type; a level that there is not.
    pub fn new(op: &DiffuMin, generation: &Tensor, training: &Tensor, levels: &[u32]) -> Result<Self> {
        let (rows, d) = (("M·c", levels.len()), ("d", op.channels.width));
        if let Some(level) = levels.iter().find(|level| **level as usize >= op.timesteps) {
            let expected = format!("levels below {}", op.timesteps);
            return Err(wrong(NAME, "noise.levels", expected, level.to_string()));
        }
        let argument = |name, tensor| Argument::new(NAME, name, tensor);
        let generation = argument("noise.generation", generation).of_shape(&[&[("S", op.steps), rows, d]])?;
        let training = argument("noise.training", training).of_shape(&[&[rows, d]])?;
        Ok(Self { generation: generation.f32()?, training: training.f32()?, levels: levels.to_vec() })
    }

    /// Checks that it is for so many candidates.
    pub(super) fn check(&self, op: &DiffuMin, candidates: usize) -> Result<()> {
        let (rows, d) = (candidates * op.channels.channels, op.channels.width);
        if self.generation.dims() == [op.steps, rows, d] && self.levels.len() == rows {
            return Ok(());
        }
        let expected = format!("noise for {candidates} candidates, [{}, {rows}, {d}]", op.steps);
        Err(wrong(NAME, "noise", expected, format!("{:?}", self.generation.dims())))
    }

    /// `[M·c, d]`: of where generation begins (0), and after each of its steps but the last.
    pub(super) fn generation(&self, index: usize) -> Result<Tensor> {
        self.generation.get(index)
    }

    /// `[M·c, d]`.
    pub(super) fn training(&self) -> &Tensor {
        &self.training
    }

    /// The levels of the diffusion loss.
    pub(super) fn levels(&self) -> &[u32] {
        &self.levels
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Above 0, up to 1.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Box and Muller's transform.
    fn normal(&mut self) -> f32 {
        let length = (-2.0 * self.unit().ln()).sqrt();
        (length * (std::f64::consts::TAU * self.unit()).cos()) as f32
    }

    fn below(&mut self, bound: usize) -> u32 {
        (self.next() % bound.max(1) as u64) as u32
    }
}

#[cfg(test)]
mod tests {
    use longseq::InterestChannels;

    use super::*;

    #[test]
    fn it_is_normal_and_depends_on_the_seed() -> Result<()> {
        let op = DiffuMin::new(InterestChannels::new(16).with_channels(2));
        let [noise, again, other] =
            [(3, 1), (3, 1), (3, 2)].map(|(m, seed)| DiffuMinNoise::draw(&op, 50 * m, seed));
        let (noise, again, other) = (noise?, again?, other?);
        let numbers = |noise: &DiffuMinNoise| noise.generation.flatten_all()?.to_vec1::<f32>();
        let drawn = numbers(&noise)?;
        assert_eq!((&drawn, &noise.levels), (&numbers(&again)?, &again.levels));
        assert_ne!(drawn, numbers(&other)?);
        let count = drawn.len() as f64;
        let mean = drawn.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
        let square = drawn.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / count;
        assert!(mean.abs() < 0.02 && (square - 1.0).abs() < 0.03, "{mean}, {square}");
        assert!(noise.levels.iter().all(|&level| level < 1000));
        assert!(noise.levels.iter().any(|&level| level > 500));
        Ok(())
    }
}
