//! The selection of every search: how a batch is cut into pieces, the lists that pieces keep, and how these are combined; and
//! selections that a call is given.

mod combine;
mod given;
mod lists;
mod pieces;

use crate::webgpu::shader::Kernel;
pub(super) use combine::{Combined, combine};
pub(super) use given::{Given, Number, check_top_k, list_tiles};
pub(super) use lists::Lists;
pub(super) use pieces::{IN_MEMORY, IN_WORKGROUP, LOAD, ORDER, PIECES, Pieces, SCORES, SELECT, STEP};

pub(super) fn variants() -> Vec<Kernel> {
    [combine::variants(), given::variants()].concat()
}
