//! Training with early stopping on validation, and the scores of the test at the best epoch.

use std::time::Instant;

use crate::Outcome;
use crate::contents::Contents;
use crate::data::Log;
use crate::metrics;
use crate::model::{Engine, Model, Trainer};
use crate::options::Options;
use crate::progress::Progress;
use crate::protocol::{Protocol, Request, Seeded, Split};
use crate::samples::{Sample, TrainingSet};
use crate::systems::{Sizes, System};

/// A log in three parts.
pub(crate) struct Data {
    /// Each user's events without the last two.
    pub(crate) train: TrainingSet,
    /// The last but one of each user.
    pub(crate) valid: Vec<Request>,
    /// The last of each user, with the candidates that `rank` ranks.
    pub(crate) test: Vec<Request>,
    pub(crate) sizes: Sizes,
    pub(crate) contents: Option<Contents>,
}

/// Seed of the test's candidates: `rank`'s own by default.
const TEST_SEED: u64 = 1;
const VALID_SEED: u64 = 2;
/// Requests that are scored at a time.
const REQUESTS: usize = 64;

impl Data {
    /// Splits a log in time.
    pub(crate) fn new(log: &Log, options: &Options) -> Outcome<Self> {
        let protocol = |seed| Protocol {
            min_events: options.min_events,
            max_requests: options.requests(),
            negatives: options.candidates,
            seed,
        };
        let test = Split::new(log, &protocol(TEST_SEED))?;
        // Validation and training know nothing of the events of the test, not even as items that are no negatives.
        let before = Log { name: log.name.clone(), users: test.known, items: log.items };
        let valid = Split::new(&before, &protocol(VALID_SEED))?;
        let sizes = Sizes { items: log.items, width: options.width, history: options.history };
        let contents = match options.contents() {
            Some(path) if options.needs_contents() => Some(Contents::open(&path, log.items)?),
            None if options.needs_contents() => {
                return Err("MUSE searches in the contents of items: give them with --contents".into());
            }
            _ => None,
        };
        let train = TrainingSet::new(valid.known, log.items, options.negatives_from)?;
        Ok(Self { train, valid: valid.requests, test: test.requests, sizes, contents })
    }
}

/// One epoch of training.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Epoch {
    /// The mean loss of its steps.
    pub(crate) loss: f64,
    /// GAUC of validation after it.
    pub(crate) valid: f64,
}

/// A trained model.
pub(crate) struct Trained {
    pub(crate) model: Model,
    pub(crate) curve: Vec<Epoch>,
    /// The epoch that the weights are of.
    pub(crate) best: usize,
    /// Time of all training steps, drawing of samples included.
    pub(crate) seconds: f64,
    /// Of each request of validation, the scores of its candidates.
    pub(crate) valid: Vec<Vec<f32>>,
    /// The same of the test.
    pub(crate) scores: Vec<Vec<f32>>,
}

/// When to stop: after so many epochs that were no better than the best.
pub(crate) struct EarlyStopping {
    patience: usize,
    best: Option<(usize, f64)>,
}

impl EarlyStopping {
    pub(crate) fn new(patience: usize) -> Self {
        Self { patience, best: None }
    }

    /// Takes note of an epoch's quality; whether it is the best so far.
    pub(crate) fn is_best(&mut self, epoch: usize, quality: f64) -> bool {
        let is_best = self.best.is_none_or(|(_, best)| quality > best);
        if is_best {
            self.best = Some((epoch, quality));
        }
        is_best
    }

    /// Whether no more epochs are worth it after this one.
    pub(crate) fn is_over(&self, epoch: usize) -> bool {
        epoch - self.best() >= self.patience
    }

    /// The best epoch so far.
    pub(crate) fn best(&self) -> usize {
        self.best.map_or(0, |(epoch, _)| epoch)
    }
}

/// The samples of an epoch do not depend on the system, so that all are trained on the same.
pub(crate) fn epoch_seed(seed: u64, epoch: usize) -> u64 {
    Seeded::new(seed.wrapping_mul(1_000_003).wrapping_add(epoch as u64)).next()
}

/// The scores of each request's candidates.
pub(crate) fn scores(model: &Model, requests: &[Request]) -> candle_core::Result<Vec<Vec<f32>>> {
    let mut all = Vec::with_capacity(requests.len());
    for some in requests.chunks(REQUESTS) {
        let sample = Sample::of_requests(some, model.sizes().history);
        let scores = model.forward(&sample, Engine::Longseq)?.to_vec1::<f32>()?;
        let mut start = 0;
        for &count in &sample.counts {
            all.push(scores[start..start + count].to_vec());
            start += count;
        }
    }
    Ok(all)
}

/// GAUC: the mean of the requests' own.
fn gauc(scores: &[Vec<f32>]) -> f64 {
    let of_requests: Vec<_> = scores.iter().map(|scores| metrics::quality(scores)).collect();
    metrics::mean(&of_requests).auc
}

