//! Benchmarks of attention over a selection and histograms of similarities; `--help` prints the options.

fn main() {
    longseq_check::bench::main("selected");
}
