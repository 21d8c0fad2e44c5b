//! Layers of published systems, whose weights come from a [`VarBuilder`](candle_nn::VarBuilder): a `VarMap` for training, a safetensors
//! file for serving.

mod din;
mod sdim;
mod target_attention;
mod tin;

pub use din::{DinActivation, DinLayer};
pub use sdim::SdimLayer;
pub use target_attention::TargetAttentionLayer;
pub use tin::TinLayer;
