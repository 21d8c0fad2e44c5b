//! Benchmarks of DIN's activation unit; `--help` says how to run some of them.

mod harness;
#[path = "../tests/support/mod.rs"]
mod support;

fn main() {
    harness::run("din");
}
