//! Random operands, compared with Rust's own arithmetic.

#![allow(
    clippy::neg_cmp_op_on_partial_ord,
    reason = "an unordered comparison is the negation of the ordered opposite"
)]

mod conversions;
mod floats;
mod halves;
mod integers;
mod random;
