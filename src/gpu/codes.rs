//! The codes of an operation's choices, as kernels receive them. `kernels/` and `shaders/` have the same constants.

#[cfg(feature = "cuda")]
use crate::error::{Error, Result};
use crate::ops::{Activation, SiluDivisor, Weighting};

/// The code of a weighting and the divisor of its weights, 0 for the length of each user's own history.
pub(crate) fn weights_code(weighting: Weighting) -> (u32, f32) {
    match weighting {
        Weighting::Softmax => (0, 1.0),
        Weighting::Relu => (1, 1.0),
        // A divisor of 0 is refused as a parameter.
        Weighting::Silu { divisor: SiluDivisor::Number(divisor) } => (2, divisor),
        Weighting::Silu { divisor: SiluDivisor::HistoryLength } => (2, 0.0),
        Weighting::Identity => (3, 1.0),
    }
}

/// [`weights_code`] of the weightings that kernels have which divide by a number alone; an error that names the call for others.
#[cfg(feature = "cuda")]
pub(crate) fn weighting_code(operation: &'static str, weighting: Weighting) -> Result<(u32, f32)> {
    match weighting {
        Weighting::Silu { divisor: divisor @ SiluDivisor::HistoryLength } => Err(Error::Unsupported {
            operation,
            what: format!("SiLU divided by {divisor:?} on a GPU"),
            supported: "SiLU divided by a Number".into(),
        }),
        _ => Ok(weights_code(weighting)),
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
