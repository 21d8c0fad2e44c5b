//! Wall-clock medians within a budget, and how latency grows with the history.

use std::time::{Duration, Instant};

use longseq::prelude::*;

use crate::Outcome;
use crate::plot::Series;
use crate::protocol::{Batch, Request, Seeded};
use crate::ranker::{Method, Ranker};
use crate::report::Progress;

/// How often and how long to measure.
#[derive(Clone, Copy)]
pub(crate) struct Budget {
    /// A measurement stops here once it has `least` runs.
    pub(crate) time: Duration,
    pub(crate) least: usize,
    pub(crate) most: usize,
}

impl Budget {
    /// The median time of one run.
    pub(crate) fn median(self, mut run: impl FnMut() -> Outcome<()>) -> Outcome<Duration> {
        let (mut times, begin) = (Vec::new(), Instant::now());
        while times.len() < self.least.max(1) || (times.len() < self.most && begin.elapsed() < self.time) {
            let start = Instant::now();
            run()?;
            times.push(start.elapsed());
        }
        Ok(median(times))
    }

    /// The same for a share of the time.
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
    /// One request at a time, from ids to scores: the median over requests of each one's median.
    pub(crate) fn alone(
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
            let tables = self.bucket_tables(&batch)?;
            let run = || self.scores(method, &batch, &tables).map(drop);
            times.push(each.median(run)?);
            progress.step();
        }
        Ok(median(times))
    }

    /// Latency of one request against the length of its history, for each method and for building SDIM's table.
    pub(crate) fn sweep(
        &self,
        requests: &[Request],
        lengths: &[usize],
        budget: Budget,
        seed: u64,
        progress: &Progress,
    ) -> Outcome<Vec<Series>> {
        let named = |method: Method| Series { name: self.name(method), offline: false, points: Vec::new() };
        let mut series: Vec<Series> = Method::ALL.map(named).into();
        series.push(Series {
            name: "SDIM, building the table beforehand".into(),
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
            for (series, method) in series.iter_mut().zip(Method::ALL.map(Some).into_iter().chain([None])) {
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

/// A history of any length: those of the users one after the other, in an order drawn by the seed, over again if
/// there are not enough behaviours.
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
    fn medians_are_in_the_middle() {
        let of =
            |times: &[u64]| median(times.iter().map(|&ms| Duration::from_millis(ms)).collect()).as_millis();
        assert_eq!((of(&[]), of(&[9]), of(&[5, 1, 9]), of(&[4, 1, 9, 6])), (0, 9, 5, 5));
    }

    #[test]
    fn a_measurement_ends_with_its_budget_but_has_its_runs() {
        let count = |time, least, most| {
            let mut runs = 0;
            let count = || {
                runs += 1;
                Ok(())
            };
            Budget { time, least, most }.median(count).unwrap();
            runs
        };
        assert_eq!(count(Duration::ZERO, 3, 9), 3);
        assert_eq!(count(Duration::from_secs(60), 3, 9), 9);
    }

    #[test]
    fn long_histories_are_made_of_real_ones() {
        let request = |history: &[u32]| Request { history: history.to_vec(), candidates: vec![0] };
        let long = concatenated(&[request(&[1, 2]), request(&[3])], 7, 1);
        assert!(long == [1, 2, 3, 1, 2, 3, 1] || long == [3, 1, 2, 3, 1, 2, 3]);
    }
}
