//! Runs every method on the same requests and collects quality, time and error.

use std::time::Duration;

use longseq::prelude::*;

use crate::Outcome;
use crate::check::{Check, Sample, sample};
use crate::method::{Method, RECENT};
use crate::metrics::{Quality, mean, quality};
use crate::options::Options;
use crate::progress::Progress;
use crate::protocol::{Batch, Request, Seeded};
use crate::ranker::Ranker;
use crate::report::{figures, rate, table};

/// The results of a model's methods.
pub(crate) struct Results {
    pub(crate) methods: Vec<MethodResult>,
    /// Time to build the bucket tables of all requests.
    pub(crate) encode: Duration,
    /// The requests compared with the reference.
    pub(crate) checked: Sample,
}

/// The results of one method.
pub(crate) struct MethodResult {
    pub(crate) method: Method,
    pub(crate) quality: Quality,
    /// Time of all requests, batched.
    pub(crate) batched: Duration,
    /// Median latency of a single request.
    pub(crate) single: Duration,
    pub(crate) check: Check,
}

/// Runs methods of a model on every request.
pub(crate) fn compare<B: Backend>(
    ranker: &Ranker<'_, B>,
    methods: &[Method],
    requests: &[Request],
    options: &Options,
    progress: &Progress,
) -> Outcome<Results> {
    let (batches, budget) = (batches(requests), options.batch_budget());
    let budget = budget.divided(batches.len());
    let mut qualities = vec![Vec::new(); methods.len()];
    let mut batched = vec![Duration::ZERO; methods.len()];
    let mut encode = Duration::ZERO;
    progress.stage("Ranking all requests", batches.len() * (methods.len() + 1));
    for requests in &batches {
        let batch = Batch::new(requests)?;
        let tables = ranker.tables_for(methods, &batch)?;
        if methods.contains(&Method::Sdim) {
            encode += budget.median(|| ranker.bucket_tables(&batch).map(drop))?;
        }
        progress.step();
        for (index, &method) in methods.iter().enumerate() {
            // The first run yields the scores and warms up caches.
            let scores = ranker.scores(method, &batch, &tables)?;
            qualities[index].extend(batch.targets.ranges().map(|range| quality(&scores[range])));
            let run = || ranker.scores(method, &batch, &tables).map(drop);
            batched[index] += budget.median(run)?;
            progress.step();
        }
    }
    let (timed, checked) = options.samples();
    let mut order: Vec<&Request> = requests.iter().collect();
    Seeded::new(options.seed).shuffle(&mut order);
    let timed: Vec<Request> = order.into_iter().take(timed).cloned().collect();
    let checked = sample(requests, checked, options.seed);
    let mut results = Vec::with_capacity(methods.len());
    progress.stage("Checking and timing single requests", methods.len() * (timed.len() + 1));
    for (index, &method) in methods.iter().enumerate() {
        let check = ranker.check(method, &Batch::new(&checked.requests)?)?;
        progress.step();
        let single = ranker.single_latency(method, &timed, options.single_budget(), progress)?;
        let quality = mean(&qualities[index]);
        results.push(MethodResult { method, quality, batched: batched[index], single, check });
    }
    Ok(Results { methods: results, encode, checked })
}

/// Quality of ranking candidates by their number of users.
pub(crate) fn popularity(users_of_items: &[u32], requests: &[Request]) -> Quality {
    let of_request = |request: &Request| {
        let scores: Vec<f32> =
            request.candidates.iter().map(|&item| users_of_items[item as usize] as f32).collect();
        quality(&scores)
    };
    mean(&requests.iter().map(of_request).collect::<Vec<_>>())
}

/// Splits requests into batches of at most 1024 users, 128 Ki candidates and 1 Mi behaviours, so that memory stays
/// bounded for any log.
fn batches(requests: &[Request]) -> Vec<&[Request]> {
    let (mut batches, mut start) = (Vec::new(), 0);
    let (mut candidates, mut behaviours) = (0, 0);
    for (index, request) in requests.iter().enumerate() {
        candidates += request.candidates.len();
        behaviours += request.history.len();
        if index > start && (index - start == 1024 || candidates > 1 << 17 || behaviours > 1 << 20) {
            batches.push(&requests[start..index]);
            (start, candidates, behaviours) = (index, request.candidates.len(), request.history.len());
        }
    }
    batches.push(&requests[start..]);
    batches
}

/// The table of methods.
pub(crate) fn method_table(popularity: Quality, methods: Vec<Vec<String>>) -> String {
    let titles = [
        "method",
        "HR@10",
        "NDCG@10",
        "AUC",
        "ms/request",
        "batched",
        "behaviours/s",
        "largest error",
        "vs reference",
    ];
    let mut rows =
        vec![titles.map(String::from).to_vec(), named("popularity, no history".into(), popularity)];
    rows.extend(methods);
    table(&rows)
}

/// The first cells of a row.
fn named(name: String, Quality { hit_rate, ndcg, auc }: Quality) -> Vec<String> {
    vec![name, format!("{hit_rate:.3}"), format!("{ndcg:.3}"), format!("{auc:.3}")]
}

impl Results {
    /// A row for each method, whose name begins with `kind`.
    pub(crate) fn rows<B: Backend>(
        &self,
        kind: &str,
        ranker: &Ranker<'_, B>,
        requests: &[Request],
    ) -> Vec<Vec<String>> {
        let mut rows = Vec::with_capacity(self.methods.len());
        for result in &self.methods {
            let read = |request: &Request| match result.method {
                Method::LastMean => request.history.len().min(RECENT),
                _ => request.history.len(),
            };
            let behaviours: usize = requests.iter().map(read).sum();
            let batched = result.batched.as_secs_f64().max(1e-9);
            let speedup = result.check.reference.as_secs_f64() / result.check.device.as_secs_f64().max(1e-9);
            let mut row = named(format!("{kind}{}", ranker.name(result.method)), result.quality);
            row.extend([
                figures(result.single.as_secs_f64() * 1e3),
                figures(batched * 1e3 / requests.len().max(1) as f64),
                rate(behaviours as f64 / batched),
                format!("{:.1e}", result.check.error),
                format!("{} x", figures(speedup)),
            ]);
            rows.push(row);
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_cover_every_request_within_the_limits() {
        let request = |candidates: usize| Request { history: vec![0], candidates: vec![0; candidates] };
        let sizes =
            |requests: &[Request]| batches(requests).iter().map(|batch| batch.len()).collect::<Vec<_>>();
        assert_eq!(sizes(&vec![request(2); 2500]), [1024, 1024, 452]);
        assert_eq!(sizes(&vec![request(60_000); 5]), [2, 2, 1]);
        assert_eq!(sizes(&vec![request(200_000); 2]), [1, 1]);
    }
}
