//! Decoupled embeddings: attention tables decide which behaviours matter, representation tables what they mean.

mod calls;
mod inputs;
mod parameters;

pub use calls::DecoupledOps;
pub use inputs::{
    AggregateInputs, DecoupledInputs, EMPTY_SLOT, SearchInputs, Selection, SelectionBuffers, SelectionMut,
};
pub use parameters::Decoupled;
