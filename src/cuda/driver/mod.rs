//! Everything that calls the CUDA driver: finding it, memory, copies, modules, launches.
//!
//! All unsafe code of the CUDA backend is in this folder. It relies on what the rest of the backend keeps to: device
//! addresses come from [`Allocation`]s and from the caller's slices on the same stream, sizes are checked before a
//! launch, and one stream orders all work.

#![expect(unsafe_code, reason = "the CUDA driver is a C library")]

mod context;
mod error;
mod find;
mod from_ptx;
mod function;
mod memory;
mod module;
mod page_locked;
mod staging;
mod wait;

pub(super) use context::{check_not_captured, check_stream_kind, is_captured};
pub(super) use error::driver_error;
pub(super) use find::{check_capability, find_driver};
pub(super) use function::{Arguments, Function};
pub(super) use memory::{Allocation, clear, copy, read};
pub(super) use module::Module;
pub(super) use page_locked::PageLocked;
pub(super) use staging::{Staging, abandon};
pub(super) use wait::wait;
