//! The error of a device against the reference, measured on a sample of the requests of this run.

use std::time::{Duration, Instant};

use longseq::prelude::*;

use longseq::{
    Activation, AggregateInputs, Bags, Buffer, DinInputs, DinLayer, Hash, Host, Jagged, Lookup, LookupInputs,
    SdimAttendInputs, SdimQueryInputs, SearchInputs, Selection, Table, TableData, TargetAttentionInputs,
    reference,
};

use crate::Outcome;
use crate::method::Method;
use crate::protocol::{Batch, Request, Seeded};
use crate::ranker::{Ranker, recent};
use crate::timing::Budget;

/// The result of checking one method.
pub(crate) struct Check {
    /// The largest difference from the reference over the interest vectors of the sample (and the scores of the
    /// search), relative to the largest component of the reference's row.
    pub(crate) error: f64,
    /// Time of the reference for the sample.
    pub(crate) reference: Duration,
    /// Time of the device for the sample.
    pub(crate) device: Duration,
    pub(crate) choices: Choices,
}

/// Discrete choices: signatures or kept positions. Where a projection, or a difference of scores, is within rounding of
/// 0, either choice is correct; differing choices are counted, and the error is measured given the device's choices.
#[derive(Default)]
pub(crate) struct Choices {
    /// Number that differ from the reference's.
    pub(crate) differing: usize,
    pub(crate) total: usize,
}

/// The reference's results for a batch.
#[derive(Default)]
struct Expected {
    interests: Vec<f64>,
    /// The largest error other than that of the interests.
    error: f64,
    choices: Choices,
    /// Time of the reference for the part of the work that a request waits for.
    time: Duration,
}

/// The requests that are compared with the reference.
pub(crate) struct Sample {
    /// The longest history first; it may have fewer candidates than the request it comes from.
    pub(crate) requests: Vec<Request>,
    /// Number of candidates of the first request before any were left out.
    pub(crate) candidates_of_longest: usize,
    /// Number of requests whose histories alone are too long for the reference.
    pub(crate) too_long: usize,
}

/// The longest history, and random other requests up to `most` in all: what the reference computes in about a second.
/// The longest history gives up candidates where it has too many for that, not its place.
pub(crate) fn sample(requests: &[Request], most: usize, seed: u64) -> Sample {
    sample_within(requests, most, seed, 400_000)
}

/// [`sample`] with at most `pairs` pairs of a candidate and a behaviour for the longest history, and half of that for the
/// others.
fn sample_within(requests: &[Request], most: usize, seed: u64, pairs: usize) -> Sample {
    let mut order: Vec<&Request> = requests.iter().filter(|request| request.history.len() <= pairs).collect();
    let too_long = requests.len() - order.len();
    Seeded::new(seed).shuffle(&mut order);
    let longest = (0..order.len()).max_by_key(|&i| order[i].history.len());
    let mut sample = Sample { requests: Vec::new(), candidates_of_longest: 0, too_long };
    let Some(longest) = longest else { return sample };
    order.swap(0, longest);
    let mut first = order[0].clone();
    sample.candidates_of_longest = first.candidates.len();
    first.candidates.truncate((pairs / first.history.len().max(1)).max(1));
    sample.requests.push(first);
    let mut left = pairs / 2;
    for request in order.into_iter().skip(1) {
        let more = request.history.len() * request.candidates.len();
        if sample.requests.len() < most && more <= left {
            left -= more;
            sample.requests.push(request.clone());
        }
    }
    sample
}

