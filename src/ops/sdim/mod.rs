//! SDIM: the history hashed into buckets, so that a candidate reads a few sums instead of every behaviour.

mod calls;
mod parameters;

pub use calls::SdimOps;
pub use parameters::*;
