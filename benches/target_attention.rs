//! Benchmarks of target attention and its merge; `--help` says how to run some of them.

mod harness;
#[path = "../tests/support/mod.rs"]
mod support;

fn main() {
    harness::run("target_attention");
}
