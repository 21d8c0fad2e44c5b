//! How much noise there is at each level.

use candle_core::{Device, Result, Tensor};

use super::DiffuMin;

/// Of each level, in `f64`.
pub(super) struct Schedule {
    betas: Vec<f64>,
    /// `ᾱ`: what is left of the square of the clean row.
    left: Vec<f64>,
}

impl Schedule {
    pub(super) fn new(op: &DiffuMin) -> Self {
        let (first, last) = op.betas;
        let steps = (op.timesteps - 1).max(1) as f64;
        let betas: Vec<f64> =
            (0..op.timesteps).map(|level| first + (last - first) * level as f64 / steps).collect();
        let mut product = 1.0;
        let mut left = Vec::with_capacity(betas.len());
        for beta in &betas {
            product *= 1.0 - beta;
            left.push(product);
        }
        Self { betas, left }
    }

    /// Factors of the clean row, `√ᾱ`, and of the noise, `√(1 − ᾱ)`, for some levels.
    pub(super) fn noised(&self, levels: &[u32]) -> (Vec<f32>, Vec<f32>) {
        let of = |&level: &u32| {
            let left = self.left[level as usize];
            (left.sqrt() as f32, (1.0 - left).sqrt() as f32)
        };
        levels.iter().map(of).unzip()
    }

    /// Of the row one level below: factors of the clean row and of the row at this level, and the deviation of the noise (DDPM, arXiv 2006.11239,
    /// eq. 7).
    pub(super) fn posterior(&self, level: usize) -> [f64; 3] {
        let (beta, left) = (self.betas[level], self.left[level]);
        let below = if level == 0 { 1.0 } else { self.left[level - 1] };
        let of_clean = beta * below.sqrt() / (1.0 - left);
        let of_row = (1.0 - below) * (1.0 - beta).sqrt() / (1.0 - left);
        [of_clean, of_row, (beta * (1.0 - below) / (1.0 - left)).sqrt()]
    }
}

/// A factor of each row: `[rows, 1]`.
pub(super) fn column(factors: &[f32]) -> Result<Tensor> {
    Tensor::from_slice(factors, (factors.len(), 1), &Device::Cpu)
}

#[cfg(test)]
mod tests {
    use longseq::InterestChannels;

    use super::*;

    #[test]
    fn the_published_schedule() {
        let schedule = Schedule::new(&DiffuMin::new(InterestChannels::new(4)));
        assert!((schedule.betas[0] - 1e-4).abs() < 1e-15 && (schedule.betas[999] - 0.02).abs() < 1e-15);
        let (signal, deviation) = schedule.noised(&[0, 999]);
        assert!((f64::from(signal[0]).powi(2) - 0.9999).abs() < 1e-6);
        // At the last level hardly anything is left.
        assert!(signal[1] < 0.01 && deviation[1] > 0.9999);
        // The last step gives the clean row.
        let [of_clean, of_row, deviation] = schedule.posterior(0);
        assert!((of_clean - 1.0).abs() < 1e-12 && of_row == 0.0 && deviation == 0.0);
        // Elsewhere a row without noise, √ᾱ_n·x, becomes that of the level below.
        let [of_clean, of_row, _] = schedule.posterior(7);
        let below = of_clean + of_row * schedule.left[7].sqrt();
        assert!((below - schedule.left[6].sqrt()).abs() < 1e-12);
    }
}
