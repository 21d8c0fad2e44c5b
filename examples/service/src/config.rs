//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use longseq::{AnyBackend, Cpu};

use crate::Outcome;
use crate::batcher::Pace;
use crate::log::{Log, Sizes};
use crate::state::LONGEST;
use crate::{routes, server, state};

/// Ranks items for users over HTTP, from their newest behaviours (target attention) and their whole histories (SDIM), which it keeps
/// up to date from a durable log of events.
#[derive(Parser)]
#[command(name = "service", version, max_term_width = 100)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Serves until SIGTERM or ctrl-c.
    Serve(Box<Serve>),
    /// Asks a running service for ranks at rising rates, and measures latency.
    Load(Load),
}

/// Options of the service.
#[derive(Args)]
pub(crate) struct Serve {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// The store: a file, made if there is none.
    #[arg(long, value_name = "FILE", default_value = "target/service/store.redb")]
    pub(crate) store: PathBuf,
    /// Log that a new store begins with instead of MovieLens: a .csv or .csv.gz file with the columns user, item and timestamp,
    /// which are whole numbers.
    #[arg(long, value_name = "FILE", conflicts_with = "synthetic")]
    events: Option<PathBuf>,
    /// A new store begins with a synthetic log of so many users, items and events.
    #[arg(long, value_name = "N,N,N", value_parser = sizes)]
    synthetic: Option<Sizes>,
    /// Width of the item embeddings of a new store.
    #[arg(long, value_name = "D", default_value_t = 64, value_parser = within::<1, 256>)]
    pub(crate) width: usize,
    /// Device that runs the operations. wgpu and cuda must be built in: `--features wgpu,cuda`.
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    device: Device,
    /// Newest behaviours of each user that target attention reads.
    #[arg(long, value_name = "K", default_value_t = 200, value_parser = within::<1, LONGEST>)]
    kept: usize,
    /// Users whose state is on the device; others are read from the store when they come. At least --batch.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = within::<1, 10_000_000>)]
    slots: usize,
    /// How long the first request of a batch waits for others, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1.0, value_parser = milliseconds)]
    budget: f64,
    /// The most requests of a batch.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = within::<1, 4096>)]
    batch: usize,
    /// Requests that may wait, of each kind; more are answered 503.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = within::<1, 65_536>)]
    queue: usize,
    /// Candidates of a request.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = within::<1, 100_000>)]
    candidates: usize,
    /// Events of a request.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = within::<1, 100_000>)]
    max_events: usize,
    /// Bytes of a body.
    #[arg(long, value_name = "N", default_value_t = 1 << 20, value_parser = within::<1, { 1 << 30 }>)]
    body: usize,
    /// Connections at a time; others wait.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = within::<1, 65_536>)]
    connections: usize,
    /// For a head or a body to come, for an answer, and for the last answers after a stop, in milliseconds each.
    #[arg(long, value_name = "MS", default_value_t = 10_000.0, value_parser = milliseconds)]
    timeout: f64,
    /// Tables that differ from their snapshot for so long are saved, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 10_000.0, value_parser = milliseconds)]
    save_after: f64,
    /// Reads no snapshots: tables are built from the log alone.
    #[arg(long)]
    pub(crate) rebuild: bool,
}

/// Options of the load generator.
#[derive(Args)]
pub(crate) struct Load {
    /// The service, on this machine.
    #[arg(long, default_value = "127.0.0.1:8080", value_parser = loopback)]
    pub(crate) address: SocketAddr,
    /// Connections that ask.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = within::<1, 256>)]
    pub(crate) clients: usize,
    /// Requests a second of each step.
    #[arg(long, value_name = "R,R,…", value_delimiter = ',', default_value = "100,200,400,800,1600", value_parser = within::<1, 100_000>)]
    pub(crate) rates: Vec<usize>,
    /// Seconds of each step.
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = within::<1, 600>)]
    pub(crate) seconds: usize,
    /// Candidates of each request.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = within::<1, 100>)]
    pub(crate) candidates: usize,
    /// One request in so many sends an event instead; 0: none does.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) events: usize,
    /// The plot.
    #[arg(long, value_name = "FILE", default_value = "target/service/load.svg")]
    pub(crate) plot: PathBuf,
}

