//! Textbook kernels, compiled by two compilers, against plain Rust. `kernels/` has the sources, `ptx/` what the compilers made of them, and
//! `compile` makes it anew.

mod arrays;
mod compiled;
mod integers;
mod language;
mod matrices;
mod rows;
mod scans;
