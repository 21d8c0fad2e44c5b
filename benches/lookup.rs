//! Benchmarks of look-ups; `--help` prints the options.

fn main() {
    longseq_check::bench::main("lookup");
}
