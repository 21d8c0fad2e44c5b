//! Search: the best behaviours of each candidate by a score of rows, packed signs or keys.

mod calls;
mod inputs;
mod parameters;
mod signs;

pub use calls::SearchOps;
pub use inputs::{SearchRows, SimilarityInputs};
pub use parameters::{Search, SearchScore};
pub use signs::Signs;
