//! Cases of the statistics of DIN's layers.

use longseq::*;

use super::DinCase;
use super::bounds::{before_activations, tiny};
use crate::by_dtype;
use crate::case::{Calls, Case, Failure, Rules};
use crate::compare::{Bound, U, compare};
use crate::guard::Guarded;
use crate::named::Work;

/// Mean and sum of squared distances of every hidden layer.
pub type StatisticsBits = Vec<[Vec<f32>; 2]>;

/// The statistics of every hidden layer.
#[derive(Debug, Clone)]
pub struct StatisticsCase {
    /// The network and its inputs.
    pub forward: DinCase,
}

impl StatisticsCase {
    /// How rows are stored.
    pub fn storage(&self) -> &'static str {
        self.forward.storage()
    }

    /// The least that the calls must do.
    pub fn work(&self) -> Work {
        self.forward.work()
    }

    fn run_as<B: Backend, T: Element>(
        &self,
        backend: &B,
        calls: &mut dyn Calls,
    ) -> Result<StatisticsBits, Failure> {
        let (op, batch) = (self.forward.op(), self.forward.batch());
        let (targets, history, network) = self.forward.inputs::<T>();
        let device_batch = backend.batch(batch.histories(), batch.targets())?;
        let (targets, history) = (backend.upload(&targets)?, backend.upload(&history)?);
        network.with_uploaded(backend, |hidden, output_weight, output_bias| {
            let (targets, history) = (backend.view(&targets), backend.view(&history));
            let inputs = DinInputs::new(targets, history, hidden, output_weight, output_bias);
            let mut all = Vec::new();
            for (layer, &units) in self.forward.hidden.iter().enumerate() {
                let mut mean = Guarded::<B, f32>::new(backend, units, 0)?;
                let mut squares = Guarded::<B, f32>::new(backend, units, 0)?;
                calls.make("din_statistics", &mut || {
                    let out = DinStatistics::new(mean.view_mut(backend)?, squares.view_mut(backend)?);
                    Ok(backend.din_statistics_into(&op, &device_batch, inputs, layer, out)?)
                })?;
                all.push([mean.finish(backend, "mean")?, squares.finish(backend, "centred_squares")?]);
            }
            Ok(all)
        })
    }

    fn compare_as<T: Element>(&self, got: &[[Vec<f32>; 2]], rules: Rules) -> Result<(), Failure> {
        let (op, batch) = (self.forward.op(), self.forward.batch());
        let (targets, history, network) = self.forward.inputs::<T>();
        let exact = network.with_uploaded(&Cpu::new(), |hidden, output_weight, output_bias| {
            let (targets, history) = (Host::view(&targets), Host::view(&history));
            let inputs = DinInputs::new(targets, history, hidden, output_weight, output_bias);
            Ok(reference::din_statistics(&op, &batch, &inputs)?)
        })?;
        let sizes = before_activations(&targets, &history, &network, rules);
        // A number, the square of its distance, and the sum so far.
        let flushed = 3.0 * tiny(rules);
        for ((got, exact), (magnitude, error)) in got.iter().zip(&exact).zip(sizes) {
            // A mean of blocks of a few hundred.
            let flushed = flushed * exact.count as f64;
            let mean_error = error + 256.0 * U * magnitude + flushed;
            let squares = exact.count as f64 * (2.0 * magnitude) * (4.0 * mean_error) + flushed;
            compare("mean", &got[0], &exact.mean, &Bound::uniform(mean_error, false), rules)?;
            let close = exact.count > 100;
            compare(
                "centred_squares",
                &got[1],
                &exact.centred_squares,
                &Bound::uniform(squares, close),
                rules,
            )?;
        }
        Ok(())
    }
}

impl Case for StatisticsCase {
    type Output = StatisticsBits;

    fn run_with<B: Backend>(&self, backend: &B, calls: &mut dyn Calls) -> Result<Self::Output, Failure> {
        by_dtype!(self.forward.dtype, T => self.run_as::<B, T>(backend, calls))
    }

    fn compare(&self, output: &Self::Output, rules: Rules) -> Result<(), Failure> {
        by_dtype!(self.forward.dtype, T => self.compare_as::<T>(output, rules))
    }
}
