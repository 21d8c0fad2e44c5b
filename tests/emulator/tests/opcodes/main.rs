//! Every instruction against a table of hand-computed results or against Rust arithmetic on edge values, as the PTX ISA document defines it.

#[path = "../support/mod.rs"]
mod support;

mod integer;
mod integer_wide;
mod bits;
mod bit_fields;
mod approximate;
mod async_copy;
mod atomic;
mod barrier;
mod bfloat;
mod compare;
mod control;
mod convert_float;
mod convert_integer;
mod float;
mod half_precision;
mod matrix;
mod memory;
mod variables;
mod warp;
