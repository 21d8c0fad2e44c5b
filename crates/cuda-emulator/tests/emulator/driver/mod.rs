//! The driver through cudarc: contexts, streams, events, memory, modules and launches, including incorrect use.

#![allow(missing_docs, reason = "a test binary exports nothing")]
// The tests call the C interface to see what it returns for invalid arguments. The emulator checks every handle and
// address, so such calls are harmless.
#![allow(clippy::undocumented_unsafe_blocks, reason = "one reason for all, above")]

mod captures;
mod contexts;
mod events;
mod faults;
mod graphs;
mod launches;
mod memory;
mod modules;
mod orders;
mod pageable;
mod pools;
mod sessions;
mod streams;
mod support;
