//! Benchmarks: check a case's answer, time its call on every device, and compare the time with the device's limits.

mod clock;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod limits;
mod wall;
#[cfg(feature = "wgpu")]
mod webgpu;

use std::fs::OpenOptions;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Parser};
use criterion::{Criterion, SamplingMode};
use longseq::AnyBackend;
use longseq::prelude::*;

use crate::case::{Call, Failure, Rules, check};
use crate::cases::{benchmarks, small};
use crate::device::Kind;
use crate::named::Named;
use limits::Limit;
use wall::Wall;

pub use clock::of_thread;

/// How benchmarks run.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Run the cases whose DEVICE/NAME contains this.
    filter: Option<String>,
    /// Seconds to measure a case.
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Append a line per case to this file: device, case, median, first and third quartile, limit (µs), what limits; with --wall also the
    /// two times of the host.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// Time the small cases, which tests run.
    #[arg(long)]
    small: bool,
    /// Time by the host's clock, too, a call with its wait: with a batch that is new, and with one that was used before.
    #[arg(long)]
    wall: bool,
    /// Go on after a case whose answer is wrong or whose call fails, and fail at the end.
    #[arg(long)]
    keep_going: bool,
    /// Begin no further case on a device after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    budget: Option<f64>,
    /// Print the cases and stop.
    #[arg(long)]
    list: bool,
    /// Print the devices and stop.
    #[arg(long)]
    devices: bool,
}

/// Which cases run, and where.
#[derive(Clone, Debug)]
pub struct Selection {
    /// On these backends.
    pub backends: Vec<Kind>,
    /// Of these stems.
    pub stems: Vec<String>,
    /// On rows stored so; `None` for any.
    pub storage: Option<String>,
}

/// A device to measure on. A new backend is an implementation and a line in [`run`].
trait Device {
    /// A short name, also that of a folder.
    fn name(&self) -> String;

    fn backend(&self) -> &AnyBackend;

    fn rules(&self) -> Rules;

    /// The most bytes that an input may have.
    fn largest_input(&self) -> u64 {
        u64::MAX
    }

    /// Bytes per second, read and written, of a copy that touches `footprint` bytes.
    fn bandwidth(&self, footprint: u64) -> Result<f64, Failure>;

    /// `f32` operations per second of fused multiply-adds, each of which counts as two.
    fn arithmetic(&self) -> Result<f64, Failure>;

    /// The time of `runs` calls. A device with a clock of its own should use it, and empty its caches between the calls.
    fn time(&self, runs: u64, call: &mut Call<'_>) -> Result<Duration, Failure> {
        time_calls(self, clock::wall, runs, call)
    }
}

/// A clock of the host.
type Clock = fn() -> Duration;

/// The time of the calls by a clock of the host.
fn time_calls<D: Device + ?Sized>(
    device: &D,
    clock: Clock,
    runs: u64,
    call: &mut Call<'_>,
) -> Result<Duration, Failure> {
    let start = clock();
    for _ in 0..runs {
        call()?;
        device.backend().synchronize()?;
    }
    Ok(clock() - start)
}

/// Times the named cases of one operation on every device there is. Each case checks its answer against the reference
/// before it is timed; inputs are on the device. Prints the median, the quartiles and the median over the limit: the
/// longer of what the fewest bytes take at the bandwidth of a copy and what the operations take at the rate of fused
/// multiply-adds, both measured on the same device.
#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    options: Options,
    #[arg(long, hide = true)]
    bench: bool,
}

/// The `main` of a stem's benchmark, as `cargo bench` runs it.
pub fn main(stem: &str) {
    let CommandLine { options, .. } = CommandLine::parse();
    let selection = Selection { backends: Kind::ALL.to_vec(), stems: vec![stem.into()], storage: None };
    if let Err(failure) = run(&selection, &options) {
        eprintln!("{failure}");
        std::process::exit(1);
    }
}

/// Runs benchmarks and prints the times.
///
/// # Errors
/// The first case whose answer is wrong or whose call fails.
pub fn run(selection: &Selection, options: &Options) -> Result<(), Failure> {
    for backend in &selection.backends {
        match backend {
            Kind::Cpu => {
                for threads in cpu::thread_counts() {
                    let (selection, options) = (selection.clone(), options.clone());
                    let device = move || bench(&selection, &cpu::Processor::new(threads), &options);
                    cpu::in_pool(threads, device)?;
                }
            }
            #[cfg(feature = "wgpu")]
            Kind::Wgpu => {
                if let Some(device) = webgpu::Gpu::new() {
                    bench(selection, &device, options)?;
                }
            }
            #[cfg(feature = "cuda")]
            Kind::Cuda => {
                if let Some(device) = cuda::Gpu::new() {
                    bench(selection, &device, options)?;
                }
            }
            #[cfg(not(all(feature = "cuda", feature = "wgpu")))]
            _ => {}
        }
    }
    Ok(())
}

