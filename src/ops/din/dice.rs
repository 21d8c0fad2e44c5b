//! Dice's batch statistics, folded for inference.

use crate::error::Result;
use crate::ops::shape::{dim, expect};

/// Statistics and parameters of a trained Dice activation, all `[h]`.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct DiceStatistics<'a> {
    /// Running mean.
    pub mean: &'a [f32],
    /// Running variance.
    pub variance: &'a [f32],
    /// `ε`, added to the variance; 1e-9 in FuxiCTR and DeepCTR, 1e-8 in deepctr-torch.
    pub epsilon: f32,
    /// `γ`; `None` means 1.
    pub gamma: Option<&'a [f32]>,
    /// `β`; `None` means 0.
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

/// Folds Dice's batch statistics into `(gain, shift)` for [`Activation::Dice`](crate::Activation::Dice).
///
/// ```
/// use longseq::{DiceStatistics, fold_dice};
///
/// let (gain, shift) = fold_dice(&DiceStatistics::new(&[1.0], &[4.0], 0.0))?;
/// assert_eq!((gain[0], shift[0]), (0.5, -0.5));
/// # Ok::<(), longseq::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the vectors differ in length.
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
