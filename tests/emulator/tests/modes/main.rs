//! The emulator's modes: shuffled schedules, approximate instructions at the edges of their error, matrix sums in several orders. Each
//! must change what hardware leaves open, and nothing else.

#[path = "../support/mod.rs"]
mod support;

mod approximation;
mod matrix_order;
mod schedule;
