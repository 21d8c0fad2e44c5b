//! Cases of SDIM.

mod backward;
pub mod backward_tests;
mod compare;
mod exact;
mod extremes;
mod forgetting;
mod items;
mod items_errors;
mod kept;
mod slots;
pub mod tests;

pub use backward::{SdimBackwardCase, SdimGradientOutput};
pub use items::Given;

use longseq::*;

use crate::by_dtype;
use crate::case::{Calls, Case, Failure, Rules};
use crate::data::{self, Data};
use crate::guard::{Guarded, poison};
use crate::named::Work;
use items::{Items, Source};

/// The formula, as `explain` prints it.
pub const FORMULA: &str = "\
signature(x)[g] = bits t of group g: ⟨x, R[:, g, t]⟩ > 0
encode: table[u, g, b] = Σ_l w_l·x_l        over the history of user u, where signature(x_l)[g] = b; w = 1 without weights
append: table += encode(new behaviours);  remove: table -= encode(gone behaviours);  add_tables: table += other
decay: table[u] *= factor[u]
query: out[m] = mean_g row / max(|row|, 1e-12)   with row = table[u, g, signature(q_m)[g]]; without normalisation, mean_g row
attend: query(encode(history)) without storing a table";

/// The formula of the gradients, as `explain` prints it.
pub const BACKWARD_FORMULA: &str = "\
query: dtable[u, g, b] = Σ_m (dout[m] − u·⟨u, dout[m]⟩) / (G · |row|)   over the candidates of user u with signature b in group g,
       with u = row / |row|; 0 where |row| < 1e-12; without normalisation, Σ_m dout[m] / G
encode, append: dx_l = w_l·Σ_g dtable[u, g, signature(x_l)[g]]
attend: encode's at query's";

/// The weights of behaviours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Weights {
    /// None are given.
    #[default]
    None,
    /// Each row has a little less than the one after it.
    Fading,
    /// Normally distributed; every third one is 0.
    Signed,
}

/// A batch of SDIM: signatures; then, from given signatures, the table, its sum, an append, what takes the append back, a decay, a
/// query and the table-free form; last, everything from rotations.
#[derive(Debug, Clone)]
pub struct SdimCase {
    /// Where the data come from.
    pub seed: u64,
    /// How rows are stored.
    pub dtype: DType,
    /// What the numbers look like.
    pub data: Data,
    /// The length of each user's history.
    pub histories: Vec<usize>,
    /// The number of each user's candidates.
    pub targets: Vec<usize>,
    /// Rows at the end of every input and output that belong to nobody.
    pub tail: usize,
    /// The width of a row.
    pub width: usize,
    /// Groups of hash functions.
    pub groups: usize,
    /// Bits per group.
    pub bits: usize,
    /// Whether bucket rows are normalised.
    pub normalise: bool,
    /// Whether queries read tables that requests share.
    pub shared: bool,
    /// The weights of behaviours in tables; the table-free form has none.
    pub weights: Weights,
    /// Whether calls that add behaviours up write tables in slots among others.
    pub slots: bool,
    /// Where given signatures are.
    pub given: Given,
}

impl Default for SdimCase {
    fn default() -> Self {
        Self {
            seed: 1,
            dtype: DType::F32,
            data: Data::Normal,
            histories: vec![37],
            targets: vec![5],
            tail: 0,
            width: 16,
            groups: 4,
            bits: 3,
            normalise: true,
            shared: false,
            weights: Weights::None,
            slots: false,
            given: Given::Rows,
        }
    }
}

/// The results of a run, floating-point numbers as bits.
#[derive(Debug, Clone, PartialEq)]
pub struct SdimOutput {
    signatures8: Option<Vec<u8>>,
    signatures16: Vec<u16>,
    /// From given signatures.
    given: Products,
    /// From rotations.
    hashed: Products,
    changed: Changed,
}

/// Tables after a call that changes them.
#[derive(Debug, Clone, PartialEq)]
struct Changed {
    appended: Vec<u32>,
    /// The appended one without what was appended.
    removed: Vec<u32>,
    added: Vec<u32>,
    /// By a factor for each user, then by one for all.
    decayed: Vec<u32>,
}

