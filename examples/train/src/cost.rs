//! What a step of training costs with longseq and with candle's own operations: time, and the most memory.

use std::time::Instant;

use crate::model::{Engine, Model, Trainer};
use crate::options::Options;
use crate::progress::Progress;
use crate::protocol::Seeded;
use crate::samples::Sample;
use crate::systems::System;
use crate::training::{Data, epoch_seed};
use crate::{HEAP, Outcome};

/// The cost of training with one engine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Of an epoch: as many times the mean of the timed steps as it has steps.
    pub(crate) seconds: f64,
    /// The most memory on the heap that a step needed, in bytes, without what was there before it.
    pub(crate) bytes: usize,
}

/// Batches of an epoch that are timed: of its samples in order of length, spread evenly, so that padding costs the least.
fn batches(options: &Options, data: &Data) -> Vec<Sample> {
    let mut random = Seeded::new(epoch_seed(options.seed, 0));
    let mut places = data.train.draw(options.samples(), &mut random);
    places.sort_by_key(|&place| data.train.length(place, options.history));
    let batches: Vec<_> = places.chunks(options.batch).collect();
    let count = options.timed_steps().min(batches.len());
    let chosen = (0..count).map(|index| batches[(2 * index + 1) * batches.len() / (2 * count)]);
    chosen.map(|places| data.train.sample(places, options.history, options.negatives, &mut random)).collect()
}

/// Times both engines on the same batches, one after the other from the same first weights.
///
/// # Errors
/// Those of training.
pub(crate) fn compare(
    system: System,
    options: &Options,
    data: &Data,
    progress: &Progress,
) -> Outcome<[Cost; 2]> {
    let batches = batches(options, data);
    let steps = options.samples().min(data.train.len()).div_ceil(options.batch);
    progress.stage("Timing steps", 2 * batches.len());
    let measure = |engine: Engine| -> Outcome<Cost> {
        let model = Model::new(system, data.sizes, data.contents.as_ref(), options.seed)?;
        let mut trainer = Trainer::new(model, engine, options.rates())?;
        // The first step makes states of optimisers and wakes threads.
        if let Some(batch) = batches.first() {
            trainer.step(batch)?;
        }
        let (mut seconds, mut bytes) = (0.0, 0);
        for batch in &batches {
            let before = HEAP.current_usage();
            HEAP.reset_peak_usage();
            let begin = Instant::now();
            trainer.step(batch)?;
            seconds += begin.elapsed().as_secs_f64();
            bytes = bytes.max(HEAP.peak_usage().saturating_sub(before));
            progress.step();
        }
        Ok(Cost { seconds: seconds / batches.len().max(1) as f64 * steps as f64, bytes })
    };
    Ok([measure(Engine::Longseq)?, measure(Engine::Eager)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Log;
    use clap::Parser;

    #[test]
    fn both_engines_are_measured_on_batches_of_every_length() {
        let users = (0..6).map(|user| (0..60).map(|event| user * 60 + event).collect()).collect();
        let log = Log { name: "test".into(), users, items: 400 };
        let arguments = [
            "train",
            "--quick",
            "--samples",
            "96",
            "--batch",
            "16",
            "--timed-steps",
            "3",
            "--systems",
            "tin",
        ];
        let options = Options::parse_from(arguments);
        let data = Data::new(&log, &options).unwrap();
        let batches = batches(&options, &data);
        let longest: Vec<_> = batches.iter().map(|batch| batch.lengths.iter().max().copied()).collect();
        assert!(longest.is_sorted() && longest[0] < longest[2], "{longest:?}");
        for cost in compare(System::Tin, &options, &data, &Progress::hidden()).unwrap() {
            assert!(cost.seconds > 0.0 && cost.bytes > 0, "{cost:?}");
        }
    }
}
