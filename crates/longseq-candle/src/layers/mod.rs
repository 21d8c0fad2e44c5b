//! Layers of published systems, whose weights come from a [`VarBuilder`](candle_nn::VarBuilder): a `VarMap` for training, a safetensors
//! file for serving.

mod din;
mod target_attention;

pub use din::{DinActivation, DinLayer};
pub use target_attention::TargetAttentionLayer;
