//! The command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Parser;

use crate::contents;
use crate::model::Rates;
use crate::samples::NegativesFrom;
use crate::systems::System;

/// Trains a click model on each user's history with one system after another, and shows what each is worth and what it costs:
/// the same embeddings, towers, samples and protocol for all of them.
///
/// Of each user the last event is held out for the test and the one before it for validation. Training predicts each other event from
/// those before it, against sampled negatives. It stops when validation no longer gets better, and the test is read once, at the best epoch.
#[derive(Parser, Clone)]
#[command(name = "train", version, max_term_width = 100)]
pub(crate) struct Options {
    /// Systems to train, separated by commas. [default: all; MUSE only where there are contents]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST")]
    systems: Vec<System>,
    /// Event log to use instead of the bundled MovieLens log: a .csv or .csv.gz file with the columns user, item and
    /// timestamp. Users and items can be any text; timestamps must be numbers.
    #[arg(long, value_name = "FILE")]
    pub(crate) events: Option<PathBuf>,
    /// Contents of the items, which MUSE searches in: 128 bytes for each item, 8-bit integers with a sign, items in the order in which the
    /// log first names them. [default: those of the bundled log, or none with --events]
    #[arg(long, value_name = "FILE")]
    contents: Option<PathBuf>,
    /// Number of seeds: each system is trained so many times, and the means are shown.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_1::<100>)]
    pub(crate) seeds: usize,
    /// The first seed of training. The candidates of the test do not depend on it.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// The most epochs. [default: 30, or 1 with --quick]
    #[arg(long, value_name = "N", value_parser = at_least_1::<10_000>)]
    epochs: Option<usize>,
    /// Training stops after so many epochs in which validation did not get better.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_1::<10_000>)]
    pub(crate) patience: usize,
    /// Events that are predicted in an epoch, drawn anew each time. [default: 30,000, or 1,000 with --quick]
    #[arg(long, value_name = "N", value_parser = at_least_1::<100_000_000>)]
    samples: Option<usize>,
    /// Events in a step of training.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = at_least_1::<100_000>)]
    pub(crate) batch: usize,
    /// Sampled negatives for each event in training.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = at_least_1::<1000>)]
    pub(crate) negatives: usize,
    /// Which items negatives of training are drawn from: those that somebody has met in the training part, or all of the log. The second
    /// teaches a model that items which only held-out events have are never met. Negatives of validation and test are drawn from all.
    #[arg(long, value_enum, value_name = "ITEMS", default_value = "met")]
    pub(crate) negatives_from: NegativesFrom,
    /// The newest behaviours that a system reads.
    #[arg(long, value_name = "L", default_value_t = 200, value_parser = at_least_1::<1_000_000>)]
    pub(crate) history: usize,
    /// Width of the item embeddings.
    #[arg(long, value_name = "D", default_value_t = 32, value_parser = at_least_1::<256>)]
    pub(crate) width: usize,
    /// Learning rate of the dense weights (AdamW) in the first step; it falls in a straight line to 0 after the last epoch.
    #[arg(long, default_value_t = 0.003, value_parser = rate)]
    pub(crate) rate: f64,
    /// The same of the tables (lazy Adam on the rows that a step has met).
    #[arg(long, default_value_t = 0.003, value_parser = rate)]
    pub(crate) table_rate: f64,
    /// Decay of the rows that a step has met: so much of a row, times the rate, is lost in the step.
    #[arg(long, default_value_t = 0.3, value_parser = decay)]
    pub(crate) table_decay: f64,
    /// Negatives per request in validation and test, ranked together with the held-out item.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_1::<10_000>)]
    pub(crate) candidates: usize,
    /// Events a user needs for a request.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = at_least_1::<{ usize::MAX }>)]
    pub(crate) min_events: usize,
    /// The most requests of validation, and of the test (one per user, sampled at random). [default: 1000, or 60 with --quick]
    #[arg(long, value_name = "N", value_parser = at_least_1::<{ usize::MAX }>)]
    requests: Option<usize>,
    /// Steps that are timed with longseq and with candle's eager composition; 0 leaves the comparison out. [default: 12, or 1 with --quick]
    #[arg(long, value_name = "N")]
    timed_steps: Option<usize>,
    /// Writes what was trained with the first seed to a safetensors file, tables as f16.
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    /// Number of CPU threads. [default: one per core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Directory for the plots.
    #[arg(long, value_name = "DIR", default_value = "target/train")]
    pub(crate) output: PathBuf,
    /// Short smoke run; its figures are not meaningful.
    #[arg(long)]
    pub(crate) quick: bool,
}

fn at_least_1<const MAX: usize>(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(value) if (1..=MAX).contains(&value) => Ok(value),
        _ if MAX == usize::MAX => Err("expected an integer of at least 1".into()),
        _ => Err(format!("expected an integer from 1 to {MAX}")),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value < 1.0 => Ok(value),
        _ => Err("expected a number between 0 and 1".into()),
    }
}

fn decay(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("expected a number from 0 to 1".into()),
    }
}

impl Options {
    pub(crate) fn rates(&self) -> Rates {
        Rates { dense: self.rate, tables: self.table_rate as f32, decay: self.table_decay as f32 }
    }

    /// The systems to train, each once.
    pub(crate) fn systems(&self) -> Vec<System> {
        let is_chosen = |system: &System| match &self.systems[..] {
            [] => !system.needs_contents() || self.contents().is_some(),
            chosen => chosen.contains(system),
        };
        System::ALL.into_iter().filter(is_chosen).collect()
    }

    /// Whether one of them reads the contents of items.
    pub(crate) fn needs_contents(&self) -> bool {
        self.systems().into_iter().any(System::needs_contents)
    }

    /// Where the contents of items are, if there are any.
    pub(crate) fn contents(&self) -> Option<PathBuf> {
        let bundled = || self.events.is_none().then(contents::bundled);
        self.contents.clone().or_else(bundled)
    }

    pub(crate) fn epochs(&self) -> usize {
        self.epochs.unwrap_or(if self.quick { 1 } else { 30 })
    }

    pub(crate) fn samples(&self) -> usize {
        self.samples.unwrap_or(if self.quick { 1_000 } else { 30_000 })
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.unwrap_or(if self.quick { 60 } else { 1000 })
    }

    pub(crate) fn timed_steps(&self) -> usize {
        self.timed_steps.unwrap_or(if self.quick { 1 } else { 12 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_valid() {
        Options::command().debug_assert();
        let parse = |arguments: &[&str]| Options::try_parse_from([&["train"], arguments].concat());
        let options = parse(&[]).unwrap();
        assert_eq!((options.systems().len(), options.epochs()), (System::ALL.len(), 30));
        assert_eq!(parse(&["--quick"]).unwrap().requests(), 60);
        assert_eq!(parse(&["--systems", "tin,din"]).unwrap().systems(), [System::Din, System::Tin]);
        assert_eq!(parse(&["--systems", "din,din"]).unwrap().systems(), [System::Din]);
        let own = parse(&["--events", "log.csv"]).unwrap();
        assert!(own.contents().is_none() && !own.systems().contains(&System::Muse));
        for wrong in [
            ["--width", "0"],
            ["--rate", "1"],
            ["--systems", "abacus"],
            ["--negatives-from", "none"],
            ["--batch", "-1"],
        ] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
    }
}
