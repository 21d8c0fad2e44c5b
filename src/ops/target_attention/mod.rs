//! Target attention: each candidate attends to its user's whole history.

mod calls;
mod inputs;
mod parameters;

pub use calls::TargetAttentionOps;
pub use inputs::{PartialAttention, TargetAttentionInputs, TargetAttentionOutputs};
pub use parameters::{TargetAttention, Weighting};
