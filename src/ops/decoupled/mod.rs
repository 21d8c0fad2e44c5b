//! Decoupled embeddings: one table says which behaviours matter, another what they mean.

mod calls;
mod parameters;

pub use calls::DecoupledOps;
pub use parameters::*;
