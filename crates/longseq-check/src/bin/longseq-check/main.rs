//! Checks, benchmarks and explains the operations of longseq on every backend.

mod explain;
mod preload;
mod select;
mod soak;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use longseq_check::bench;
use longseq_check::support;
use select::Select;

/// Checks, benchmarks and explains the operations of longseq on every backend.
///
/// Devices are chosen as in the tests: LONGSEQ_TEST_WGPU, LONGSEQ_TEST_WGPU_ADAPTER, LONGSEQ_TEST_CUDA and
/// LONGSEQ_TEST_CUDA_MODE (see CONTRIBUTING.md).
#[derive(Parser)]
#[command(version)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run tests and small named cases, and print which pass.
    Test(test::Options),
    /// Time the named cases.
    Bench {
        #[command(flatten)]
        select: Select,
        #[command(flatten)]
        options: bench::Options,
    },
    /// Serve mixed requests from many threads for a long time, and check every answer, memory and times.
    Soak(soak::Options),
    /// Print which backend has which operation for which storage type.
    Support {
        #[command(flatten)]
        select: Select,
    },
    /// Compile every kernel of the GPU backends, one file or variant after the other, and print how long each takes.
    Preload(preload::Options),
    /// Print everything about one named case: formula, shapes, work, launches, error.
    Explain(explain::Options),
}

fn main() -> ExitCode {
    let result = match Options::parse().command {
        Command::Test(options) => test::run(&options),
        Command::Bench { select, options } => bench::run(&select.selection(), &options),
        Command::Soak(options) => soak::run(&options),
        Command::Support { select } => {
            print!("{}", support::table(&select.devices(), select.operation(), &select.storages()));
            Ok(())
        }
        Command::Preload(options) => preload::run(&options),
        Command::Explain(options) => explain::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
