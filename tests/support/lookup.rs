//! Embedding tables, and cases of look-ups in them.

use longseq::*;
use rand::RngExt;
use rand::rngs::StdRng;

use super::cases::Work;
use super::compare::{Bound, U, compare, compare_exact};
use super::data::{self, Data, Ids};
use super::guard::Guarded;
use super::{Calls, Case, Failure, Rules};

/// How a table stores its rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Storage {
    F32,
    F16,
    Bf16,
    Int8,
}

impl Storage {
    pub const ALL: [Storage; 4] = [Storage::F32, Storage::F16, Storage::Bf16, Storage::Int8];
}

/// Runs an expression with `$T` standing for the type of a table's stored numbers.
#[macro_export]
macro_rules! by_storage {
    ($storage:expr, $T:ident => $body:expr) => {
        match $storage {
            $crate::support::lookup::Storage::F32 => {
                type $T = f32;
                $body
            }
            $crate::support::lookup::Storage::F16 => {
                type $T = longseq::half::f16;
                $body
            }
            $crate::support::lookup::Storage::Bf16 => {
                type $T = longseq::half::bf16;
                $body
            }
            $crate::support::lookup::Storage::Int8 => {
                type $T = i8;
                $body
            }
        }
    };
}

/// The rows of a table, on the host or on a device.
pub enum Stored<S: Memory> {
    F32(S::Buffer<f32>),
    F16(S::Buffer<half::f16>),
    Bf16(S::Buffer<half::bf16>),
    Int8 { codes: S::Buffer<i8>, scale: S::Buffer<f32>, offset: S::Buffer<f32> },
}

/// A table, on the host or on a device.
pub struct Owned<S: Memory> {
    pub rows: usize,
    pub width: usize,
    pub data: Stored<S>,
}

/// A table of normal numbers.
pub fn table(rng: &mut StdRng, data: Data, storage: Storage, rows: usize, width: usize) -> Owned<Host> {
    let data = match storage {
        Storage::F32 => Stored::F32(data::rows(rng, data, rows, width).into()),
        Storage::F16 => Stored::F16(data::rows(rng, data, rows, width).into()),
        Storage::Bf16 => Stored::Bf16(data::rows(rng, data, rows, width).into()),
        Storage::Int8 => Stored::Int8 {
            codes: (0..rows * width).map(|_| rng.random()).collect(),
            scale: (0..rows).map(|_| rng.random_range(0.001..0.02)).collect(),
            offset: data::rows(rng, Data::Normal, rows, 1).into(),
        },
    };
    Owned { rows, width, data }
}

impl Owned<Host> {
    pub fn upload<B: Backend>(&self, backend: &B) -> Result<Owned<B::Memory>> {
        let data = match &self.data {
            Stored::F32(data) => Stored::F32(backend.upload(data)?),
            Stored::F16(data) => Stored::F16(backend.upload(data)?),
            Stored::Bf16(data) => Stored::Bf16(backend.upload(data)?),
            Stored::Int8 { codes, scale, offset } => Stored::Int8 {
                codes: backend.upload(codes)?,
                scale: backend.upload(scale)?,
                offset: backend.upload(offset)?,
            },
        };
        Ok(Owned { rows: self.rows, width: self.width, data })
    }

    /// The largest magnitude of a number.
    pub fn max_abs(&self) -> f64 {
        match &self.data {
            Stored::F32(data) => data::max_abs(data),
            Stored::F16(data) => data::max_abs(data),
            Stored::Bf16(data) => data::max_abs(data),
            Stored::Int8 { scale, offset, .. } => 128.0 * data::max_abs(scale) + data::max_abs(offset),
        }
    }
}

/// The table as an operation's input; `backend` is where it lives.
pub fn view<'a, B: Backend>(backend: &B, table: &'a Owned<B::Memory>) -> Table<'a, B::Memory> {
    let data = match &table.data {
        Stored::F32(data) => TableData::F32(backend.view(data)),
        Stored::F16(data) => TableData::F16(backend.view(data)),
        Stored::Bf16(data) => TableData::Bf16(backend.view(data)),
        Stored::Int8 { codes, scale, offset } => TableData::Int8 {
            codes: backend.view(codes),
            scale: backend.view(scale),
            offset: backend.view(offset),
        },
    };
    Table { rows: table.rows, width: table.width, data }
}

/// The tables as an operation's input.
pub fn views<'a, B: Backend>(backend: &B, tables: &'a [Owned<B::Memory>]) -> Vec<Table<'a, B::Memory>> {
    tables.iter().map(|table| view(backend, table)).collect()
}

/// Uploads tables.
pub fn upload_all<B: Backend>(backend: &B, tables: &[Owned<Host>]) -> Result<Vec<Owned<B::Memory>>> {
    tables.iter().map(|table| table.upload(backend)).collect()
}