impl<B: Backend> Ranker<'_, B> {
    /// Compares one method with the reference.
    pub(crate) fn check(&self, method: Method, batch: &Batch) -> Outcome<Check> {
        let tables = self.tables_for(&[method], batch)?;
        let interests = self.interests(method, batch, &tables)?.rows;
        let runs = Budget { time: Duration::ZERO, min_runs: 3, max_runs: 3 };
        let device = runs.median(|| self.interests(method, batch, &tables).map(drop))?;
        let pair = longseq::Batch::new(batch.histories.clone(), batch.targets.clone())?;
        let full = [host_table(&self.tables.full, self.tables.width)];
        let expected = match method {
            Method::LastMean => {
                let (ids, bags) = recent(batch)?;
                let inputs = LookupInputs::new(Host::view(&ids), &full);
                let run = || reference::lookup(&Lookup::default(), Bags::<Jagged>::Mean(&bags), &inputs);
                let (out, time) = timed(run)?;
                Expected { interests: out.0, time, ..Expected::default() }
            }
            Method::TargetAttention => {
                let table = self.tables.queries.as_ref().unwrap_or(&self.tables.full);
                let (queries, keys) =
                    (self.gathered_from(table, &batch.candidates), self.gathered(&batch.history));
                let (queries, keys) = (Host::view(&queries), Host::view(&keys));
                let inputs = TargetAttentionInputs::new(queries, keys);
                let (out, time) = timed(|| reference::target_attention(&self.attention, &pair, &inputs))?;
                Expected { interests: out.out, time, ..Expected::default() }
            }
            Method::Din => self.expected_of_din(batch, &pair)?,
            Method::Sdim => self.expected_of_sdim(batch, &pair, &tables)?,
            Method::Decoupled => self.expected_of_decoupled(batch, &pair, &full)?,
        };
        let error = largest_error(&interests, &expected.interests, self.tables.width).max(expected.error);
        Ok(Check { error, reference: expected.time, device, choices: expected.choices })
    }

    fn expected_of_din(&self, batch: &Batch, pair: &longseq::Batch) -> Outcome<Expected> {
        let Some(network) = self.network else { return Err("DIN needs a trained network".into()) };
        let (targets, history) = (self.gathered(&batch.candidates), self.gathered(&batch.history));
        let activation = Activation::Prelu { alpha: Host::view(&network.alpha) };
        let hidden = [DinLayer::new(Host::view(&network.weight), Host::view(&network.bias), activation)];
        let (weight, bias) = (Host::view(&network.output_weight), Host::view(&network.output_bias));
        let inputs = DinInputs::new(Host::view(&targets), Host::view(&history), &hidden, weight, bias);
        let (interests, time) = timed(|| reference::din(&self.din, pair, &inputs))?;
        Ok(Expected { interests, time, ..Expected::default() })
    }

    /// The expected interests are computed from the history, not from the device's table. Only the look-up in that table
    /// is timed, as on the device.
    fn expected_of_sdim(
        &self,
        batch: &Batch,
        pair: &longseq::Batch,
        tables: &Buffer<B, f32>,
    ) -> Outcome<Expected> {
        let (history, targets) = (self.gathered(&batch.history), self.gathered(&batch.candidates));
        let (of_history, of_targets) =
            (self.signatures(&batch.history)?, self.signatures(&batch.candidates)?);
        let mut choices = Choices { differing: 0, total: of_history.len() + of_targets.len() };
        for (rows, given) in [(&history, &of_history), (&targets, &of_targets)] {
            let exact = reference::sdim_signatures(&self.sdim, rows, &self.rotations)?;
            choices.differing += exact.iter().zip(given).filter(|&(&a, &b)| a != u32::from(b)).count();
        }
        let [of_history, of_targets] =
            [&of_history, &of_targets].map(|given| Hash::Signatures8(Host::view(&given[..])));
        let inputs = SdimAttendInputs::new(Host::view(&history), of_history, of_targets);
        let interests = reference::sdim_attend(&self.sdim, pair, &inputs)?;
        let table = self.backend.download(self.backend.view(tables))?;
        let hash = Hash::Rotations(Host::view(&self.rotations));
        let inputs = SdimQueryInputs::new(Host::view(&table), hash).with_targets(Host::view(&targets));
        let (_, time) = timed(|| reference::sdim_query(&self.sdim, &batch.targets, &inputs))?;
        Ok(Expected { interests, error: 0.0, choices, time })
    }

    /// The search is compared by its scores; the aggregation is computed from the device's selection.
    fn expected_of_decoupled(
        &self,
        batch: &Batch,
        pair: &longseq::Batch,
        full: &[Table<'_, Host>],
    ) -> Outcome<Expected> {
        let kept = self.search_and_aggregate(batch)?.kept;
        let positions = self.backend.download(self.backend.view(&kept.positions))?;
        let scores = self.backend.download(self.backend.view(&kept.scores))?;
        let counts = self.backend.download(self.backend.view(&kept.counts))?;
        let attention = [host_table(&self.tables.attention, self.tables.attention_width)];
        let (ids, target_ids) = (Host::view(&batch.history), Host::view(&batch.candidates));
        let inputs = SearchInputs::new(&attention, ids, target_ids);
        let (exact, searching) = timed(|| reference::decoupled_search(&self.decoupled, pair, &inputs))?;
        let selection = Selection::new(Host::view(&positions), Host::view(&scores), Host::view(&counts));
        let inputs = AggregateInputs::new(full, ids, target_ids);
        let run = || reference::decoupled_aggregate(&self.decoupled, pair, &inputs, &selection);
        let (interests, aggregating) = timed(run)?;
        let choices = Choices {
            differing: exact.positions.iter().zip(&positions).filter(|(a, b)| a != b).count(),
            total: exact.counts.iter().map(|&count| count as usize).sum(),
        };
        let error = largest_error(&scores, &exact.scores, self.top_k());
        Ok(Expected { interests, error, choices, time: searching + aggregating })
    }

    /// The embedding rows of `ids`, on the host.
    fn gathered(&self, ids: &[u32]) -> Vec<f32> {
        self.gathered_from(&self.tables.full, ids)
    }

    fn gathered_from(&self, table: &[f32], ids: &[u32]) -> Vec<f32> {
        let width = self.tables.width;
        ids.iter().flat_map(|&id| &table[id as usize * width..][..width]).copied().collect()
    }
}

