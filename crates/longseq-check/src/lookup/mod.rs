//! Embedding tables, and cases of look-ups in them.

mod backward;
pub mod backward_tests;
mod tables;
pub mod tests;
mod update_rows;
mod update_rows_tests;

pub use backward::{FORMULA as BACKWARD_FORMULA, Form, LookupBackwardCase, SparseGradientBits};
pub(crate) use backward::{Place, dense};
pub(crate) use tables::read_row;
pub use tables::{Owned, Storage, Stored, feature_ids, table, table_bytes, upload_all, view, views};
pub use update_rows::{UpdateRowsCase, UpdatedBits};

use longseq::*;

use crate::by_storage;
use crate::case::{Calls, Case, Failure, Rules};
use crate::compare::{Bound, U, compare, compare_exact, roundings};
use crate::data::{self, Data, Ids};
use crate::guard::Guarded;
use crate::named::Work;

/// The formula, as `explain` prints it.
pub const FORMULA: &str = "\
each: out[i] = [T_0[ids[i, 0]], T_1[ids[i, 1]], …]      the rows of all features side by side
sum:  out[bag] = Σ_{i in bag} each(i)
      with weights: Σ_{i in bag} w[i, f] · T_f[ids[i, f]]
mean: out[bag] = sum / number of ids in the bag; zeros where it is empty
skip: an id outside its table adds nothing, and does not count in the mean";

/// A look-up in one or two sets of tables, with and without bags.
#[derive(Debug, Clone)]
pub struct LookupCase {
    /// Where the data come from.
    pub seed: u64,
    /// How tables store their rows.
    pub storage: Storage,
    /// The rows of each feature's table.
    pub table_rows: Vec<usize>,
    /// The widths of the tables.
    pub widths: Vec<usize>,
    /// Widths of the second tables; empty for none.
    pub second_widths: Vec<usize>,
    /// Lengths of the bags.
    pub bags: Vec<usize>,
    /// Rows at the end of every input and output that belong to nobody.
    pub tail: usize,
    /// How the rows of a bag are pooled.
    pub pool: Pool,
    /// How often each id occurs.
    pub ids: Ids,
    /// With `IdPolicy::Zero` and `IdPolicy::Skip`, every fifth id is outside.
    pub policy: IdPolicy,
    /// Whether ids have weights, which look like `data` of their own; for sums.
    pub weights: Option<Data>,
    /// The place of a weight that is NaN.
    pub nan_weight: Option<usize>,
    /// What the numbers look like.
    pub data: Data,
}

/// How rows are pooled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pool {
    /// Not at all: one output row per id.
    Each,
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
}

impl Default for LookupCase {
    fn default() -> Self {
        Self {
            seed: 1,
            storage: Storage::F32,
            table_rows: vec![50],
            widths: vec![16],
            second_widths: Vec::new(),
            bags: vec![3, 0, 7],
            tail: 0,
            pool: Pool::Each,
            ids: Ids::Skewed,
            policy: IdPolicy::Error,
            weights: None,
            nan_weight: None,
            data: Data::Normal,
        }
    }
}

impl LookupCase {
    /// How the tables store their rows.
    pub fn storage(&self) -> &'static str {
        self.storage.name()
    }

    fn inputs(&self) -> (Vec<u32>, Vec<Owned<Host>>, Vec<Owned<Host>>) {
        let mut rng = data::rng(self.seed);
        let mut ids = feature_ids(&mut rng, self.ids, self.jagged().rows(), &self.table_rows);
        if self.policy != IdPolicy::Error {
            ids.iter_mut().step_by(5).for_each(|id| *id = u32::MAX - *id);
        }
        let mut tables = |widths: &[usize]| -> Vec<Owned<Host>> {
            let shapes = self.table_rows.iter().zip(widths);
            shapes.map(|(&rows, &width)| table(&mut rng, self.data, self.storage, rows, width)).collect()
        };
        let first = tables(&self.widths);
        let second = tables(&self.second_widths);
        (ids, first, second)
    }

    /// The weights `[N, F]` of the ids, if they have some.
    fn weights(&self) -> Option<Vec<f32>> {
        let mut rng = data::rng(self.seed ^ 0x5eed);
        let mut weights: Vec<f32> =
            data::rows(&mut rng, self.weights?, self.jagged().rows(), self.table_rows.len());
        if let Some(weight) = self.nan_weight.and_then(|place| weights.get_mut(place)) {
            *weight = f32::NAN;
        }
        Some(weights)
    }

    /// The least that the call must do.
    pub fn work(&self) -> Work {
        let (ids, bags) = (self.jagged().total(), self.bags.len());
        let rows = if self.pool == Pool::Each { ids } else { bags };
        let both: Vec<usize> = [&self.widths[..], &self.second_widths].concat();
        let op = Lookup::default();
        let added = if self.pool == Pool::Each { 0 } else { ids };
        let flops = (added * both.iter().sum::<usize>()) as u64;
        let features = self.table_rows.len();
        by_storage!(self.storage, T => Work { flops, bytes: op.bytes::<T>(ids, rows, features, &both) })
    }

    /// Bytes of the tables that the call reads.
    pub fn table_bytes(&self) -> u64 {
        let tables = [&self.widths, &self.second_widths]
            .map(|widths| by_storage!(self.storage, T => table_bytes::<T>(&self.table_rows, widths)));
        tables.iter().sum()
    }

    fn jagged(&self) -> Jagged {
        // Without bags, every row belongs to the output.
        data::jagged(&self.bags, if self.pool == Pool::Each { 0 } else { self.tail })
    }

    fn pooled<'a, J>(&self, bags: &'a J) -> Bags<'a, J> {
        match self.pool {
            Pool::Each => Bags::Each,
            Pool::Sum => Bags::Sum(bags),
            Pool::Mean => Bags::Mean(bags),
        }
    }
}

