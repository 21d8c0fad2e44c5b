//! Cases of search.

pub(crate) mod cases;
mod compare;
mod hostile;
mod newest;
pub(crate) mod orders;
mod rows;
pub mod tests;
mod wide;

pub use newest::NewestCase;
pub use rows::Compared;
pub use wide::adds_up_a_wide_row;

use longseq::*;
use rand::RngExt;

use crate::case::{Calls, Case, Failure, Rules};
use crate::data::{self, Data};
use crate::guard::Guarded;
use crate::named::Work;
use rows::{Stored, signs};

/// The formula, as `explain` prints it.
pub const FORMULA: &str = "\
dot:     s[m, l] = scale · ⟨q[m], k[l]⟩ + bias[l]
cosine:  s[m, l] = ⟨q[m], k[l]⟩ / (‖q[m]‖ · ‖k[l]‖); rows of zeros are never kept
Hamming: s[m, l] = bits − differing bits of packed signs
search: the K behaviours of largest s, ties by position
match: the newest K behaviours whose key is the candidate's
pack_signs: bit i of a row is 1 where ⟨x, R[:, i]⟩ > 0";

/// A search; by Hamming distances also the packing of signs.
#[derive(Debug, Clone)]
pub struct SearchCase {
    /// Where the data come from.
    pub seed: u64,
    /// What ranks behaviours.
    pub score: SearchScore,
    /// How rows of numbers are stored; for Hamming distances those that are packed, as floats.
    pub stored: Compared,
    /// What the numbers look like.
    pub data: Data,
    /// The length of each user's history.
    pub histories: Vec<usize>,
    /// The number of each user's candidates.
    pub targets: Vec<usize>,
    /// Rows at the end of every input and output that belong to nobody.
    pub tail: usize,
    /// The numbers of a row, or its bits.
    pub width: usize,
    /// How many behaviours are kept.
    pub top_k: usize,
    /// With dot products: whether there is a bias, which removes every seventh behaviour.
    pub bias: bool,
    /// Whether some rows are zeros.
    pub zeros: bool,
    /// Whether some rows are equal to others.
    pub repeated: bool,
}

impl Default for SearchCase {
    fn default() -> Self {
        Self {
            seed: 1,
            score: SearchScore::Cosine,
            stored: Compared::F32,
            data: Data::Normal,
            histories: vec![37],
            targets: vec![5],
            tail: 0,
            width: 16,
            top_k: 10,
            bias: false,
            zeros: true,
            repeated: true,
        }
    }
}

/// The results of a run, floating-point numbers as bits.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchOutput {
    positions: Vec<u32>,
    scores: Vec<u32>,
    counts: Vec<u32>,
    signs: Vec<u32>,
}

/// What a case reads.
struct Inputs {
    queries: Stored<Host>,
    keys: Stored<Host>,
    bias: Option<Vec<f32>>,
    /// For Hamming distances: the rows of behaviours to pack.
    rows: Stored<Host>,
    rotations: Vec<f32>,
}

/// The numbers of the rows that are packed.
const PACKED_WIDTH: usize = 12;

