//! longseq's operations for [candle](candle_core)'s tensors, with gradients.
#![forbid(unsafe_code)]

mod decoupled;
mod din;
mod error;
mod handle;
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
