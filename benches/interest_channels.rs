//! Benchmarks of interest channels; `--help` prints the options.

fn main() {
    longseq_check::bench::main("interest_channels");
}
