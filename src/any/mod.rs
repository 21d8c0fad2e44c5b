//! Any backend of the build, chosen at run time.
//!
//! `memory.rs` has the enums that hold what one of the backends made, and `open.rs` takes out of them what a backend's call needs. Each
//! call of `<stem>.rs` opens its arguments and passes itself on.

mod backend;
mod decoupled;
mod device;
mod din;
mod interest_channels;
mod lookup;
mod memory;
mod open;
mod sdim;
mod search;
mod selected;
mod selection;
mod target_attention;
mod tin;

pub use backend::AnyBackend;
pub use memory::{AnyBatch, AnyBuffer, AnyJagged, AnyMemory};
