//! longseq's operations for [candle](candle_core)'s tensors, with gradients.
//!
//! [`Longseq`] has the operations as methods; [`layers`] have weights. A model in ten minutes: the
//! README.
//!
//! * A call on the CPU reads tensors where they are: they are borrowed as longseq's views. Its result's memory becomes the new tensor's.
//! * Its backward pass is one call of longseq's own gradients.
//! * Inputs may be of `f32`, `f16` or `bf16`; strided ones are copied first, in the graph.
//! * A graph may be used any number of times, by any threads; an input may be detached, shared, or occur twice. Where more than three inputs have
//!   gradients, all but the two largest are copied, once in each direction.
//! * Memory that a graph reads must not be changed until its backward pass is done, as everywhere in candle: `Var::set` and steps of optimisers
//!   come after.
//! * Other devices of longseq: [`Longseq::on`]. Tensors on candle's own CUDA and Metal devices are refused.

mod decoupled;
mod din;
mod error;
mod handle;
mod interest_channels;
pub mod layers;
mod loan;
mod lookup;
mod merge;
mod place;
mod read;
mod record;
mod sdim;
mod search;
mod selected;
mod sparse_table;
mod tables;
mod target_attention;
mod tensors;
mod tin;

pub use candle_core;
pub use decoupled::IdTensors;
pub use din::{DinLayerTensors, DinTensors, fold_dice};
pub use handle::{Batch, JaggedRows, Longseq, Offsets};
pub use interest_channels::InterestChannelsTensors;
pub use longseq;
pub use lookup::LookupTensors;
pub use place::{Lent, Place};
pub use sdim::{HashTensor, SdimTensors};
pub use search::{SearchTensor, SelectionTensors};
pub use selected::SelectedAttentionTensors;
pub use sparse_table::{SparseTable, TableRows};
pub use tables::TableTensor;
pub use target_attention::TargetAttentionTensors;
pub use tin::TinTensors;

/// The code of the README, compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
