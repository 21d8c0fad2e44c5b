//! The main job: ranks held-out movies for MovieLens users the way a ranking service would, with each of the crate's
//! ways of reading a long history, and says how well, how fast and how exactly.
//!
//! ```text
//! cargo run --release --example rank -- --help
//! ```

mod check;
mod compare;
mod data;
mod embeddings;
mod gain;
mod metrics;
mod options;
mod plot;
mod protocol;
mod ranker;
mod report;
mod summary;
mod timing;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use longseq::Cpu;
use longseq::prelude::*;

use crate::compare::compare;
use crate::data::Log;
use crate::embeddings::Embeddings;
use crate::options::{Device, Options};
use crate::plot::Labels;
use crate::protocol::{Protocol, Split};
use crate::ranker::Ranker;
use crate::report::{Progress, counted};

/// A result whose error people read.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let options = Options::parse();
    let closed = |error: &(dyn std::error::Error + 'static)| {
        error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    };
    match start(&options) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough.
        Err(error) if closed(error.as_ref()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Picks the device. A new backend is one more arm.
fn start(options: &Options) -> Outcome<()> {
    if let Some(threads) = options.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global()?;
    }
    #[cfg(feature = "cuda")]
    if let Some(gpu) = nvidia(options.device)? {
        return run(&gpu, options);
    }
    #[cfg(feature = "wgpu")]
    if let Some(gpu) = gpu(options.device)? {
        return run(&gpu, options);
    }
    match options.device {
        Device::Cpu | Device::Auto => run(&Cpu::new(), options),
        Device::Wgpu => Err("--device wgpu: built without the feature `wgpu`".into()),
        Device::Cuda => Err("--device cuda: built without the feature `cuda`".into()),
    }
}

/// The CUDA device where it was asked for; `auto` takes it where there is one.
#[cfg(feature = "cuda")]
fn nvidia(asked_for: Device) -> Outcome<Option<longseq::Cuda>> {
    Ok(match asked_for {
        Device::Cuda => Some(longseq::Cuda::new(0)?),
        Device::Auto => longseq::Cuda::new(0).ok(),
        Device::Cpu | Device::Wgpu => None,
    })
}

/// The `wgpu` device where it was asked for. `auto` leaves a software adapter alone: it is this processor again, by a
/// detour.
#[cfg(feature = "wgpu")]
fn gpu(asked_for: Device) -> Outcome<Option<longseq::Wgpu>> {
    Ok(match asked_for {
        Device::Wgpu => Some(longseq::Wgpu::new()?),
        Device::Auto => longseq::Wgpu::new().ok().filter(|gpu| !gpu.is_software()),
        Device::Cpu | Device::Cuda => None,
    })
}

/// The whole job, on any device.
fn run<B: Backend>(backend: &B, options: &Options) -> Outcome<()> {
    let begin = Instant::now();
    let progress = Progress::new();
    progress.stage("Reading the log", 1);
    let log = match &options.events {
        Some(path) => Log::open(path)?,
        None => Log::movielens()?,
    };
    let protocol = Protocol {
        min_events: options.min_events,
        max_requests: options.requests(),
        negatives: options.candidates,
        seed: options.seed,
    };
    let split = Split::new(&log, &protocol)?;
    // Before the work, so that a folder that cannot be made costs no time.
    std::fs::create_dir_all(&options.output).map_err(|e| format!("{}: {e}", options.output.display()))?;
    progress.print(&summary::header(&backend.device(), options, &log, &split))?;
    let embeddings = Embeddings::new(&split.known, log.items, options.widths(), options.seed, &progress)?;
    let ranker = Ranker::new(backend, &embeddings, options.top_k, options.seed)?;

    let results = compare(&ranker, &split.requests, options, &progress)?;
    progress.print(&results.table(&ranker, &split.requests))?;
    progress.print(&summary::notes(&ranker, options, &split, &results))?;

    progress.print(&gain::table_of_devices(&embeddings, &split.requests, options, &progress)?)?;

    let lengths = options.lengths();
    let series = ranker.sweep(&split.requests, lengths, options.sweep_budget(), options.seed, &progress)?;
    progress.print(&summary::latency(&series, lengths, &split.requests))?;
    let path = options.output.join("latency.svg");
    let candidates = split.requests.first().map_or(0, |request| request.candidates.len());
    let subtitle =
        format!("{}; {}, width {}, f32", backend.device(), counted(candidates, "candidate"), options.width);
    let labels = Labels {
        title: "Latency of a request against the length of its history",
        subtitle: &subtitle,
        x: "behaviours in the history",
        y: "median latency of one request, ms",
    };
    plot::draw(&path, &labels, &series)?;
    progress.print(&format!("\nPlot: {}\nDone in {:.1} s.", path.display(), begin.elapsed().as_secs_f64()))
}

#[cfg(all(test, any(feature = "cuda", feature = "wgpu")))]
mod tests {
    use super::*;

    #[cfg(feature = "cuda")]
    #[test]
    fn auto_takes_cuda_where_there_is_a_device() {
        let found = longseq::Cuda::new(0).is_ok();
        assert_eq!(nvidia(Device::Auto).unwrap().is_some(), found);
        assert_eq!(nvidia(Device::Cuda).is_ok(), found);
        assert!(nvidia(Device::Wgpu).unwrap().is_none());
    }

    #[cfg(feature = "wgpu")]
    #[test]
    fn auto_takes_wgpu_where_it_is_more_than_this_processor() {
        let found = longseq::Wgpu::new();
        let is_hardware = found.as_ref().is_ok_and(|gpu| !gpu.is_software());
        assert_eq!(gpu(Device::Auto).unwrap().is_some(), is_hardware);
        // Asked for by name, a software adapter will do.
        assert_eq!(gpu(Device::Wgpu).is_ok_and(|gpu| gpu.is_some()), found.is_ok());
        assert!(gpu(Device::Cpu).unwrap().is_none());
    }
}
