//! What a request waits for: the host's time from a call to its result, with a batch that is new and with one that was used before.

use std::fmt;
use std::time::Instant;

use longseq::prelude::*;

use super::Device;
use crate::case::Failure;
use crate::device::TestDevice;
use crate::named::Named;

/// New batches that are timed, and calls with the last of them.
const FRESH: usize = 5;
const SEEN: usize = 21;

/// Medians in microseconds. Kernels are compiled and inputs on the device before.
pub(super) struct Wall {
    /// The first call with a batch: its plan is made and uploaded.
    pub(super) fresh: f64,
    /// A later one.
    pub(super) seen: f64,
}

impl Wall {
    pub(super) fn of<D: Device>(device: &D, case: &Named) -> Result<Self, Failure> {
        let backend = device.backend();
        let (mut fresh, mut seen) = (Vec::new(), Vec::new());
        for round in 1..=FRESH {
            let repeats = if round == FRESH { SEEN } else { 0 };
            backend.measure_case(case, &mut |call| {
                // Uploads of the inputs are done.
                backend.synchronize()?;
                for run in 0..=repeats {
                    let start = Instant::now();
                    call()?;
                    backend.synchronize()?;
                    let times = if run == 0 { &mut fresh } else { &mut seen };
                    times.push(start.elapsed().as_secs_f64() * 1e6);
                }
                Ok(())
            })?;
        }
        Ok(Self { fresh: median(fresh), seen: median(seen) })
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fresh, seen } = self;
        write!(f, "by the host's clock {fresh:.1} µs with a new batch, {seen:.1} µs with one used before")
    }
}
