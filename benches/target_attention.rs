//! Benchmarks of target attention and its merge; `--help` prints the options.

fn main() {
    longseq_check::bench::main("target_attention");
}
