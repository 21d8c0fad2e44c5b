//! The codes of an operation's choices, as kernels receive them. `kernels/` and `shaders/` have the same constants.

use crate::ops::{Activation, Weighting};

/// The code of a weighting and the divisor of its weights.
pub(crate) fn weighting_code(weighting: Weighting) -> (u32, f32) {
    match weighting {
        Weighting::Softmax => (0, 1.0),
        Weighting::Relu => (1, 1.0),
        Weighting::Silu { divisor } => (2, divisor),
        Weighting::Identity => (3, 1.0),
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
