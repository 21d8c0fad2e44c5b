//! Unit tests of private modules. They are in the modules themselves, whose source files are compiled into this binary:
//! `cargo test --lib` would compile and optimise the whole crate a second time.

#![allow(dead_code, unreachable_pub, reason = "only the tests use these modules here")]

#[path = "../../../src/exec/approximation.rs"]
mod approximation;
#[path = "../../../src/device/mod.rs"]
mod device;
#[path = "../../../src/exec/options.rs"]
mod options;
#[path = "../../../src/exec/random.rs"]
mod random;
#[path = "../../../src/exec/registers.rs"]
mod registers;
#[path = "../../../src/exec/rounding.rs"]
mod rounding;
#[path = "../../../src/exec/sectors.rs"]
mod sectors;
