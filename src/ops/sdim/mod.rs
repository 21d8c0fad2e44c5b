//! SDIM: histories are hashed into buckets, so that a candidate reads a few sums instead of every behaviour.

mod calls;
mod inputs;
mod parameters;

pub use calls::SdimOps;
pub use inputs::{Hash, SdimHistory, SdimInputs, SdimQuery};
pub use parameters::Sdim;
