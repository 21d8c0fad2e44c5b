//! The main job: ranks held-out movies for MovieLens users the way a ranking service would, once with each of several
//! operations on long histories, trained and untrained, and reports ranking quality, latency and numerical error.
//!
//! ```text
//! cargo run --release -p rank -- --help
//! ```

mod check;
mod compare;
mod data;
mod devices;
mod embeddings;
mod method;
mod metrics;
mod options;
mod plot;
mod progress;
mod protocol;
mod ranker;
mod report;
mod summary;
mod svd;
mod timing;
mod trained;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use longseq::Cpu;
use longseq::prelude::*;

use crate::compare::{compare, method_table, popularity};
use crate::data::Log;
use crate::embeddings::Embeddings;
use crate::method::Method;
use crate::options::{Device, Options};
use crate::plot::Labels;
use crate::progress::Progress;
use crate::protocol::{Protocol, Request, Split};
use crate::ranker::Ranker;
use crate::report::counted;
use crate::trained::Model;

/// A result whose error is shown to the user.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let options = Options::parse();
    let is_closed_pipe = |error: &(dyn std::error::Error + 'static)| {
        error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    };
    match start(&options) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader, such as `head`, has closed the pipe.
        Err(error) if is_closed_pipe(error.as_ref()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Picks the device and runs the job on it.
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
        Device::Wgpu => Err(not_built("wgpu")),
        Device::Cuda => Err(not_built("cuda")),
    }
}

/// The error of a device whose feature is off.
fn not_built(feature: &str) -> Box<dyn std::error::Error> {
    format!(
        "--device {feature}: this build has the CPU only; use `cargo run --release -p rank --features {feature} -- --device {feature}`"
    )
    .into()
}

/// The CUDA device, if `--device cuda` asks for it or `--device auto` finds one.
#[cfg(feature = "cuda")]
fn nvidia(requested: Device) -> Outcome<Option<longseq::Cuda>> {
    Ok(match requested {
        Device::Cuda => Some(longseq::Cuda::new(0)?),
        Device::Auto => longseq::Cuda::new(0).ok(),
        Device::Cpu | Device::Wgpu => None,
    })
}

/// The wgpu device, if `--device wgpu` asks for it or `--device auto` finds one. `auto` skips software adapters: they
/// run on the CPU, and more slowly than `Cpu` does.
#[cfg(feature = "wgpu")]
fn gpu(requested: Device) -> Outcome<Option<longseq::Wgpu>> {
    Ok(match requested {
        Device::Wgpu => Some(longseq::Wgpu::new()?),
        Device::Auto => longseq::Wgpu::new().ok().filter(|gpu| !gpu.is_software()),
        Device::Cpu | Device::Cuda => None,
    })
}

/// The device's name, and the processor's where the device does not name its own hardware.
fn device<B: Backend>(backend: &B) -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpuinfo.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    match model {
        Some((_, model)) => format!("{} on {}", backend.device(), model.trim()),
        None => backend.device(),
    }
}

/// The trained models for this log: those asked for, or those in the repository.
fn models(options: &Options, log: &Log) -> Outcome<Vec<Model>> {
    match (&options.model, trained::bundled()) {
        (Some(path), _) => trained::load(path, log, options.min_events),
        (None, bundled) if options.events.is_none() && bundled.exists() => {
            trained::load(&bundled, log, options.min_events)
        }
        _ => Ok(Vec::new()),
    }
}

/// Requests with the newest behaviours alone.
fn newest(requests: &[Request], count: usize) -> Vec<Request> {
    let cut = |request: &Request| {
        let history = request.history[request.history.len().saturating_sub(count)..].to_vec();
        Request { history, candidates: request.candidates.clone() }
    };
    requests.iter().map(cut).collect()
}

/// Runs the whole job on one device.
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
    // First, so that a bad `--model` or `--output` fails before any work is done.
    let models = models(options, &log)?;
    std::fs::create_dir_all(&options.output).map_err(|e| format!("{}: {e}", options.output.display()))?;
    progress.print(&summary::header(&device(backend), options, &log, &split))?;
    let embeddings = Embeddings::new(&split.known, log.items, options.widths(), options.seed, &progress);
    let ranker = Ranker::new(backend, &embeddings.tables, options.top_k, options.seed)?;

    let untrained = compare(&ranker, &Method::UNTRAINED, &split.requests, options, &progress)?;
    let mut rows = untrained.rows("", &ranker, &split.requests);
    let mut results = vec![untrained];
    for model in &models {
        let requests = newest(&split.requests, model.newest);
        let longest = requests.iter().map(|request| request.history.len()).max().unwrap_or(0);
        let ranker = Ranker::trained(backend, model, longest)?;
        let of_model = compare(&ranker, &[model.method], &requests, options, &progress)?;
        rows.extend(of_model.rows("trained: ", &ranker, &requests));
        results.push(of_model);
    }
    progress.print(&method_table(popularity(&embeddings.popularity, &split.requests), rows))?;
    progress.print(&summary::notes(&ranker, &embeddings, &models, options, &split, &results))?;

    progress.print(&devices::table(&embeddings.tables, &split.requests, options, &progress)?)?;

    let lengths = options.lengths();
    let series = ranker.sweep(&split.requests, lengths, options.sweep_budget(), options.seed, &progress)?;
    progress.print(&summary::latency(&series, lengths, &split.requests))?;
    let path = options.output.join("latency.svg");
    let candidates = split.requests.first().map_or(0, |request| request.candidates.len());
    let subtitle =
        format!("{}, width {}, f32; {}", counted(candidates, "candidate"), options.width, device(backend));
    let labels = Labels {
        title: "Latency of one request against the length of its history",
        subtitles: [&log.name, &subtitle],
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
    fn auto_takes_cuda_if_there_is_a_device() {
        let found = longseq::Cuda::new(0).is_ok();
        assert_eq!(nvidia(Device::Auto).unwrap().is_some(), found);
        assert_eq!(nvidia(Device::Cuda).is_ok(), found);
        assert!(nvidia(Device::Wgpu).unwrap().is_none());
    }

    #[cfg(feature = "wgpu")]
    #[test]
    fn auto_skips_software_adapters() {
        let found = longseq::Wgpu::new();
        let is_hardware = found.as_ref().is_ok_and(|gpu| !gpu.is_software());
        assert_eq!(gpu(Device::Auto).unwrap().is_some(), is_hardware);
        // `--device wgpu` accepts a software adapter.
        assert_eq!(gpu(Device::Wgpu).is_ok_and(|gpu| gpu.is_some()), found.is_ok());
        assert!(gpu(Device::Cpu).unwrap().is_none());
    }
}
