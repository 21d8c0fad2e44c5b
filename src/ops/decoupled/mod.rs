//! Decoupled embeddings: attention tables decide which behaviours matter, representation tables what they mean.

mod backward;
mod calls;
mod inputs;
mod parameters;

pub use backward::{AggregateGradients, DecoupledGradients, DecoupledSaved, SearchGradients};
pub use calls::DecoupledOps;
pub use inputs::{AggregateInputs, DecoupledInputs, SearchInputs};
pub use parameters::Decoupled;
