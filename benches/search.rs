//! Benchmarks of search by rows, packed signs and keys; `--help` prints the options.

fn main() {
    longseq_check::bench::main("search");
}
