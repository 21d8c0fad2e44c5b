//! Median wall-clock times within a budget, and latency against history length.

use std::time::{Duration, Instant};

use longseq::prelude::*;

use crate::Outcome;
use crate::method::Method;
use crate::plot::Series;
use crate::progress::Progress;
use crate::protocol::{Batch, Request, Seeded};
use crate::ranker::Ranker;

/// How long and how often to measure.
#[derive(Clone, Copy)]
pub(crate) struct Budget {
    /// No further run starts after this time, once there are `min_runs`.
    pub(crate) time: Duration,
    pub(crate) min_runs: usize,
    pub(crate) max_runs: usize,
}

impl Budget {
    /// The median time of one run.
    pub(crate) fn median(self, mut run: impl FnMut() -> Outcome<()>) -> Outcome<Duration> {
        let (mut times, begin) = (Vec::new(), Instant::now());
        while times.len() < self.min_runs.max(1)
            || (times.len() < self.max_runs && begin.elapsed() < self.time)
        {
            let start = Instant::now();
            run()?;
            times.push(start.elapsed());
        }
        Ok(median(times))
    }

    /// This budget with its time divided by `by`.
    pub(crate) fn divided(self, by: usize) -> Self {
        Self { time: self.time / u32::try_from(by.max(1)).unwrap_or(u32::MAX), ..self }
    }
}

pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    match times.len() {
        0 => Duration::ZERO,
        n if n % 2 == 1 => times[n / 2],
        n => (times[n / 2 - 1] + times[n / 2]) / 2,
    }
}

impl<B: Backend> Ranker<'_, B> {
    /// Latency of single requests, from ids to scores: the median over requests of each request's median.
    pub(crate) fn single_latency(
        &self,
        method: Method,
        requests: &[Request],
        budget: Budget,
        progress: &Progress,
    ) -> Outcome<Duration> {
        let each = budget.divided(requests.len());
        let mut times = Vec::new();
        for request in requests {
            let batch = Batch::new(std::slice::from_ref(request))?;
            let tables = self.tables_for(&[method], &batch)?;
            let run = || self.scores(method, &batch, &tables).map(drop);
            times.push(each.median(run)?);
            progress.step();
        }
        Ok(median(times))
    }

    /// Latency of one request against its history length, for each method and for building SDIM's bucket table.
    pub(crate) fn sweep(
        &self,
        requests: &[Request],
        lengths: &[usize],
        budget: Budget,
        seed: u64,
        progress: &Progress,
    ) -> Outcome<Vec<Series>> {
        let named = |method: Method| Series { name: self.name(method), offline: false, points: Vec::new() };
        let mut series: Vec<Series> = Method::UNTRAINED.map(named).into();
        series.push(Series {
            name: "SDIM, building the table (offline)".into(),
            offline: true,
            points: Vec::new(),
        });
        let all = concatenated(requests, lengths.iter().copied().max().unwrap_or(0), seed);
        let candidates = requests.first().map_or(Vec::new(), |request| request.candidates.clone());
        progress.stage("Latency against history length", lengths.len() * series.len());
        let mut warm = false;
        for &length in lengths {
            let history = all[..length].to_vec();
            let batch = Batch::new(&[Request { history, candidates: candidates.clone() }])?;
            let tables = self.bucket_tables(&batch)?;
            for (series, method) in
                series.iter_mut().zip(Method::UNTRAINED.map(Some).into_iter().chain([None]))
            {
                let run = || match method {
                    Some(method) => self.scores(method, &batch, &tables).map(drop),
                    None => self.bucket_tables(&batch).map(drop),
                };
                if !warm {
                    run()?;
                }
                series.points.push((length, budget.median(run)?.as_secs_f64() * 1e3));
                progress.step();
            }
            warm = true;
        }
        Ok(series)
    }
}

/// A history of `length` behaviours: the users' histories concatenated in random order, repeated if they are too
/// short.
fn concatenated(requests: &[Request], length: usize, seed: u64) -> Vec<u32> {
    let mut order: Vec<&Request> = requests.iter().collect();
    Seeded::new(seed).shuffle(&mut order);
    let behaviours: Vec<u32> = order.iter().flat_map(|request| &request.history).copied().collect();
    behaviours.iter().copied().cycle().take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_the_middle_or_the_mean_of_the_middle_two() {
        let of =
            |times: &[u64]| median(times.iter().map(|&ms| Duration::from_millis(ms)).collect()).as_millis();
        assert_eq!((of(&[]), of(&[9]), of(&[5, 1, 9]), of(&[4, 1, 9, 6])), (0, 9, 5, 5));
    }

    #[test]
    fn the_budget_bounds_the_number_of_runs() {
        let count = |time, min_runs, max_runs| {
            let mut runs = 0;
            let count = || {
                runs += 1;
                Ok(())
            };
            Budget { time, min_runs, max_runs }.median(count).unwrap();
            runs
        };
        assert_eq!(count(Duration::ZERO, 3, 9), 3);
        assert_eq!(count(Duration::from_secs(60), 3, 9), 9);
    }

    #[test]
    fn long_histories_repeat_real_ones() {
        let request = |history: &[u32]| Request { history: history.to_vec(), candidates: vec![0] };
        let long = concatenated(&[request(&[1, 2]), request(&[3])], 7, 1);
        assert!(long == [1, 2, 3, 1, 2, 3, 1] || long == [3, 1, 2, 3, 1, 2, 3]);
    }
}
