//! Benchmarks of TIN; `--help` prints the options.

fn main() {
    longseq_check::bench::main("tin");
}
