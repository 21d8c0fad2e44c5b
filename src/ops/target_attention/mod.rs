//! Target attention: each candidate attends to its user's whole history.

mod backward;
mod calls;
mod inputs;
mod parameters;

pub use backward::{
    PartialAttentionGradients, TargetAttentionGradOut, TargetAttentionGradients, TargetAttentionSaved,
};
pub use calls::TargetAttentionOps;
pub use inputs::{PartialAttention, TargetAttentionInputs, TargetAttentionOutputs};
pub use parameters::{SiluDivisor, TargetAttention, Weighting};
