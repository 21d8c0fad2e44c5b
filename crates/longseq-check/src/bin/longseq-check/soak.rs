//! `longseq-check soak`.

use std::time::Duration;

use clap::Args;
use longseq::prelude::*;

use longseq::AnyBackend;
use longseq_check::Failure;
use longseq_check::device::{self, Kind};
use longseq_check::soak::{self, Limit, Slice};

#[derive(Args)]
pub(crate) struct Options {
    /// The backend: cpu, wgpu or cuda; all of them by default, one after the other.
    #[arg(short, long, value_parser = str::parse::<Kind>)]
    backend: Option<Kind>,
    /// How long on each backend, half of it with a handle for each thread and half with one for all.
    #[arg(short, long, default_value_t = 600)]
    seconds: u64,
    /// So many requests on each thread, half of them with a handle for each, instead of a time.
    #[arg(short, long, conflicts_with = "seconds")]
    requests: Option<usize>,
    /// How many threads.
    #[arg(short, long, default_value_t = 8)]
    threads: usize,
}

/// Memory that may come and go: allocators keep some, and pools fill.
const SLACK: u64 = 32 << 20;

/// Whether memory and times at the end are what they were at the beginning.
fn judge(slices: &[Slice]) -> Result<(), Failure> {
    let fifth = slices.len().div_ceil(5);
    let (first, last) = (&slices[..fifth], &slices[slices.len() - fifth..]);
    let most = |slices: &[Slice]| slices.iter().filter_map(|slice| slice.resident).max().unwrap_or(0);
    let p99 = |slices: &[Slice]| slices.iter().map(|slice| slice.p99).sum::<f64>() / slices.len() as f64;
    let (before, after) = (most(first), most(last));
    if after > before + before / 20 + SLACK {
        return Err(Failure::new(format!("resident memory grew from {before} to {after} bytes")));
    }
    let (before, after) = (p99(first), p99(last));
    if after > 2.0 * before {
        return Err(Failure::new(format!("the 99th percentile grew from {before} to {after} s")));
    }
    Ok(())
}

fn serve(device: &AnyBackend, options: &Options, forks: bool) -> Result<Vec<Slice>, Failure> {
    let time = Duration::from_secs(options.seconds) / 2;
    let (limit, slice) = match options.requests {
        Some(requests) => (Limit::Requests(requests / 2), Duration::from_secs(30)),
        None => (Limit::Time(time), time / 10),
    };
    let options = soak::Options { threads: options.threads, forks, limit, slice };
    device::soak(device, options, &mut |slice| {
        println!(
            "{:6.1} s {:8} requests   median {:8.3} ms   p99 {:8.3} ms   resident {:7.1} MiB",
            slice.seconds,
            slice.requests,
            slice.median * 1e3,
            slice.p99 * 1e3,
            slice.resident.unwrap_or(0) as f64 / f64::from(1 << 20),
        );
    })
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    for kind in options.backend.map_or(Kind::ALL.to_vec(), |backend| vec![backend]) {
        let Some(device) = kind.device() else { continue };
        for forks in [true, false] {
            let handles = if forks { "a handle for each" } else { "one handle" };
            println!("{}: {}, {} threads, {handles}", kind.name(), device.device(), options.threads);
            let slices = serve(&device, options, forks)?;
            judge(&slices)?;
            println!("every answer right; memory and times flat");
        }
    }
    Ok(())
}