/// Trains a system.
pub(crate) fn train(
    system: System,
    options: &Options,
    data: &Data,
    seed: u64,
    progress: &Progress,
) -> Outcome<Trained> {
    let model = Model::new(system, data.sizes, data.contents.as_ref(), seed)?;
    let mut trainer = Trainer::new(model, Engine::Longseq, options.rates())?;
    let steps = options.samples().min(data.train.len()).div_ceil(options.batch);
    progress.stage(system.name(), options.epochs() * steps);
    let mut stopping = EarlyStopping::new(options.patience);
    let (mut curve, mut seconds, mut best) = (Vec::new(), 0.0, None);
    for epoch in 0..options.epochs() {
        let begin = Instant::now();
        let mut random = Seeded::new(epoch_seed(seed, epoch));
        let places = data.train.draw(options.samples(), &mut random);
        let mut sum = 0.0;
        for (step, places) in places.chunks(options.batch).enumerate() {
            // Rates fall in a straight line to nothing at the end of the last epoch.
            trainer.scale_rates(1.0 - (epoch * steps + step) as f64 / (options.epochs() * steps) as f64);
            let sample = data.train.sample(places, options.history, options.negatives, &mut random);
            sum += f64::from(trainer.step(&sample)?);
            progress.step();
        }
        seconds += begin.elapsed().as_secs_f64();
        let valid = gauc(&scores(&trainer.model, &data.valid)?);
        curve.push(Epoch { loss: sum / steps as f64, valid });
        if stopping.is_best(epoch, valid) {
            best = Some(trainer.model.weights.snapshot()?);
        }
        if stopping.is_over(epoch) {
            break;
        }
    }
    let model = trainer.model;
    if let Some(best) = best {
        model.weights.restore(&best)?;
    }
    if options.save.is_some() {
        // The figures are those of the file.
        model.round_tables()?;
    }
    let (valid, scores) = (scores(&model, &data.valid)?, scores(&model, &data.test)?);
    Ok(Trained { model, curve, best: stopping.best(), seconds, valid, scores })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn training_stops_after_patience_and_keeps_the_best() {
        let mut stopping = EarlyStopping::new(2);
        let steps: Vec<(bool, bool)> = [0.5, 0.7, 0.6, 0.7, 0.9]
            .into_iter()
            .enumerate()
            .map(|(epoch, quality)| (stopping.is_best(epoch, quality), stopping.is_over(epoch)))
            .collect();
        // The fourth is as good as the second, which is no better: training is over there.
        assert_eq!(steps, [(true, false), (true, false), (false, false), (false, true), (true, false)]);
        assert_eq!(stopping.best(), 4);
    }

    fn options(more: &[&str]) -> Options {
        Options::parse_from([&["train", "--quick"], more].concat())
    }

    #[test]
    fn the_parts_of_a_log_are_apart_in_time() {
        let log = Log { name: "test".into(), users: vec![(0..9).collect(), (20..40).collect()], items: 100 };
        let data = Data::new(&log, &options(&["--systems", "tin"])).unwrap();
        let history = |requests: &[Request]| requests[0].history.clone();
        assert_eq!((history(&data.valid), data.valid[0].candidates[0]), ((0..7).collect::<Vec<u32>>(), 7));
        assert_eq!((history(&data.test), data.test[0].candidates[0]), ((0..8).collect::<Vec<u32>>(), 8));
        // Of 7 and 18 events, those after the first five.
        assert_eq!(data.train.len(), 2 + 13);
        let mut random = Seeded::new(1);
        let sample = data.train.sample(&data.train.draw(100, &mut random), 200, 4, &mut random);
        assert!(!sample.history.iter().any(|item| [7, 8, 38, 39].contains(item)));
        let met = sample.targets.iter().zip(&sample.clicks).filter(|(_, click)| **click == 1.0);
        assert!(
            met.clone().count() == 15 && !met.map(|(item, _)| item).any(|item| [7, 8, 38, 39].contains(item))
        );
    }

    #[test]
    fn the_same_seed_trains_the_same_model() {
        let log = Log::movielens().unwrap();
        let options = options(&["--requests", "20", "--samples", "200", "--width", "8"]);
        let data = Data::new(&log, &options).unwrap();
        let run = |seed| train(System::Tin, &options, &data, seed, &Progress::hidden()).unwrap();
        let (one, two, other) = (run(1), run(1), run(2));
        assert_eq!(one.scores, two.scores);
        assert_eq!(one.curve[0].loss.to_bits(), two.curve[0].loss.to_bits());
        assert_ne!(one.scores, other.scores);
        assert_eq!((one.scores.len(), one.scores[0].len()), (20, 101));
    }
}
