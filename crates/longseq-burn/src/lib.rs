//! longseq's operations for [burn](burn_core)'s tensors, with gradients.
//!
//! [`Longseq`] has the operations as methods. A model in ten minutes: the README.
//!
//! * A call on burn's CPU backend, Flex, reads tensors where they are: they are borrowed as longseq's views. Its result's memory becomes the
//!   new tensor's.
//! * Its backward pass is one call of longseq's own gradients, a single step in burn's graph, whatever the number of its inputs.
//! * Inputs may be of `f32`, `f16` or `bf16`; strided ones are copied first.
//! * An input may be a constant, detached, shared, or occur twice; tensors with and without autodiff may be mixed.
//! * burn's backward passes return nothing: an error in one of them (out of memory, a lost device) is a panic with longseq's words. Calls
//!   check everything that can be checked before.
//! * Other devices of longseq: [`Longseq::on`]. burn's own wgpu device: `Longseq::on_burn`, with the feature `burn-wgpu`. Tensors on other
//!   backends of burn are refused.

mod argument;
#[cfg(feature = "burn-wgpu")]
mod burn_wgpu;
mod decoupled;
mod din;
mod error;
mod graph;
mod handle;
mod interest_channels;
mod loan;
mod lookup;
mod merge;
mod place;
mod sdim;
mod search;
mod selected;
mod tables;
mod target_attention;
mod tensors;
mod tin;

pub use burn_core;
#[cfg(feature = "burn-wgpu")]
pub use burn_wgpu::{BurnOutput, BurnWgpu};
pub use decoupled::IdTensors;
pub use din::{DinLayerTensors, DinTensors, fold_dice};
pub use handle::{Batch, JaggedRows, Longseq, Offsets};
pub use interest_channels::InterestChannelsTensors;
pub use longseq;
pub use lookup::LookupTensors;
pub use place::{Lent, Number, Place, Values};
pub use sdim::{HashTensor, SdimTensors};
pub use search::{SearchTensor, SelectionTensors};
pub use selected::SelectedAttentionTensors;
pub use target_attention::TargetAttentionTensors;
pub use tensors::{Opened, Refused, Tensors, Tracked};
pub use tin::TinTensors;

/// The code of the README, compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
