//! DiffuMIN's interest channels: a history is split among a candidate's axes, and each pools its best behaviours.

mod backward;
mod calls;
mod inputs;
mod parameters;

pub use backward::{InterestChannelsGradients, InterestChannelsSaved};
pub use calls::InterestChannelsOps;
pub use inputs::{InterestChannelsInputs, InterestChannelsOutputs};
pub use parameters::{DependentAxes, InterestChannels, KeptAmong};
