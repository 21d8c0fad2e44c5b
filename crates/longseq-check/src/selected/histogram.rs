//! Cases of histograms of similarities.

use longseq::*;
use rand::RngExt;

use crate::case::{Calls, Case, Failure, Rules};
use crate::compare::compare_exact;
use crate::data;
use crate::guard::Guarded;
use crate::named::Work;

/// Histograms of a selection's similarities.
#[derive(Debug, Clone)]
pub struct HistogramCase {
    /// Where the data come from.
    pub seed: u64,
    /// The number of each user's candidates.
    pub targets: Vec<usize>,
    /// Rows at the end of every input and output that belong to nobody.
    pub tail: usize,
    /// Steps from 0 to 1.
    pub steps: usize,
    /// The slots of a candidate.
    pub top_k: usize,
    /// Similarities are edges of bins and the numbers next to them.
    pub edges: bool,
    /// Some similarities are NaN, infinite or beyond 1.
    pub unusual: bool,
}

impl Default for HistogramCase {
    fn default() -> Self {
        Self { seed: 1, targets: vec![5], tail: 0, steps: 10, top_k: 50, edges: false, unusual: false }
    }
}

/// What a case reads.
struct Inputs {
    positions: Vec<u32>,
    similarities: Vec<f32>,
    counts: Vec<u32>,
}

impl HistogramCase {
    /// How similarities are stored.
    pub fn storage(&self) -> &'static str {
        "f32"
    }

    /// The operation.
    pub fn op(&self) -> SimilarityHistogram {
        SimilarityHistogram::new(self.steps).with_top_k(self.top_k)
    }

    /// The batch; histories do not matter.
    pub fn batch(&self) -> Batch {
        data::batch(&vec![0; self.targets.len()], &self.targets, self.tail)
    }

    /// The least that the call must do.
    pub fn work(&self) -> Work {
        let (op, batch) = (self.op(), self.batch());
        Work { flops: op.flops(&batch), bytes: op.bytes(&batch) }
    }

    fn inputs(&self) -> Inputs {
        let (batch, mut rng) = (self.batch(), data::rng(self.seed));
        let (rows, used, k) = (batch.targets().rows(), batch.targets().total(), self.top_k);
        let unusual = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0000001, -7.0, 1e38];
        let mut similarity = |slot: usize| {
            if self.unusual && slot % 4 == 1 {
                return unusual[rng.random_range(0..unusual.len())];
            }
            let uniform: f32 = rng.random_range(-1.0..=1.0);
            if !self.edges {
                return uniform;
            }
            let edge = (uniform * self.steps as f32).round() / self.steps as f32;
            match rng.random_range(0..3) {
                // The number next to 0 is subnormal, which a device may take for 0.
                0 if edge != 0.0 => edge.next_up(),
                1 if edge != 0.0 => edge.next_down(),
                _ => edge,
            }
        };
        let similarities: Vec<f32> = (0..rows * k).map(&mut similarity).collect();
        // All slots, none, or some; of candidates that are nobody's, too many.
        let count = |m: usize| match m % 4 {
            _ if m >= used => u32::MAX,
            0 => k as u32,
            1 => 0,
            _ => (m % (k + 1)) as u32,
        };
        let positions = vec![EMPTY_SLOT; rows * k];
        Inputs { positions, similarities, counts: (0..rows).map(count).collect() }
    }
}

impl Case for HistogramCase {
    type Output = Vec<u32>;

    fn run_with<B: Backend>(&self, backend: &B, calls: &mut dyn Calls) -> Result<Vec<u32>, Failure> {
        let (op, batch, inputs) = (self.op(), self.batch(), self.inputs());
        let device_batch = backend.batch(batch.histories(), batch.targets())?;
        let positions = backend.upload(&inputs.positions)?;
        let similarities = backend.upload(&inputs.similarities)?;
        let counts = backend.upload(&inputs.counts)?;
        let (used, unused) = (batch.targets().total() * op.bins(), self.tail * op.bins());
        let mut out = Guarded::<B, u32>::new(backend, used, unused)?;
        calls.make("similarity_histogram", &mut || {
            let kept =
                Selection::new(backend.view(&positions), backend.view(&similarities), backend.view(&counts));
            Ok(backend.similarity_histogram_into(&op, &device_batch, kept, out.view_mut(backend)?)?)
        })?;
        out.finish(backend, "out")
    }

    fn compare(&self, output: &Vec<u32>, _: Rules) -> Result<(), Failure> {
        let (op, batch, inputs) = (self.op(), self.batch(), self.inputs());
        let Inputs { positions, similarities, counts } = &inputs;
        let kept = Selection::new(Host::view(positions), Host::view(similarities), Host::view(counts));
        let exact = reference::similarity_histogram(&op, &batch, &kept)?;
        compare_exact("out", output, &exact[..output.len()])
    }
}
