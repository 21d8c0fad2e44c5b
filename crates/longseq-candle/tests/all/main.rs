//! The tests of the adapter: forward against longseq's reference, gradients against finite differences and against candle's own gradients
//! of the same formula written in its operations (in `f64`).

mod attention;
mod common;
mod decoupled;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod device_layers;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod devices;
mod din;
mod eager;
mod errors;
mod graph;
mod interest_channels;
mod layers;
mod layers_dare;
mod layers_diffumin;
mod layers_saved;
mod layers_search;
mod lookup;
mod published;
mod sdim;
mod selected;
mod tin;
mod versions;
