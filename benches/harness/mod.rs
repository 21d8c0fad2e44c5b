//! What every benchmark does: check a case's answer, time its call on every device, and hold the time against what
//! the device could do.

mod clock;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod limits;
#[cfg(feature = "wgpu")]
mod webgpu;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use criterion::{Criterion, SamplingMode};
use longseq::prelude::*;

use crate::support::cases::{Named, benchmarks};
use crate::support::{Call, Failure, Rules};
use limits::Limit;

/// Times the named cases of one operation on every device there is. Each case checks its answer against the reference
/// before it is timed; inputs lie on the device. Prints the median, the quartiles and the median over the limit: the
/// longer of what the fewest bytes take at the bandwidth of a copy and what the operations take at the rate of fused
/// multiply-adds, both measured on the same device.
#[derive(Parser, Clone)]
struct Options {
    /// Run the cases whose DEVICE/NAME contains this.
    filter: Option<String>,
    /// Seconds to measure a case.
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Add a line a case to this file: device, case, median, first and third quartile, limit (µs), what limits.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// Print the cases and stop.
    #[arg(long)]
    list: bool,
    /// Print the devices and stop.
    #[arg(long)]
    devices: bool,
    #[arg(long, hide = true)]
    bench: bool,
}

/// Something to measure on. A new backend is an implementation and a line in [`run`].
trait Device {
    type Backend: Backend;

    /// A short name: a folder is called so.
    fn name(&self) -> String;

    fn backend(&self) -> &Self::Backend;

    fn rules(&self) -> Rules;

    /// Bytes that an input may have.
    fn room(&self) -> u64 {
        u64::MAX
    }

    /// Bytes a second, read and written, of a copy that touches `footprint` bytes.
    fn bandwidth(&self, footprint: u64) -> Result<f64, Failure>;

    /// `f32` operations a second of fused multiply-adds, each of which counts as two.
    fn arithmetic(&self) -> Result<f64, Failure>;

    /// What `runs` calls take. A device with a clock of its own should use it, and empty its caches between the calls.
    fn time(&self, runs: u64, call: &mut Call<'_>) -> Result<Duration, Failure> {
        time_calls(self, clock::wall, runs, call)
    }
}

/// A clock of the host.
type Clock = fn() -> Duration;

/// What the calls take by a clock of the host.
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

/// The benchmarks of an operation.
pub(crate) fn run(stem: &'static str) {
    let options = Options::parse();
    for threads in cpu::thread_counts() {
        let options = options.clone();
        cpu::in_pool(threads, move || bench(stem, &cpu::Processor::new(threads), &options));
    }
    #[cfg(feature = "wgpu")]
    if let Some(device) = webgpu::Gpu::new() {
        bench(stem, &device, &options);
    }
    #[cfg(feature = "cuda")]
    if let Some(device) = cuda::Gpu::new() {
        bench(stem, &device, &options);
    }
}

fn bench<D: Device>(stem: &str, device: &D, options: &Options) {
    let wanted = |case: &&Named| {
        let id = format!("{}/{}", device.name(), case.name);
        case.stem() == stem && options.filter.as_ref().is_none_or(|filter| id.contains(filter))
    };
    if options.devices {
        println!("{}\t{}", device.name(), device.backend().device());
        return;
    }
    for case in benchmarks().iter().filter(wanted) {
        if options.list {
            println!("{}/{}", device.name(), case.name);
            continue;
        }
        if case.footprint() > device.room() {
            println!("{}/{}: not run, above the device's limits\n", device.name(), case.name);
            continue;
        }
        if let Err(Failure(message)) = bench_case(device, case, options) {
            eprintln!("{}/{}: {message:.2000}", device.name(), case.name);
            std::process::exit(1);
        }
    }
}

fn bench_case<D: Device>(device: &D, case: &Named, options: &Options) -> Result<(), Failure> {
    const SAMPLES: usize = 20;
    case.check(device.backend(), device.rules())?;
    let limit = Limit::of(device, case)?;
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
                    // criterion insists on some time.
                    Duration::from_secs(1)
                });
                times.push(time.as_secs_f64() / runs as f64);
                time
            });
        });
        group.finish();
        Ok(())
    })?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    // Those before warmed up.
    let mut times = times.split_off(times.len().saturating_sub(SAMPLES));
    times.sort_by(f64::total_cmp);
    let [first, median, third] = [1, 2, 3].map(|quarter| times[(times.len() - 1) * quarter / 4] * 1e6);
    println!(
        "{}/{}: {median:.1} µs ({first:.1} to {third:.1}), {:.2} times the limit of {:.1} µs ({limit})\n",
        device.name(),
        case.name,
        median / limit.micros,
        limit.micros,
    );
    if let Some(path) = &options.results {
        let row = format!(
            "{}\t{}\t{median:.2}\t{first:.2}\t{third:.2}\t{:.2}\t{limit}\n",
            device.name(),
            case.name,
            limit.micros
        );
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(row.as_bytes()))
            .map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    }
    Ok(())
}
