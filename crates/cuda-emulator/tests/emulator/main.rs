//! The emulator's tests, in one binary: linking is most of the cost of a test binary, and every test has a session of its
//! own. Tests that need a process of their own are in `hidden_functions.rs`, internal functions are tested in `internal`.

#![allow(missing_docs, reason = "a test binary exports nothing")]

mod checks;
mod driver;
mod internal;
mod interpreter;
mod library_path;
mod memory;
mod modes;
mod opcodes;
mod properties;
mod report;
mod support;
mod textbook;
mod timing;
