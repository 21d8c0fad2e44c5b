//! Every integration test but `memory.rs`: one binary, since each costs a link.
//!
//! `operations` runs the tests of `longseq-check` on every backend; the other modules test what only one backend has, errors,
//! and the repository itself.

#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod alone;
mod any;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod calls;
#[cfg(feature = "cuda")]
mod cuda;
mod errors;
mod fuzz;
mod gradients;
mod house;
mod jagged;
mod mutants;
mod one_operation;
mod operations;
mod packaging;
mod panics;
#[cfg(feature = "rayon")]
mod threads;
mod warm_up;
#[cfg(feature = "wgpu")]
mod webgpu;
