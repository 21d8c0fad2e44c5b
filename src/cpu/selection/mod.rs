//! The best behaviours of each candidate, by scores of any kind that are computed block by block.

mod best;
mod queries;
mod search;

pub(super) use best::{Best, Floor};
pub(super) use queries::Queries;
pub(super) use search::{BLOCK, Part, Scoring, Selecting, blocks, find_best};
