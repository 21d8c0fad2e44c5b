//! The codes of an operation's choices, as kernels receive them. `kernels/` and `shaders/` have the same constants.

use crate::ops::{Activation, SiluDivisor, Weighting};

/// The code of a weighting and the divisor of its weights; `None`: the length of each user's history.
pub(crate) fn weighting_of(weighting: Weighting) -> (u32, Option<f32>) {
    match weighting {
        Weighting::Softmax => (0, Some(1.0)),
        Weighting::Relu => (1, Some(1.0)),
        Weighting::Silu { divisor: SiluDivisor::Number(divisor) } => (2, Some(divisor)),
        Weighting::Silu { divisor: SiluDivisor::HistoryLength } => (2, None),
        Weighting::Identity => (3, Some(1.0)),
    }
}

/// The code of an activation of DIN's network.
pub(crate) fn activation_code<V>(activation: &Activation<V>) -> u32 {
    match activation {
        Activation::Relu => 0,
        Activation::Sigmoid => 1,
        Activation::Prelu { .. } => 2,
        Activation::Dice { .. } => 3,
    }
}