/// The results of encode, query and the table-free form for the same signatures.
#[derive(Debug, Clone, PartialEq)]
struct Products {
    table: Vec<u32>,
    query: Vec<u8>,
    attend: Vec<u8>,
}

/// The names of the calls, as `Calls` know them: signatures of one byte and of two, and what computes `Products`.
const BYTES: &str = "sdim_signatures";
const WORDS: &str = "sdim_signatures (u16)";
const DECAY_ALL: &str = "sdim_decay by one factor";
const HASHED: [&str; 3] = ["sdim_encode", "sdim_query", "sdim_attend"];
const GIVEN: [&str; 3] = [
    "sdim_encode from given signatures",
    "sdim_query from given signatures",
    "sdim_attend from given signatures",
];

struct Inputs<T> {
    rotations: Vec<f32>,
    history: Vec<T>,
    targets: Vec<T>,
    history_signatures: Vec<u16>,
    target_signatures: Vec<u16>,
    weights: Option<Vec<f32>>,
    /// What the signatures of rows are made from, if they are of items.
    items: Option<Items>,
}

impl<T: Element> Inputs<T> {
    /// The largest number that is added to a bucket.
    fn largest_term(&self, width: usize) -> f64 {
        let Some(weights) = &self.weights else { return data::max_abs(&self.history) };
        let term = |(row, &weight): (&[T], &f32)| data::max_abs(row) * f64::from(weight).abs();
        self.history.chunks(width).zip(weights).map(term).fold(0.0, f64::max)
    }

    /// The inputs of `encode`, on the host, with weights if there are any.
    fn encode<'a>(&'a self, hash: Hash<'a, Host>) -> SdimEncodeInputs<'a, Host, T> {
        let mut inputs = SdimEncodeInputs::new(Host::view(&self.history), hash);
        inputs.weights = self.weights.as_ref().map(|weights| Host::view(weights));
        inputs
    }
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

fn floats(bits: &[u32]) -> Vec<f32> {
    bits.iter().map(|&x| f32::from_bits(x)).collect()
}

impl SdimCase {
    /// How rows are stored.
    pub fn storage(&self) -> &'static str {
        crate::data::dtype_name(self.dtype)
    }

    /// The operation.
    pub fn op(&self) -> Sdim {
        Sdim::new(self.width).with_groups(self.groups, self.bits).with_normalise(self.normalise)
    }

    /// The batch.
    pub fn batch(&self) -> Batch {
        data::batch(&self.histories, &self.targets, self.tail)
    }

    /// Whose table each request reads.
    fn users(&self) -> Vec<u32> {
        (0..self.targets.len() as u32).rev().map(|user| user / 2).collect()
    }

    /// What the tables of users are multiplied by: each by its own, then all.
    fn factors(&self) -> (Vec<f32>, [f32; 1]) {
        ((0..self.histories.len()).map(|user| 0.75 - 0.5 * (user % 3) as f32).collect(), [0.9])
    }

    /// The weight of each behaviour.
    fn weights(&self, count: usize) -> Option<Vec<f32>> {
        let mut rng = data::rng(self.seed ^ 0x5eed);
        let mut normal = data::rows::<f32>(&mut rng, Data::Normal, count, 1);
        match self.weights {
            Weights::None => return None,
            Weights::Fading => {
                (normal.iter_mut().rev().enumerate()).for_each(|(age, w)| *w = 0.999f32.powi(age as i32))
            }
            Weights::Signed => normal.iter_mut().step_by(3).for_each(|w| *w = 0.0),
        }
        Some(normal)
    }

    /// The least that the call must do.
    pub fn work(&self, operation: &str) -> Work {
        let (op, batch) = (self.op(), self.batch());
        let (rows, candidates) = (batch.histories().total(), batch.targets().total());
        by_dtype!(self.dtype, T => match operation {
            "sdim_signatures" => Work {
                flops: op.signatures_flops(rows),
                bytes: op.signatures_bytes::<T, u8>(rows),
            },
            "sdim_query" => Work { flops: op.query_flops(candidates), bytes: op.query_bytes::<T>(candidates) },
            "sdim_attend" => Work { flops: op.attend_flops(&batch), bytes: op.attend_bytes::<T>(&batch) },
            // From given signatures: nothing is hashed.
            "sdim_append" | "sdim_remove" => Work {
                flops: op.encode_flops(rows) - op.signatures_flops(rows),
                bytes: op.encode_bytes::<T>(batch.histories()),
            },
            _ => Work { flops: op.encode_flops(rows), bytes: op.encode_bytes::<T>(batch.histories()) },
        })
    }

