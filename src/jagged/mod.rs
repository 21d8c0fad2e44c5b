//! Jagged batches.

mod batch;
mod rows;
mod sub_ranges;

pub use batch::Batch;
pub use rows::Jagged;
