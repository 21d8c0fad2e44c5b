//! Every instruction, compared with tables of hand-computed results or with Rust arithmetic on edge values. The PTX ISA
//! document is the specification.

#![allow(
    clippy::neg_cmp_op_on_partial_ord,
    reason = "an unordered comparison is the negation of the ordered opposite"
)]

mod approximate;
mod async_copy;
mod atomic;
mod barrier;
mod bfloat;
mod bit_fields;
mod bits;
mod compare;
mod control;
mod convert_float;
mod convert_integer;
mod float;
mod half_precision;
mod integer;
mod integer_wide;
mod matrix;
mod memory;
mod runner;
mod variables;
mod warp;
