//! Vectors of `f32` for the kernels: the choice of instructions, and the building blocks of kernels.
//!
//! Kernels are written once, over [`Lanes`], and compiled for every instruction set; [`Instructions::run`] picks one at
//! run time. They compute with rows of [`LANES`] numbers: one AVX-512 register, two of AVX2 or four of NEON.

mod bits;
#[cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "functions for some processors are called where those are found")
)]
mod bytes;
mod exp;
mod few;
#[cfg_attr(
    any(target_arch = "x86_64", target_arch = "aarch64"),
    expect(unsafe_code, reason = "the mode is read and written by instructions of its own")
)]
mod float_mode;
mod instructions;
mod integers;
mod lanes;
mod matrix;
mod narrow;
#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "prefetching takes a pointer"))]
mod prefetch;
mod product;
mod rows;
mod widen;

pub(super) use bytes::ByteProducts;
pub(super) use exp::{exp, sigmoid, sigmoids};
pub(super) use few::{FEW, product_of_few, weighted_sum_of_few};
pub(super) use float_mode::with_default_floats;
pub use instructions::Instructions;
pub(super) use instructions::Kernel;
pub(super) use integers::{differing_bits, pair_products};
pub(super) use lanes::{Integers, LANES, Lanes, Row, load_each, transpose};
pub(super) use matrix::{Matrix, multiply, multiply_transposed};
pub(super) use narrow::NarrowRows;
pub(super) use prefetch::{prefetch_parts, prefetch_rows};
pub(super) use product::{product, product_of_lanes, weighted_sum};
pub(super) use rows::{add, add_lanes, add_pairs, dot_lanes, store, sum_lanes};
pub(super) use widen::{WideRows, widen_to};
