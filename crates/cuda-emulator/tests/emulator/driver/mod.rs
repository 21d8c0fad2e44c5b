//! The driver's behaviour, seen through cudarc: what programs do with contexts, streams, events, memory, modules
//! and launches, and what happens when they do it wrong.

#![allow(missing_docs, reason = "a test binary exports nothing")]
// The tests call the C interface to see what it answers to wrong arguments; the emulator checks every handle and
// address, so no such call can do harm.
#![allow(clippy::undocumented_unsafe_blocks, reason = "one reason for all, above")]

mod contexts;
mod events;
mod faults;
mod graphs;
mod launches;
mod memory;
mod modules;
mod pools;
mod sessions;
mod streams;
mod support;
