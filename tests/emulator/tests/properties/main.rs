//! Random operands against Rust's own arithmetic.

#[path = "../support/mod.rs"]
mod support;

mod conversions;
mod floats;
mod halves;
mod integers;
mod random;
