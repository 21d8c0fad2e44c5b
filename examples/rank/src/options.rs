//! The command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::timing::Budget;

/// Ranks each user's held-out item against items the user has not interacted with, using four ways to pool the
/// user's history: mean of the last behaviours, target attention, SDIM and decoupled embeddings, and with models that
/// examples/train has trained: target attention, DIN, SDIM and DARE. Prints ranking
/// quality, speed and the error against the reference implementation, and plots latency against history length.
#[derive(Parser)]
#[command(name = "rank", version, max_term_width = 100)]
pub(crate) struct Options {
    /// Device that runs the operations; auto picks the fastest one available. wgpu and cuda must be built in: `cargo run
    /// --release -p rank --features wgpu,cuda`.
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    pub(crate) device: Device,
    /// Event log to use instead of the bundled MovieLens log: a .csv or .csv.gz file with the columns user, item and
    /// timestamp. Users and items can be any text; timestamps must be numbers.
    #[arg(long, value_name = "FILE")]
    pub(crate) events: Option<PathBuf>,
    /// Trained models, from `examples/train --save FILE` on the same log. [default: those in the repository, for the bundled log]
    #[arg(long, value_name = "FILE")]
    pub(crate) model: Option<PathBuf>,
    /// Number of negatives per request, ranked together with the held-out item.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_1::<10_000>)]
    pub(crate) candidates: usize,
    /// Maximum number of requests (one per user, sampled at random). [default: 1000, or 60 with --quick]
    #[arg(long, value_name = "N", value_parser = at_least_1::<{ usize::MAX }>)]
    requests: Option<usize>,
    /// Minimum number of events a user needs for a request.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = at_least_1::<{ usize::MAX }>)]
    pub(crate) min_events: usize,
    /// Width of the item embeddings.
    #[arg(long, value_name = "D", default_value_t = 64, value_parser = at_least_1::<256>)]
    pub(crate) width: usize,
    /// Width of the attention embeddings that the decoupled search scores with; at most --width.
    #[arg(long, value_name = "A", default_value_t = 16, value_parser = at_least_1::<256>)]
    attention_width: usize,
    /// Number of behaviours the decoupled search keeps per candidate; that of a trained model keeps what it was trained with.
    #[arg(long, value_name = "K", default_value_t = 20, value_parser = at_least_1::<1024>)]
    pub(crate) top_k: usize,
    /// Seed for sampling users and negatives and for SDIM's rotations.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Number of CPU threads. [default: one per core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Directory for the plot.
    #[arg(long, value_name = "DIR", default_value = "target/rank")]
    pub(crate) output: PathBuf,
    /// Short smoke run; its timings are not meaningful.
    #[arg(long)]
    pub(crate) quick: bool,
}

/// The values of `--device`.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Device {
    /// An NVIDIA GPU through CUDA if there is one, else a hardware GPU through wgpu, else the CPU; of those built in.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU through wgpu, or a software adapter if there is no GPU.
    Wgpu,
    /// An NVIDIA GPU through CUDA.
    Cuda,
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

fn at_least_1<const MAX: usize>(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(value) if (1..=MAX).contains(&value) => Ok(value),
        _ if MAX == usize::MAX => Err("expected an integer of at least 1".into()),
        _ => Err(format!("expected an integer from 1 to {MAX}")),
    }
}

impl Options {
    pub(crate) fn requests(&self) -> usize {
        self.requests.unwrap_or(if self.quick { 60 } else { 1000 })
    }

    /// Widths of the item embeddings and of the attention embeddings.
    pub(crate) fn widths(&self) -> [usize; 2] {
        [self.width, self.attention_width.min(self.width)]
    }

    /// The history lengths of the plot.
    pub(crate) fn lengths(&self) -> &'static [usize] {
        const LENGTHS: [usize; 7] = [100, 300, 1_000, 3_000, 10_000, 30_000, 100_000];
        if self.quick { &LENGTHS[..4] } else { &LENGTHS }
    }

    /// Number of requests timed one at a time, and number of requests checked against the reference.
    pub(crate) fn samples(&self) -> (usize, usize) {
        if self.quick { (10, 3) } else { (200, 16) }
    }

    /// Time budget of one method over all requests, batched.
    pub(crate) fn batch_budget(&self) -> Budget {
        self.budget(2.0)
    }

    /// Time budget of one method over the requests that are timed one at a time.
    pub(crate) fn single_budget(&self) -> Budget {
        self.budget(2.0)
    }

    /// Time budget of one method at one history length.
    pub(crate) fn sweep_budget(&self) -> Budget {
        self.budget(0.5)
    }

    fn budget(&self, seconds: f64) -> Budget {
        if self.quick {
            Budget { time: Duration::ZERO, min_runs: 1, max_runs: 1 }
        } else {
            Budget { time: Duration::from_secs_f64(seconds), min_runs: 3, max_runs: 50 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_valid() {
        Options::command().debug_assert();
        let parse = |arguments: &[&str]| Options::try_parse_from([&["rank"], arguments].concat());
        assert_eq!(parse(&[]).unwrap().lengths().last(), Some(&100_000));
        assert_eq!(parse(&["--quick"]).unwrap().requests(), 60);
        for wrong in [["--width", "0"], ["--width", "257"], ["--top-k", "-1"], ["--device", "abacus"]] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
    }
}
