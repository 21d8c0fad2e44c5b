//! The second stage of two-stage models: what runs over the behaviours that a search kept.
//!
//! A stem of its own, although the formula is target attention's: its rows are gathered, its size is candidates times kept
//! behaviours, so no history is cut into pieces and no partial results are combined; and it needs a selection, which target attention
//! does not know.

mod backward;
mod calls;
mod histogram;
mod inputs;
mod parameters;
mod tables;

pub use backward::{SelectedAttentionGradOut, SelectedAttentionGradients};
pub use calls::SelectedOps;
pub use histogram::SimilarityHistogram;
pub use inputs::{SelectedAttentionInputs, SelectedAttentionOutputs};
pub use parameters::SelectedAttention;
pub use tables::{SelectedKeys, SelectedTableGradients, SelectedTableInputs};
