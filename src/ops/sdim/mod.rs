//! SDIM: histories are hashed into buckets, so that a candidate reads a few sums instead of every behaviour.

mod backward;
mod calls;
mod change;
mod inputs;
mod parameters;
mod saved;

pub use calls::SdimOps;
pub(crate) use change::Change;
pub use inputs::{Hash, SdimAttendInputs, SdimEncodeInputs, SdimQueryInputs};
pub use parameters::Sdim;
pub use saved::SavedTables;