impl SearchCase {
    /// How rows are stored.
    pub fn storage(&self) -> &'static str {
        match self.score {
            SearchScore::Match => "u32",
            _ => self.stored.name(),
        }
    }

    /// The operation.
    pub fn op(&self) -> Search {
        let op = match self.score {
            SearchScore::Dot { scale } => Search::dot(self.width).with_scale(scale),
            SearchScore::Hamming => Search::hamming(self.width),
            SearchScore::Match => Search::matching(),
            _ => Search::cosine(self.width),
        };
        op.with_top_k(self.top_k)
    }

    /// The packing of signs.
    pub fn signs(&self) -> Signs {
        Signs::new(PACKED_WIDTH, self.width)
    }

    /// The batch.
    pub fn batch(&self) -> Batch {
        data::batch(&self.histories, &self.targets, self.tail)
    }

    /// The least that the call must do.
    pub fn work(&self, operation: &str) -> Work {
        let (batch, op) = (self.batch(), self.op());
        if operation == "pack_signs" {
            let rows = batch.histories().rows() as u64;
            let row = PACKED_WIDTH * self.stored.bytes() + 4 * op.words();
            return Work { flops: 2 * rows * (PACKED_WIDTH * self.width) as u64, bytes: rows * row as u64 };
        }
        let row = match self.score {
            SearchScore::Hamming => 4 * op.words(),
            SearchScore::Match => 4,
            _ => self.width * self.stored.bytes(),
        };
        Work { flops: op.flops(&batch), bytes: op.bytes(&batch, row) }
    }

    fn inputs(&self) -> Result<Inputs, Failure> {
        let (batch, mut rng) = (self.batch(), data::rng(self.seed));
        let (n, m) = (batch.histories().rows(), batch.targets().rows());
        let mut rows: Stored<Host> = Stored::F32(Vec::<f32>::new().into());
        let mut rotations = Vec::new();
        let (queries, mut keys) = match self.score {
            SearchScore::Match => {
                let mut keys = |count: usize| -> HostBuffer<u32> {
                    (0..count).map(|_| rng.random_range(0..6u32)).collect()
                };
                (Stored::Keys(keys(m)), Stored::Keys(keys(n)))
            }
            SearchScore::Hamming => {
                rows = Stored::new(&mut rng, self.stored, self.data, n, PACKED_WIDTH);
                rotations = self.signs().rotations(self.seed)?;
                // Bits past the width may be anything.
                (Stored::Signs(signs(&mut rng, m, self.width)), Stored::Signs(signs(&mut rng, n, self.width)))
            }
            _ => {
                let mut rows = |count| Stored::new(&mut rng, self.stored, self.data, count, self.width);
                (rows(m), rows(n))
            }
        };
        let width = match self.score {
            SearchScore::Match => 1,
            SearchScore::Hamming => self.op().words(),
            _ => self.width,
        };
        keys.spoil(width, self.zeros && self.score != SearchScore::Match, self.repeated);
        let bias = self.bias.then(|| {
            let mut bias: Vec<f32> = data::rows(&mut rng, Data::Normal, n, 1);
            bias.iter_mut().skip(3).step_by(7).for_each(|bias| *bias = f32::NEG_INFINITY);
            bias
        });
        Ok(Inputs { queries, keys, bias, rows, rotations })
    }
}

impl Inputs {
    fn views(&self) -> SimilarityInputs<'_, Host> {
        let cpu = Cpu::new();
        let mut inputs = SimilarityInputs::new(self.queries.view(&cpu), self.keys.view(&cpu));
        inputs.bias = self.bias.as_deref().map(Host::view);
        inputs
    }
}

impl Case for SearchCase {
    type Output = SearchOutput;

    fn run_with<B: Backend>(&self, backend: &B, calls: &mut dyn Calls) -> Result<SearchOutput, Failure> {
        let (op, batch, inputs) = (self.op(), self.batch(), self.inputs()?);
        let device_batch = backend.batch(batch.histories(), batch.targets())?;
        let (queries, keys) = (inputs.queries.upload(backend)?, inputs.keys.upload(backend)?);
        let bias = inputs.bias.as_ref().map(|bias| backend.upload(bias)).transpose()?;
        let (candidates, unused, k) = (batch.targets().total(), self.tail, self.top_k);
        let mut positions = Guarded::<B, u32>::new(backend, candidates * k, unused * k)?;
        let mut scores = Guarded::<B, f32>::new(backend, candidates * k, unused * k)?;
        let mut counts = Guarded::<B, u32>::new(backend, candidates, unused)?;
        let mut views = SimilarityInputs::new(queries.view(backend), keys.view(backend));
        views.bias = bias.as_ref().map(|bias| backend.view(bias));
        calls.make("search", &mut || {
            let kept = SelectionMut::new(
                positions.view_mut(backend)?,
                scores.view_mut(backend)?,
                counts.view_mut(backend)?,
            );
            Ok(backend.search_into(&op, &device_batch, views, kept)?)
        })?;
        let mut packed = Vec::new();
        if self.score == SearchScore::Hamming {
            let count = batch.histories().rows();
            let (rows, rotations) = (inputs.rows.upload(backend)?, backend.upload(&inputs.rotations)?);
            let mut out = Guarded::<B, u32>::new(backend, count * op.words(), 0)?;
            calls.make("pack_signs", &mut || {
                rows.pack(backend, &self.signs(), backend.view(&rotations), out.view_mut(backend)?)
            })?;
            packed = out.finish(backend, "signs")?;
        }
        Ok(SearchOutput {
            positions: positions.finish(backend, "positions")?,
            scores: scores.finish(backend, "scores")?.into_iter().map(f32::to_bits).collect(),
            counts: counts.finish(backend, "counts")?,
            signs: packed,
        })
    }

    fn compare(&self, output: &SearchOutput, rules: Rules) -> Result<(), Failure> {
        self.compare_with_reference(output, rules)
    }
}