    fn inputs<T: Element>(&self) -> Result<Inputs<T>, Failure> {
        let (op, batch, mut rng) = (self.op(), self.batch(), data::rng(self.seed));
        let (n, m) = (batch.histories().rows(), batch.targets().rows());
        let mut inputs = Inputs {
            rotations: op.rotations(self.seed)?,
            history: data::rows(&mut rng, self.data, n, self.width),
            targets: data::rows(&mut rng, self.data, m, self.width),
            history_signatures: data::signatures(&mut rng, n * self.groups, self.bits),
            target_signatures: data::signatures(&mut rng, m * self.groups, self.bits),
            weights: self.weights(n),
            items: Items::of(self),
        };
        if let Some(items) = &inputs.items {
            inputs.history_signatures = items.of_rows(0, self.groups);
            inputs.target_signatures = items.of_rows(1, self.groups);
        }
        Ok(inputs)
    }

    /// Makes the call of this name, and returns the signatures.
    fn signatures<B: Backend, T: Element, W: Signature>(
        &self,
        call: &'static str,
        backend: &B,
        rows: View<'_, B::Memory, T>,
        rotations: View<'_, B::Memory, f32>,
        calls: &mut dyn Calls,
    ) -> Result<Vec<W>, Failure> {
        let op = self.op();
        let mut signatures = Guarded::<B, W>::new(backend, self.batch().histories().rows() * self.groups, 0)?;
        calls.make(call, &mut || {
            Ok(backend.sdim_signatures_into(&op, rows, rotations, signatures.view_mut(backend)?)?)
        })?;
        signatures.finish(backend, call)
    }

    fn run_as<B: Backend, T: Element>(
        &self,
        backend: &B,
        calls: &mut dyn Calls,
    ) -> Result<SdimOutput, Failure> {
        let (op, batch, inputs) = (self.op(), self.batch(), self.inputs::<T>()?);
        let device_batch = backend.batch(batch.histories(), batch.targets())?;
        let kept = self.kept()?;
        let histories = backend.jagged(&kept.name(batch.histories())?)?;
        let targets = backend.jagged(batch.targets())?;
        let rotations = backend.upload(&inputs.rotations)?;
        let (rows, target_rows) = (backend.upload(&inputs.history)?, backend.upload(&inputs.targets)?);
        let [given, target_given] = [0, 1].map(|side| Source::new(backend, self, &inputs, (side, false)));
        let (given, target_given) = (given?, target_given?);
        let (given, target_given) = (given.hash(backend), target_given.hash(backend));
        let rotate = Hash::Rotations(backend.view(&rotations));
        let users = backend.upload(&self.users())?;
        let weights = inputs.weights.as_ref().map(|weights| backend.upload(weights)).transpose()?;
        let encode_inputs = |hash| {
            let mut inputs = SdimEncodeInputs::new(backend.view(&rows), hash);
            inputs.weights = weights.as_ref().map(|weights| backend.view(weights));
            inputs
        };

        let (history, hashes) = (backend.view(&rows), backend.view(&rotations));
        let signatures16 = self.signatures::<B, T, u16>(WORDS, backend, history, hashes, calls)?;
        let signatures8 = if self.bits > 8 {
            None
        } else {
            Some(self.signatures::<B, T, u8>(BYTES, backend, history, hashes, calls)?)
        };

        let (used, unused) = (batch.targets().total() * self.width, self.tail * self.width);
        let mut products = |names: [&'static str; 3], hash, target_hash, target_rows| {
            let history = encode_inputs(hash);
            let mut table = Guarded::<B, f32>::holding(backend, &kept.all(|_| poison()))?;
            calls.make(names[0], &mut || {
                Ok(backend.sdim_encode_into(&op, &histories, history, table.view_mut(backend)?)?)
            })?;
            let table = kept.of_users(names[0], &table.finish(backend, "table")?)?;
            let device_table = backend.upload(&table)?;
            let mut query = Guarded::<B, T>::new(backend, used, unused)?;
            let mut inputs = SdimQueryInputs::new(backend.view(&device_table), target_hash);
            inputs.targets = target_rows;
            inputs.users = self.shared.then(|| backend.view(&users));
            calls.make(names[1], &mut || {
                Ok(backend.sdim_query_into(&op, &targets, inputs, query.view_mut(backend)?)?)
            })?;
            let mut attend = Guarded::<B, T>::new(backend, used, unused)?;
            let mut inputs = SdimAttendInputs::new(history.history, hash, target_hash);
            inputs.targets = target_rows;
            calls.make(names[2], &mut || {
                Ok(backend.sdim_attend_into(&op, &device_batch, inputs, attend.view_mut(backend)?)?)
            })?;
            let bytes = |rows: Vec<T>| bytemuck::cast_slice(&rows).to_vec();
            Ok::<_, Failure>(Products {
                table: bits(&table),
                query: bytes(query.finish(backend, "query")?),
                attend: bytes(attend.finish(backend, "attend")?),
            })
        };
        let given_products = products(GIVEN, given, target_given, None)?;
        let hashed = products(HASHED, rotate, rotate, Some(backend.view(&target_rows)))?;

        let table = floats(&given_products.table);
        let changed = self.change(backend, &table, &histories, encode_inputs(given), calls)?;
        Ok(SdimOutput { signatures8, signatures16, given: given_products, hashed, changed })
    }

