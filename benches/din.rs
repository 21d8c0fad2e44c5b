//! Benchmarks of DIN's activation unit; `--help` prints the options.

fn main() {
    longseq_check::bench::main("din");
}
