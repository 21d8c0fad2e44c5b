//! DIN's local activation unit: a small network scores every pair of candidate and behaviour.

mod backward;
mod calls;
mod dice;
mod inputs;
mod parameters;

#[cfg(feature = "wgpu")]
pub(crate) use backward::DIN_GRADIENTS;
pub use backward::{DinGradients, DinLayerGradients, DinStatistics};
pub use calls::DinOps;
pub use dice::{DiceStatistics, fold_dice};
pub use inputs::{Activation, DinInputs, DinLayer};
#[cfg(any(feature = "cuda", feature = "wgpu"))]
pub(crate) use parameters::DIN_LAYERS;
pub use parameters::{Din, DinPooling};