    /// Changes copies of a table in every way.
    fn change<B: Backend, T: Element>(
        &self,
        backend: &B,
        table: &[f32],
        histories: &B::Jagged,
        inputs: SdimEncodeInputs<'_, B::Memory, T>,
        calls: &mut dyn Calls,
    ) -> Result<Changed, Failure> {
        let op = self.op();
        let words = |table: &Buffer<B, f32>| -> Result<Vec<u32>, Failure> {
            Ok(bits(&backend.download(backend.view(table))?))
        };
        let kept = self.kept()?;
        let own = |call, table: &Buffer<B, f32>| -> Result<Vec<u32>, Failure> {
            Ok(bits(&kept.of_users(call, &backend.download(backend.view(table))?)?))
        };
        let mut changing = backend.upload(&kept.all(|i| table[i]))?;
        calls.make("sdim_append", &mut || {
            Ok(backend.sdim_append(&op, histories, inputs, backend.view_mut(&mut changing))?)
        })?;
        let appended = own("sdim_append", &changing)?;
        calls.make("sdim_remove", &mut || {
            Ok(backend.sdim_remove(&op, histories, inputs, backend.view_mut(&mut changing))?)
        })?;
        let removed = own("sdim_remove", &changing)?;
        let (other, mut added) = (backend.upload(table)?, backend.upload(table)?);
        calls.make("sdim_add_tables", &mut || {
            Ok(backend.sdim_add_tables(&op, backend.view_mut(&mut added), backend.view(&other))?)
        })?;
        let mut decayed = backend.upload(table)?;
        let (each, one) = self.factors();
        for (call, factors) in [("sdim_decay", &each[..]), (DECAY_ALL, &one)] {
            let factors = backend.upload(factors)?;
            calls.make(call, &mut || {
                Ok(backend.sdim_decay(&op, backend.view_mut(&mut decayed), backend.view(&factors))?)
            })?;
        }
        let (added, decayed) = (words(&added)?, words(&decayed)?);
        Ok(Changed { appended, removed, added, decayed })
    }
}

impl Case for SdimCase {
    type Output = SdimOutput;

    fn run_with<B: Backend>(&self, backend: &B, calls: &mut dyn Calls) -> Result<SdimOutput, Failure> {
        by_dtype!(self.dtype, T => self.run_as::<B, T>(backend, calls))
    }

    fn compare(&self, output: &SdimOutput, rules: Rules) -> Result<(), Failure> {
        by_dtype!(self.dtype, T => self.compare_as::<T>(output, rules))
    }
}