/// The results of a run, of the first and of the second tables, as bits.
pub type LookupOutput = (Vec<u32>, Vec<u32>);

impl Case for LookupCase {
    type Output = LookupOutput;

    fn run_with<B: Backend>(&self, backend: &B, calls: &mut dyn Calls) -> Result<Self::Output, Failure> {
        let (ids, first, second) = self.inputs();
        let op = Lookup::default().with_ids(self.policy);
        let bags = backend.jagged(&self.jagged())?;
        let ids = backend.upload(&ids)?;
        let (first, second) = (upload_all(backend, &first)?, upload_all(backend, &second)?);
        let (tables, second_tables) = (views(backend, &first), views(backend, &second));
        let rows = if self.pool == Pool::Each { self.jagged().total() } else { self.bags.len() };
        let mut out = Guarded::<B, f32>::new(backend, rows * self.widths.iter().sum::<usize>(), 0)?;
        let mut second_out =
            Guarded::<B, f32>::new(backend, rows * self.second_widths.iter().sum::<usize>(), 0)?;
        let has_second = !self.second_widths.is_empty();
        let weights = self.weights().map(|weights| backend.upload(&weights)).transpose()?;
        let mut inputs = LookupInputs::new(backend.view(&ids), &tables).with_second_tables(&second_tables);
        if let Some(weights) = &weights {
            inputs = inputs.with_weights(backend.view(weights));
        }
        calls.make("lookup", &mut || {
            let mut outputs = LookupOutputs::new(out.view_mut(backend)?);
            if has_second {
                outputs = outputs.with_second(second_out.view_mut(backend)?);
            }
            Ok(backend.lookup_into(&op, self.pooled(&bags), inputs, outputs)?)
        })?;
        let bits = |numbers: Vec<f32>| numbers.into_iter().map(f32::to_bits).collect();
        Ok((bits(out.finish(backend, "out")?), bits(second_out.finish(backend, "second")?)))
    }

    fn compare(&self, output: &Self::Output, rules: Rules) -> Result<(), Failure> {
        let (ids, first, second) = self.inputs();
        let (tables, second_tables) = (views(&Cpu::new(), &first), views(&Cpu::new(), &second));
        let weights = self.weights();
        let mut inputs = LookupInputs::new(Host::view(&ids), &tables).with_second_tables(&second_tables);
        if let Some(weights) = &weights {
            inputs = inputs.with_weights(Host::view(weights));
        }
        let op = Lookup::default().with_ids(self.policy);
        let bags = self.jagged();
        let exact = reference::lookup(&op, self.pooled(&bags), &inputs)?;
        let longest = bags.max_length();
        for (name, got, exact, tables) in
            [("out", &output.0, exact.0, &first), ("second", &output.1, exact.1.unwrap_or_default(), &second)]
        {
            if self.pool == Pool::Each && self.storage != Storage::Int8 {
                // A gather is exact.
                let exact: Vec<u32> = exact.iter().map(|&x| (x as f32).to_bits()).collect();
                compare_exact(name, got, &exact)?;
                continue;
            }
            // Two roundings to decode an int8, one for each row added, one for the mean or each product with a weight.
            let heaviest = weights.as_ref().map_or(1.0, |weights| data::max_abs(weights));
            let max = heaviest * tables.iter().map(Owned::max_abs).fold(0.0, f64::max);
            let terms = if self.pool == Pool::Each { 1.0 } else { roundings(longest) };
            let sum = if self.pool == Pool::Sum { longest.max(1) as f64 } else { 1.0 };
            let bound = Bound::uniform((terms + 3.0) * U * max * sum, self.data != Data::Huge);
            let got: Vec<f32> = got.iter().map(|&x| f32::from_bits(x)).collect();
            compare(name, &got, &exact, &bound, rules)?;
        }
        Ok(())
    }
}