/// The result, and the time of a second run: the first one warms up caches.
fn timed<T>(run: impl Fn() -> longseq::Result<T>) -> longseq::Result<(T, Duration)> {
    run()?;
    let start = Instant::now();
    run().map(|out| (out, start.elapsed()))
}

fn host_table(data: &[f32], width: usize) -> Table<'_, Host> {
    Table::new(data.len() / width, width, TableData::F32(Host::view(data)))
}

/// The largest difference over rows of `width`, each divided by the row's largest exact value. Equal values have error
/// 0, also where both are infinite; NaN has error infinity.
fn largest_error(got: &[f32], exact: &[f64], width: usize) -> f64 {
    if got.len() != exact.len() {
        return f64::INFINITY;
    }
    let mut largest: f64 = 0.0;
    for (got, exact) in got.chunks(width).zip(exact.chunks(width)) {
        let finite = exact.iter().filter(|value| value.is_finite());
        let size = finite.fold(f64::MIN_POSITIVE, |size, value| size.max(value.abs()));
        for (&got, &exact) in got.iter().zip(exact) {
            let difference =
                if f64::from(got) == exact { 0.0 } else { (f64::from(got) - exact).abs() / size };
            largest = largest.max(if difference.is_nan() { f64::INFINITY } else { difference });
        }
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_relative_to_the_largest_value_of_their_row() {
        assert_eq!(largest_error(&[1.0, 2.0, 10.0, 0.0], &[1.0, 2.0, 8.0, 0.0], 2), 0.25);
        assert_eq!(largest_error(&[0.0, f32::NEG_INFINITY], &[0.0, f64::NEG_INFINITY], 2), 0.0);
        assert_eq!(largest_error(&[f32::NAN], &[1.0], 1), f64::INFINITY);
        assert_eq!(largest_error(&[1.0], &[], 1), f64::INFINITY);
    }

    #[test]
    fn the_longest_history_is_sampled_with_the_candidates_that_fit() {
        let request = |length: usize| Request { history: vec![0; length], candidates: vec![0; 100] };
        let sizes = |lengths: &[usize], most| {
            let requests: Vec<Request> = lengths.iter().copied().map(request).collect();
            let sample = sample_within(&requests, most, 1, 4_000);
            let size = |request: &Request| (request.history.len(), request.candidates.len());
            (sample.requests.iter().map(size).collect::<Vec<_>>(), sample.too_long)
        };
        assert_eq!(sizes(&[1, 40, 2, 3], 2).0[0], (40, 100));
        assert_eq!(sizes(&[1, 40, 2, 3], 2).0.len(), 2);
        assert_eq!(sizes(&[1, 1_000, 2, 3], 9).0[0], (1_000, 4));
        assert_eq!(sizes(&[1, 1_000, 2, 3], 9).0.len(), 4);
        assert_eq!(sizes(&[3_000, 4_000, 5_000], 9), (vec![(4_000, 1)], 1));
        assert_eq!(sizes(&[0], 9).0, [(0, 100)]);
        assert_eq!(sizes(&[5_000], 9), (vec![], 1));
    }
}
