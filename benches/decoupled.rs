//! Benchmarks of decoupled search and aggregation; `--help` prints the options.

fn main() {
    longseq_check::bench::main("decoupled");
}
