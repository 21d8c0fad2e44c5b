//! The driver's behaviour, seen through cudarc: what programs do with contexts, streams, events, memory, modules
//! and launches, and what happens when they do it wrong.

#![allow(missing_docs, reason = "a test binary exports nothing")]

mod contexts;
mod support;
