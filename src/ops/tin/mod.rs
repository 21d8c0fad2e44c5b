//! TIN: target attention over behaviours with target-aware temporal positions.

mod calls;
mod inputs;
mod parameters;

pub use calls::TinOps;
pub use inputs::{TinInputs, TinOutputs};
pub use parameters::Tin;
