//! Benchmarks of decoupled search and aggregation; `--help` says how to run some of them.

mod harness;
#[path = "../tests/support/mod.rs"]
mod support;

fn main() {
    harness::run("decoupled");
}
