//! Cases of histograms of the similarities of a user's newest behaviours: what a search reads, counted.

use longseq::*;

use super::SearchCase;
use crate::case::{Calls, Case, Failure, Rules};
use crate::compare::U;
use crate::guard::Guarded;
use crate::named::Work;

/// Histograms of the similarities of the newest behaviours.
#[derive(Debug, Clone)]
pub struct NewestCase {
    /// Rows and scores; its `top_k` are the newest behaviours that count.
    pub search: SearchCase,
    /// Steps from 0 to 1.
    pub steps: usize,
}

impl Default for NewestCase {
    fn default() -> Self {
        Self { search: SearchCase::default(), steps: 10 }
    }
}

impl NewestCase {
    /// How rows are stored.
    pub fn storage(&self) -> &'static str {
        self.search.storage()
    }

    /// The operation.
    pub fn op(&self) -> SimilarityHistogram {
        SimilarityHistogram::new(self.steps).with_top_k(self.search.top_k)
    }

    /// The least that the call must do: the scores of the newest behaviours.
    pub fn work(&self) -> Work {
        let newest: Vec<usize> =
            self.search.histories.iter().map(|&length| length.min(self.search.top_k)).collect();
        SearchCase { histories: newest, ..self.search.clone() }.work("search")
    }
}

impl Case for NewestCase {
    type Output = Vec<u32>;

    fn run_with<B: Backend>(&self, backend: &B, calls: &mut dyn Calls) -> Result<Vec<u32>, Failure> {
        let (op, search, batch) = (self.op(), self.search.op(), self.search.batch());
        let inputs = self.search.inputs()?;
        let device_batch = backend.batch(batch.histories(), batch.targets())?;
        let (queries, keys) = (inputs.queries.upload(backend)?, inputs.keys.upload(backend)?);
        let bias = inputs.bias.as_ref().map(|bias| backend.upload(bias)).transpose()?;
        let (used, unused) = (batch.targets().total() * op.bins(), self.search.tail * op.bins());
        let mut out = Guarded::<B, u32>::new(backend, used, unused)?;
        let mut views = SimilarityInputs::new(queries.view(backend), keys.view(backend));
        views.bias = bias.as_ref().map(|bias| backend.view(bias));
        calls.make("newest_histogram", &mut || {
            Ok(backend.newest_histogram_into(&op, &search, &device_batch, views, out.view_mut(backend)?)?)
        })?;
        out.finish(backend, "out")
    }

    /// A similarity within its error of an edge may be on either side. Up to each edge, as many must be counted as are certainly
    /// below it, and no more than may be.
    fn compare(&self, output: &Vec<u32>, rules: Rules) -> Result<(), Failure> {
        let (op, search, batch) = (self.op(), self.search.op(), self.search.batch());
        let inputs = self.search.inputs()?;
        let views = inputs.views();
        let error = self.search.score_error(&inputs, rules);
        for (history, targets) in batch.requests() {
            let newest = history.end.saturating_sub(op.top_k).max(history.start)..history.end;
            for m in targets {
                let scores =
                    reference::search_scores(&search, &views, newest.clone(), m).into_iter().flatten();
                let scores: Vec<f64> = scores.filter(|&score| score != f64::NEG_INFINITY).collect();
                let mut counted = 0;
                for (bin, count) in output[m * op.bins()..(m + 1) * op.bins()].iter().enumerate() {
                    counted += *count as usize;
                    let is_last = bin + 1 == op.bins();
                    let edge = (bin as f64 - self.steps as f64) / self.steps as f64;
                    // The product with the steps is rounded once more.
                    let below = |score: &&f64, shift: f64| {
                        is_last || **score + shift * (error + 2.0 * U * score.abs()) <= edge
                    };
                    let least = scores.iter().filter(|score| below(score, 1.0)).count();
                    let most = scores.iter().filter(|score| below(score, -1.0)).count();
                    if !(least..=most).contains(&counted) {
                        return Err(Failure::new(format!(
                            "candidate {m}: {counted} in bins up to {bin}, reference {least} to {most}"
                        )));
                    }
                }
            }
        }
        Ok(())
    }
}
