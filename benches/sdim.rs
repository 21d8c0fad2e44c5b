//! Benchmarks of SDIM; `--help` prints the options.

fn main() {
    longseq_check::bench::main("sdim");
}
