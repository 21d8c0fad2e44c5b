//! The command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::timing::Budget;

/// Ranks each user's held-out item among items the user never met, with four ways of reading the history: the mean of
/// the last behaviours, target attention, SDIM and decoupled embeddings. Prints quality, speed and the error against
/// the reference, and plots latency against the length of the history.
#[derive(Parser)]
#[command(name = "rank", version, max_term_width = 100)]
pub(crate) struct Options {
    /// What runs the operations; auto takes the fastest device there is.
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    pub(crate) device: Device,
    /// Your own log: a csv file (or .csv.gz) whose header names user, item and timestamp. Users and items may be any
    /// text, timestamps any number. Default: the MovieLens log that comes with this example.
    #[arg(long, value_name = "FILE")]
    pub(crate) events: Option<PathBuf>,
    /// Negatives beside the held-out item of a request.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_1::<10_000>)]
    pub(crate) candidates: usize,
    /// At most so many users are asked about, drawn by the seed. [default: 1000, 60 with --quick]
    #[arg(long, value_name = "N", value_parser = at_least_1::<{ usize::MAX }>)]
    requests: Option<usize>,
    /// Users with fewer events give no request.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = at_least_1::<{ usize::MAX }>)]
    pub(crate) min_events: usize,
    /// Width of an item's embedding.
    #[arg(long, value_name = "D", default_value_t = 64, value_parser = at_least_1::<256>)]
    pub(crate) width: usize,
    /// Width of an item's attention embedding, by which the decoupled search scores; at most --width.
    #[arg(long, value_name = "A", default_value_t = 16, value_parser = at_least_1::<256>)]
    attention_width: usize,
    /// Behaviours that the decoupled search keeps for each candidate.
    #[arg(long, value_name = "K", default_value_t = 20, value_parser = at_least_1::<1024>)]
    pub(crate) top_k: usize,
    /// Draws users, negatives and SDIM's rotations.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Threads of the CPU. [default: one per core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Folder for the plot.
    #[arg(long, value_name = "DIR", default_value = "target/rank")]
    pub(crate) output: PathBuf,
    /// A small run that shows that everything works; its times mean little.
    #[arg(long)]
    pub(crate) quick: bool,
}

/// A backend.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Device {
    /// The fastest there is: an NVIDIA GPU through CUDA, a GPU through wgpu, otherwise the CPU.
    Auto,
    /// This machine's processor.
    Cpu,
    /// Any GPU through wgpu; a software one too.
    Wgpu,
    /// An NVIDIA GPU through CUDA.
    Cuda,
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

fn at_least_1<const MOST: usize>(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(value) if (1..=MOST).contains(&value) => Ok(value),
        _ if MOST == usize::MAX => Err("expected a whole number of at least 1".into()),
        _ => Err(format!("expected a whole number from 1 to {MOST}")),
    }
}

impl Options {
    pub(crate) fn requests(&self) -> usize {
        self.requests.unwrap_or(if self.quick { 60 } else { 1000 })
    }

    /// Widths of an item's embedding and of its attention embedding.
    pub(crate) fn widths(&self) -> [usize; 2] {
        [self.width, self.attention_width.min(self.width)]
    }

    /// The history lengths of the plot.
    pub(crate) fn lengths(&self) -> &'static [usize] {
        const LENGTHS: [usize; 7] = [100, 300, 1_000, 3_000, 10_000, 30_000, 100_000];
        if self.quick { &LENGTHS[..4] } else { &LENGTHS }
    }

    /// How many requests are timed alone, and how many are checked against the reference.
    pub(crate) fn samples(&self) -> (usize, usize) {
        if self.quick { (10, 3) } else { (200, 16) }
    }

    /// For one method over all requests together.
    pub(crate) fn batch_budget(&self) -> Budget {
        self.budget(2.0)
    }

    /// For one method over the requests that are timed alone.
    pub(crate) fn alone_budget(&self) -> Budget {
        self.budget(2.0)
    }

    /// For one method at one length.
    pub(crate) fn sweep_budget(&self) -> Budget {
        self.budget(0.5)
    }

    fn budget(&self, seconds: f64) -> Budget {
        if self.quick {
            Budget { time: Duration::ZERO, least: 1, most: 1 }
        } else {
            Budget { time: Duration::from_secs_f64(seconds), least: 3, most: 50 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
        let parse = |arguments: &[&str]| Options::try_parse_from([&["rank"], arguments].concat());
        assert_eq!(parse(&[]).unwrap().lengths().last(), Some(&100_000));
        assert_eq!(parse(&["--quick"]).unwrap().requests(), 60);
        for wrong in [["--width", "0"], ["--width", "257"], ["--top-k", "-1"], ["--device", "abacus"]] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
    }
}