/// The values of `--device`.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Device {
    /// The CPU.
    Cpu,
    /// A GPU through wgpu, or a software adapter if there is no GPU.
    Wgpu,
    /// An NVIDIA GPU.
    Cuda,
}

impl Serve {
    /// The log of a new store.
    pub(crate) fn log(&self) -> Outcome<Log> {
        const SMALL: Sizes = Sizes { users: 200, items: 1000, events: 10_000 };
        if let Some(path) = &self.events {
            return Log::open(path);
        }
        let log = if self.synthetic.is_none() { Log::movielens()? } else { None };
        Ok(log.unwrap_or_else(|| Log::synthetic(self.synthetic.unwrap_or(SMALL), 1)))
    }

    /// The device.
    pub(crate) fn backend(&self) -> Outcome<AnyBackend> {
        match self.device {
            Device::Cpu => Ok(Cpu::new().into()),
            #[cfg(feature = "wgpu")]
            Device::Wgpu => Ok(longseq::Wgpu::new()?.into()),
            #[cfg(feature = "cuda")]
            Device::Cuda => Ok(longseq::Cuda::new(0)?.into()),
            #[allow(unreachable_patterns, reason = "there are others without the features")]
            _ => Err("this device is not built in: build with --features wgpu,cuda".into()),
        }
    }

    pub(crate) fn sizes(&self) -> Outcome<state::Sizes> {
        if self.slots < self.batch {
            let (slots, batch) = (self.slots, self.batch);
            return Err(format!("--slots: expected at least --batch, {batch}, got {slots}").into());
        }
        Ok(state::Sizes { slots: self.slots, kept: self.kept })
    }

    pub(crate) fn pace(&self) -> Pace {
        Pace { budget: duration(self.budget), most: self.batch, save_after: duration(self.save_after) }
    }

    pub(crate) fn limits(&self) -> (routes::Limits, server::Limits) {
        let timeout = duration(self.timeout);
        let Self { body, candidates, queue, .. } = *self;
        let routes = routes::Limits { body, candidates, events: self.max_events, queue, timeout };
        (routes, server::Limits { connections: self.connections, head: timeout, drain: timeout })
    }
}

fn duration(milliseconds: f64) -> Duration {
    Duration::from_secs_f64(milliseconds / 1e3)
}

fn within<const LEAST: usize, const MOST: usize>(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(value) if (LEAST..=MOST).contains(&value) => Ok(value),
        _ => Err(format!("expected a whole number from {LEAST} to {MOST}")),
    }
}

fn milliseconds(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| (0.0..=3.6e6).contains(value));
    value.ok_or_else(|| "expected milliseconds, up to an hour".into())
}

fn sizes(text: &str) -> Result<Sizes, String> {
    let expected = "expected users, items and events, such as 200,1000,10000";
    let numbers: Result<Vec<usize>, String> = text.split(',').map(within::<1, 10_000_000>).collect();
    match numbers.map_err(|error| format!("{expected}: {error}"))?[..] {
        [users, items, events] => Ok(Sizes { users, items, events }),
        _ => Err(expected.into()),
    }
}

/// What loads others' machines is not offered.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "expected an address such as 127.0.0.1:8080")?;
    if address.ip().is_loopback() { Ok(address) } else { Err("expected an address of this machine".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_valid() {
        Options::command().debug_assert();
        let parse = |arguments: &[&str]| Options::try_parse_from([&["service"], arguments].concat());
        assert!(parse(&["serve"]).is_ok() && parse(&["load", "--rates", "5,10"]).is_ok());
        for wrong in [
            &["serve", "--kept", "2049"][..],
            &["serve", "--budget", "NaN"],
            &["serve", "--synthetic", "1,2"],
            &["serve", "--synthetic", "1,2,3", "--events", "log.csv"],
            &["load", "--address", "192.0.2.1:80"],
            &["load", "--rates", "0"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
