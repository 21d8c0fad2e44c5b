//! Textbook kernels, compiled by three compilers and compared with plain Rust. `kernels/` contains the sources, `ptx/` the
//! compiled PTX, which `compile` regenerates.

mod arrays;
mod blocks;
mod compiled;
mod integers;
mod language;
mod matrices;
mod rows;
mod scans;
