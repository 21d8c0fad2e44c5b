//! The codes of an operation's choices, as kernels receive them. `kernels/` and `shaders/` have the same constants.

use crate::error::{Error, Result};
use crate::ops::{Activation, SiluDivisor, Weighting};

/// The code of a weighting and the divisor of its weights, if the call that is named has it on GPUs.
pub(crate) fn weighting_code(operation: &'static str, weighting: Weighting) -> Result<(u32, f32)> {
    match weighting {
        Weighting::Softmax => Ok((0, 1.0)),
        Weighting::Relu => Ok((1, 1.0)),
        Weighting::Silu { divisor: SiluDivisor::Number(divisor) } => Ok((2, divisor)),
        Weighting::Silu { divisor } => Err(Error::Unsupported {
            operation,
            what: format!("SiLU divided by {divisor:?} on a GPU"),
            supported: "SiLU divided by a Number".into(),
        }),
        Weighting::Identity => Ok((3, 1.0)),
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
