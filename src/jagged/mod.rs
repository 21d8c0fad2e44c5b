//! Jagged batches.

mod batch;
mod kept;
mod rows;
mod slots;
mod sub_ranges;

pub use batch::Batch;
pub use rows::Jagged;