fn bench<D: Device>(selection: &Selection, device: &D, options: &Options) -> Result<(), Failure> {
    if options.devices {
        println!("{}\t{}", device.name(), device.backend().device());
        return Ok(());
    }
    let (begin, mut failed) = (Instant::now(), 0);
    for case in if options.small { small() } else { benchmarks() } {
        let id = format!("{}/{}", device.name(), case.name);
        let of = |stem: &String| {
            case.stem().strip_prefix(stem.as_str()).is_some_and(|end| ["", "_backward"].contains(&end))
        };
        let wanted = selection.stems.iter().any(of)
            && selection.storage.as_deref().is_none_or(|storage| storage == case.case.storage())
            && options.filter.as_ref().is_none_or(|filter| id.contains(filter));
        if !wanted {
            continue;
        }
        if options.list {
            println!("{id}");
        } else if case.footprint() > device.largest_input() {
            println!("{id}: not run, above the device's limits\n");
        } else if options.budget.is_some_and(|budget| begin.elapsed().as_secs_f64() > budget) {
            println!("{id}: not run, the time is spent\n");
        } else {
            let timed = catch_unwind(AssertUnwindSafe(|| bench_case(device, &case, options)))
                .unwrap_or_else(|_| Err(Failure::new("it panicked")))
                .map_err(|failure| Failure::new(format!("{id}: {failure:.2000}")));
            match timed {
                Err(failure) if options.keep_going => {
                    failed += 1;
                    println!("FAILED {failure}\n");
                }
                timed => timed?,
            }
        }
    }
    if failed > 0 { Err(Failure::new(format!("{failed} cases failed"))) } else { Ok(()) }
}

/// The samples of a case.
const SAMPLES: usize = 20;

fn bench_case<D: Device>(device: &D, case: &Named, options: &Options) -> Result<(), Failure> {
    match check(&case.case, device.backend(), device.rules()) {
        Err(failure) if failure.is_unsupported() => {
            println!("{}/{}: not supported\n", device.name(), case.name);
            return Ok(());
        }
        checked => checked?,
    }
    let limit = Limit::of(device, case)?;
    let mut times = sample(device, case, options)?;
    times.sort_by(f64::total_cmp);
    let [first, median, third] = [1, 2, 3].map(|quarter| times[(times.len() - 1) * quarter / 4] * 1e6);
    println!(
        "{}/{}: {median:.1} µs ({first:.1} to {third:.1}), {:.2} times the limit of {:.1} µs ({limit})\n",
        device.name(),
        case.name,
        median / limit.micros,
        limit.micros,
    );
    let wall = if options.wall { Some(Wall::of(device, case)?) } else { None };
    if let Some(wall) = &wall {
        println!("{}/{}: {wall}\n", device.name(), case.name);
    }
    let Some(path) = &options.results else { return Ok(()) };
    let columns = wall.map_or(String::new(), |wall| format!("\t{:.2}\t{:.2}", wall.fresh, wall.seen));
    let row = format!(
        "{}\t{}\t{median:.2}\t{first:.2}\t{third:.2}\t{:.2}\t{limit}{columns}\n",
        device.name(),
        case.name,
        limit.micros
    );
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(row.as_bytes()))
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

/// The seconds of a call in each sample.
fn sample<D: Device>(device: &D, case: &Named, options: &Options) -> Result<Vec<f64>, Failure> {
    let mut criterion = Criterion::default()
        .sample_size(SAMPLES)
        .warm_up_time(Duration::from_secs_f64(options.seconds / 5.0))
        .measurement_time(Duration::from_secs_f64(options.seconds))
        .without_plots();
    let (mut times, mut failure) = (Vec::new(), None);
    case.measure(device.backend(), &mut |call| {
        let mut group = criterion.benchmark_group(device.name());
        group.sampling_mode(SamplingMode::Flat).bench_function(case.name, |bencher| {
            bencher.iter_custom(|runs| {
                let time = device.time(runs, call).unwrap_or_else(|error| {
                    failure = Some(error);
                    // criterion does not accept zero.
                    Duration::from_secs(1)
                });
                times.push(time.as_secs_f64() / runs as f64);
                time
            });
        });
        group.finish();
        Ok(())
    })?;
    match failure {
        Some(failure) => Err(failure),
        // Those before were the warm-up.
        None => Ok(times.split_off(times.len().saturating_sub(SAMPLES))),
    }
}