/// Bytes of tables.
pub fn table_bytes<T>(rows: &[usize], widths: &[usize]) -> u64 {
    rows.iter().zip(widths).map(|(rows, width)| (rows * width * size_of::<T>()) as u64).sum()
}

/// `[rows, F]` ids, each below its feature's number of rows.
pub fn feature_ids(rng: &mut StdRng, ids: Ids, count: usize, table_rows: &[usize]) -> Vec<u32> {
    let columns: Vec<Vec<u32>> = table_rows.iter().map(|&rows| data::ids(rng, ids, count, rows)).collect();
    (0..count).flat_map(|row| columns.iter().map(move |column| column[row])).collect()
}

/// A look-up in one or two sets of tables, with and without bags.
#[derive(Debug, Clone)]
pub struct LookupCase {
    pub seed: u64,
    pub storage: Storage,
    pub table_rows: Vec<usize>,
    pub widths: Vec<usize>,
    /// Widths of the second tables; empty for none.
    pub second_widths: Vec<usize>,
    /// Lengths of the bags.
    pub bags: Vec<usize>,
    pub tail: usize,
    pub pool: Pool,
    pub ids: Ids,
    /// With `IdPolicy::Zero`, every fifth id is outside.
    pub policy: IdPolicy,
}

/// How rows are pooled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pool {
    Each,
    Sum,
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
        }
    }
}

impl LookupCase {
    fn inputs(&self) -> (Vec<u32>, Vec<Owned<Host>>, Vec<Owned<Host>>) {
        let mut rng = data::rng(self.seed);
        let mut ids = feature_ids(&mut rng, self.ids, self.jagged().rows(), &self.table_rows);
        if self.policy == IdPolicy::Zero {
            ids.iter_mut().step_by(5).for_each(|id| *id = u32::MAX - *id);
        }
        let mut tables = |widths: &[usize]| -> Vec<Owned<Host>> {
            let shapes = self.table_rows.iter().zip(widths);
            shapes.map(|(&rows, &width)| table(&mut rng, Data::Normal, self.storage, rows, width)).collect()
        };
        let first = tables(&self.widths);
        let second = tables(&self.second_widths);
        (ids, first, second)
    }

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

    pub fn table_bytes(&self) -> u64 {
        let tables = [&self.widths, &self.second_widths]
            .map(|widths| by_storage!(self.storage, T => table_bytes::<T>(&self.table_rows, widths)));
        tables.iter().sum()
    }

    fn jagged(&self) -> Jagged {
        // Without bags there is nothing to leave rows out.
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

impl Case for LookupCase {
    type Output = (Vec<u32>, Vec<u32>);

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
        let inputs = LookupInputs { ids: backend.view(&ids), tables: &tables, second_tables: &second_tables };
        calls.make("lookup", &mut || {
            let outputs = LookupOutputs {
                out: out.view_mut(backend)?,
                second: if has_second { Some(second_out.view_mut(backend)?) } else { None },
            };
            Ok(backend.lookup_into(&op, self.pooled(&bags), inputs, outputs)?)
        })?;
        let bits = |numbers: Vec<f32>| numbers.into_iter().map(f32::to_bits).collect();
        Ok((bits(out.finish(backend, "out")?), bits(second_out.finish(backend, "second")?)))
    }

    fn compare(&self, output: &Self::Output, rules: Rules) -> Result<(), Failure> {
        let (ids, first, second) = self.inputs();
        let (tables, second_tables) = (views(&Cpu::new(), &first), views(&Cpu::new(), &second));
        let inputs = LookupInputs { ids: Host::view(&ids), tables: &tables, second_tables: &second_tables };
        let op = Lookup::default().with_ids(self.policy);
        let bags = self.jagged();
        let exact = reference::lookup(&op, self.pooled(&bags), &inputs)?;
        let longest = bags.max_length() as f64;
        for (name, got, exact, tables) in
            [("out", &output.0, exact.0, &first), ("second", &output.1, exact.1.unwrap_or_default(), &second)]
        {
            if self.pool == Pool::Each && self.storage != Storage::Int8 {
                // A gather is exact.
                let exact: Vec<u32> = exact.iter().map(|&x| (x as f32).to_bits()).collect();
                compare_exact(name, got, &exact)?;
                continue;
            }
            // Two roundings to decode an int8, one for each row added, one for the mean.
            let max = tables.iter().map(Owned::max_abs).fold(0.0, f64::max);
            let terms = if self.pool == Pool::Each { 1.0 } else { longest };
            let sum = if self.pool == Pool::Sum { longest.max(1.0) } else { 1.0 };
            let bound = Bound::uniform((terms + 3.0) * U * max * sum, true);
            let got: Vec<f32> = got.iter().map(|&x| f32::from_bits(x)).collect();
            compare(name, &got, &exact, &bound, rules)?;
        }
        Ok(())
    }
}
