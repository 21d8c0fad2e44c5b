//! Counters, gauges and histograms as Prometheus reads them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Upper bounds of latencies, in seconds.
const SECONDS: [f64; 15] =
    [0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];
/// Upper bounds of sizes of batches.
const SIZES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// The routes that have a histogram of their own; others are in the last.
pub(crate) const ROUTES: [&str; 7] =
    ["/rank", "/events", "/users", "/users/{user}", "/health", "/metrics", "other"];

/// Everything that is counted.
pub(crate) struct Metrics {
    answers: Mutex<BTreeMap<(&'static str, u16), u64>>,
    latencies: [Histogram<15>; ROUTES.len()],
    /// Requests for ranks that were answered by one call of each operation.
    pub(crate) batches: Histogram<9>,
    /// Requests with events that were written in one transaction.
    pub(crate) commits: Histogram<9>,
    /// Users with a slot.
    pub(crate) users: AtomicU64,
    pub(crate) evictions: AtomicU64,
    /// Users whose slot was filled from the store.
    pub(crate) loads: AtomicU64,
    /// Events that were acknowledged since the start.
    pub(crate) events: AtomicU64,
    pub(crate) snapshots_read: AtomicU64,
    pub(crate) snapshots_refused: AtomicU64,
    pub(crate) snapshots_written: AtomicU64,
}

/// Counts of values by upper bound.
pub(crate) struct Histogram<const N: usize> {
    bounds: [f64; N],
    counts: [AtomicU64; N],
    above: AtomicU64,
    /// In millionths.
    sum: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: [f64; N]) -> Self {
        let counts = std::array::from_fn(|_| AtomicU64::new(0));
        Self { bounds, counts, above: AtomicU64::new(0), sum: AtomicU64::new(0) }
    }

    pub(crate) fn add(&self, value: f64) {
        let bound = self.bounds.iter().position(|&bound| value <= bound);
        bound.map_or(&self.above, |bound| &self.counts[bound]).fetch_add(1, Relaxed);
        self.sum.fetch_add((value * 1e6) as u64, Relaxed);
    }

    /// `labels` is empty, or ends in a comma.
    fn write(&self, out: &mut String, name: &str, labels: &str) -> std::fmt::Result {
        let mut total = 0;
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            total += count.load(Relaxed);
            writeln!(out, "{name}_bucket{{{labels}le=\"{bound}\"}} {total}")?;
        }
        total += self.above.load(Relaxed);
        writeln!(out, "{name}_bucket{{{labels}le=\"+Inf\"}} {total}")?;
        let labels = labels.trim_end_matches(',');
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        writeln!(out, "{name}_sum{labels} {}", self.sum.load(Relaxed) as f64 / 1e6)?;
        writeln!(out, "{name}_count{labels} {total}")
    }
}

/// What is measured when it is asked for.
pub(crate) struct Gauges {
    /// Requests that wait, by queue.
    pub(crate) queues: [(&'static str, usize); 2],
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            answers: Mutex::new(BTreeMap::new()),
            latencies: std::array::from_fn(|_| Histogram::new(SECONDS)),
            batches: Histogram::new(SIZES),
            commits: Histogram::new(SIZES),
            users: zero(),
            evictions: zero(),
            loads: zero(),
            events: zero(),
            snapshots_read: zero(),
            snapshots_refused: zero(),
            snapshots_written: zero(),
        }
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, route: Option<&str>, status: u16, after: Duration) {
        let index = ROUTES.iter().position(|known| route == Some(known)).unwrap_or(ROUTES.len() - 1);
        // Counts are right after a panic elsewhere, too.
        let mut answers = self.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *answers.entry((ROUTES[index], status)).or_default() += 1;
        drop(answers);
        self.latencies[index].add(after.as_secs_f64());
    }

    /// The text that Prometheus reads.
    pub(crate) fn text(&self, gauges: &Gauges) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        let about = |out: &mut String, name: &str, kind: &str, help: &str| {
            writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
        };
        about(&mut out, "service_requests_total", "counter", "Answers by route and status.")?;
        let answers = self.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        for ((route, status), count) in answers {
            writeln!(out, "service_requests_total{{route=\"{route}\",status=\"{status}\"}} {count}")?;
        }
        let name = "service_request_duration_seconds";
        about(&mut out, name, "histogram", "From the head of a request to its answer.")?;
        for (route, histogram) in ROUTES.iter().zip(&self.latencies) {
            histogram.write(&mut out, name, &format!("route=\"{route}\","))?;
        }
        let name = "service_rank_batch_requests";
        about(&mut out, name, "histogram", "Requests that were ranked by one call of each operation.")?;
        self.batches.write(&mut out, name, "")?;
        let name = "service_event_commit_requests";
        about(&mut out, name, "histogram", "Requests whose events were written in one transaction.")?;
        self.commits.write(&mut out, name, "")?;
        about(&mut out, "service_queue_length", "gauge", "Requests that wait.")?;
        for (queue, length) in gauges.queues {
            writeln!(out, "service_queue_length{{queue=\"{queue}\"}} {length}")?;
        }
        let numbers = [
            ("service_users", "gauge", "Users with a slot.", &self.users),
            ("service_evictions_total", "counter", "Users who lost their slot to another.", &self.evictions),
            ("service_loads_total", "counter", "Users whose slot was filled from the store.", &self.loads),
            ("service_events_total", "counter", "Events that were acknowledged.", &self.events),
            ("service_snapshots_read_total", "counter", "Tables read from snapshots.", &self.snapshots_read),
            (
                "service_snapshots_refused_total",
                "counter",
                "Snapshots that were damaged or of another model; their tables were built from the log.",
                &self.snapshots_refused,
            ),
            ("service_snapshots_written_total", "counter", "Tables saved.", &self.snapshots_written),
        ];
        for (name, kind, help, number) in numbers {
            about(&mut out, name, kind, help)?;
            writeln!(out, "{name} {}", number.load(Relaxed))?;
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_add_up() {
        let metrics = Metrics::new();
        for (micros, status) in [(100, 200), (900, 200), (30_000_000, 503)] {
            metrics.answered(Some("/rank"), status, Duration::from_micros(micros));
        }
        metrics.answered(None, 404, Duration::ZERO);
        let text = metrics.text(&Gauges { queues: [("rank", 3), ("events", 0)] }).unwrap();
        for line in [
            "service_requests_total{route=\"/rank\",status=\"200\"} 2",
            "service_requests_total{route=\"other\",status=\"404\"} 1",
            "service_request_duration_seconds_bucket{route=\"/rank\",le=\"0.0002\"} 1",
            "service_request_duration_seconds_bucket{route=\"/rank\",le=\"5\"} 2",
            "service_request_duration_seconds_bucket{route=\"/rank\",le=\"+Inf\"} 3",
            "service_request_duration_seconds_sum{route=\"/rank\"} 30.001",
            "service_request_duration_seconds_count{route=\"/rank\"} 3",
            "service_rank_batch_requests_sum 0",
            "service_queue_length{queue=\"rank\"} 3",
        ] {
            assert!(text.lines().any(|got| got == line), "no {line} in\n{text}");
        }
    }
}
