//! TIN: target attention over behaviours with target-aware temporal positions.

mod backward;
mod calls;
mod inputs;
mod parameters;

pub use backward::{TinGradients, TinSaved};
pub use calls::TinOps;
pub use inputs::{TinInputs, TinOutputs};
pub use parameters::Tin;
