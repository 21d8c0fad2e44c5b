//! Cases of SDIM.

use longseq::reference::Projection;
use longseq::*;

use super::cases::Work;
use super::compare::{Bound, U, compare, compare_exact};
use super::data::{self, Data};
use super::guard::Guarded;
use super::{Calls, Case, Failure, Rules};
use crate::by_dtype;

/// A batch of SDIM: signatures; then, from given signatures, the table, its sum, an append, a query and the
/// table-free form; last, everything from rotations.
#[derive(Debug, Clone)]
pub struct SdimCase {
    pub seed: u64,
    pub dtype: DType,
    pub data: Data,
    pub histories: Vec<usize>,
    pub targets: Vec<usize>,
    pub tail: usize,
    pub width: usize,
    pub groups: usize,
    pub bits: usize,
    pub normalise: bool,
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
        }
    }
}

/// Everything a run gives, floating-point numbers as bits.
#[derive(Debug, Clone, PartialEq)]
pub struct SdimOutput {
    signatures8: Option<Vec<u8>>,
    signatures16: Vec<u16>,
    /// From given signatures.
    given: Products,
    /// From rotations.
    hashed: Products,
    appended: Vec<u32>,
    added: Vec<u32>,
}

/// What encode, query and the table-free form give for the same signatures.
#[derive(Debug, Clone, PartialEq)]
struct Products {
    table: Vec<u32>,
    query: Vec<u8>,
    attend: Vec<u8>,
}

/// How `Calls` know the calls that make `Products`.
const HASHED: [&str; 3] = ["sdim_encode", "sdim_query", "sdim_attend"];
const GIVEN: [&str; 3] = [
    "sdim_encode from given signatures",
    "sdim_query from given signatures",
    "sdim_attend from given signatures",
];

/// What a device that hashes for itself may make otherwise: rounding may flip the sign of a projection.
struct Doubt {
    /// How far each number of the table may be off for it: a behaviour may be in any bucket of a group.
    table: Vec<f64>,
    /// The candidates whose query, from a given table, cannot be compared.
    queries: Vec<bool>,
    /// The candidates whose table-free answer cannot be compared.
    attentions: Vec<bool>,
}

impl Doubt {
    fn any(&self) -> bool {
        self.table.iter().any(|&off| off > 0.0) || self.attentions.contains(&true)
    }
}

struct Inputs<T> {
    rotations: Vec<f32>,
    history: Vec<T>,
    targets: Vec<T>,
    history_signatures: Vec<u16>,
    target_signatures: Vec<u16>,
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

fn floats(bits: &[u32]) -> Vec<f32> {
    bits.iter().map(|&x| f32::from_bits(x)).collect()
}

impl SdimCase {
    pub fn op(&self) -> Sdim {
        Sdim::new(self.width).with_groups(self.groups, self.bits).with_normalise(self.normalise)
    }

    pub fn batch(&self) -> Batch {
        data::batch(&self.histories, &self.targets, self.tail)
    }

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
            "sdim_append" => Work {
                flops: op.encode_flops(rows) - op.signatures_flops(rows),
                bytes: op.encode_bytes::<T>(batch.histories()),
            },
            _ => Work { flops: op.encode_flops(rows), bytes: op.encode_bytes::<T>(batch.histories()) },
        })
    }

    fn inputs<T: Element>(&self) -> Result<Inputs<T>, Failure> {
        let (op, batch, mut rng) = (self.op(), self.batch(), data::rng(self.seed));
        let (n, m) = (batch.histories().rows(), batch.targets().rows());
        Ok(Inputs {
            rotations: op.rotations(self.seed)?,
            history: data::rows(&mut rng, self.data, n, self.width),
            targets: data::rows(&mut rng, self.data, m, self.width),
            history_signatures: data::signatures(&mut rng, n * self.groups, self.bits),
            target_signatures: data::signatures(&mut rng, m * self.groups, self.bits),
        })
    }

    fn run_as<B: Backend, T: Element>(
        &self,
        backend: &B,
        calls: &mut dyn Calls,
    ) -> Result<SdimOutput, Failure> {
        let (op, batch, inputs) = (self.op(), self.batch(), self.inputs::<T>()?);
        let device_batch = backend.batch(batch.histories(), batch.targets())?;
        let histories = backend.jagged(batch.histories())?;
        let targets = backend.jagged(batch.targets())?;
        let rotations = backend.upload(&inputs.rotations)?;
        let (rows, target_rows) = (backend.upload(&inputs.history)?, backend.upload(&inputs.targets)?);
        let given = backend.upload(&inputs.history_signatures)?;
        let target_given = backend.upload(&inputs.target_signatures)?;
        let given = Hash::Signatures16(backend.view(&given));
        let target_given = Hash::Signatures16(backend.view(&target_given));
        let rotate = Hash::Rotations(backend.view(&rotations));

        let count = batch.histories().rows() * self.groups;
        let mut signatures16 = Guarded::<B, u16>::new(backend, count, 0)?;
        calls.make("sdim_signatures (u16)", &mut || {
            let out = signatures16.view_mut(backend)?;
            Ok(backend.sdim_signatures_into(&op, backend.view(&rows), backend.view(&rotations), out)?)
        })?;
        let signatures8 = if self.bits > 8 {
            None
        } else {
            let mut signatures8 = Guarded::<B, u8>::new(backend, count, 0)?;
            calls.make("sdim_signatures", &mut || {
                let out = signatures8.view_mut(backend)?;
                Ok(backend.sdim_signatures_into(&op, backend.view(&rows), backend.view(&rotations), out)?)
            })?;
            Some(signatures8.finish(backend, "signatures (u8)")?)
        };

        let (used, unused) = (batch.targets().total() * self.width, self.tail * self.width);
        let mut products = |names: [&'static str; 3], hash, target_hash, target_rows| {
            let history = SdimHistory { rows: backend.view(&rows), hash };
            let mut table = Guarded::<B, f32>::new(backend, op.table_length(batch.users())?, 0)?;
            calls.make(names[0], &mut || {
                Ok(backend.sdim_encode_into(&op, &histories, history, table.view_mut(backend)?)?)
            })?;
            let table = table.finish(backend, "table")?;
            let device_table = backend.upload(&table)?;
            let mut query = Guarded::<B, T>::new(backend, used, unused)?;
            let inputs =
                SdimQuery { table: backend.view(&device_table), targets: target_rows, hash: target_hash };
            calls.make(names[1], &mut || {
                Ok(backend.sdim_query_into(&op, &targets, inputs, query.view_mut(backend)?)?)
            })?;
            let mut attend = Guarded::<B, T>::new(backend, used, unused)?;
            let inputs = SdimInputs { history, targets: target_rows, hash: target_hash };
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

        let table = backend.upload(&floats(&given_products.table))?;
        let mut appended = backend.upload(&floats(&given_products.table))?;
        let new = SdimHistory { rows: backend.view(&rows), hash: given };
        calls.make("sdim_append", &mut || {
            Ok(backend.sdim_append(&op, &histories, new, backend.view_mut(&mut appended))?)
        })?;
        let mut added = backend.upload(&floats(&given_products.table))?;
        calls.make("sdim_add_tables", &mut || {
            Ok(backend.sdim_add_tables(&op, backend.view_mut(&mut added), backend.view(&table))?)
        })?;
        Ok(SdimOutput {
            signatures8,
            signatures16: signatures16.finish(backend, "signatures (u16)")?,
            given: given_products,
            hashed,
            appended: bits(&backend.download(backend.view(&appended))?),
            added: bits(&backend.download(backend.view(&added))?),
        })
    }

    fn compare_as<T: Element>(&self, output: &SdimOutput, rules: Rules) -> Result<(), Failure> {
        let (op, inputs) = (self.op(), self.inputs::<T>()?);
        let projections = reference::sdim_projections(&op, &inputs.history, &inputs.rotations)?;
        compare_signatures(&op, &output.signatures16, &projections)?;
        if let Some(signatures) = &output.signatures8 {
            let signatures: Vec<u16> = signatures.iter().map(|&signature| signature.into()).collect();
            compare_exact("signatures (u8)", &signatures, &output.signatures16)?;
        }

        let given = Hash::Signatures16(Host::view(&inputs.history_signatures));
        let target_given = Hash::Signatures16(Host::view(&inputs.target_signatures));
        let doubt = self.doubt(&inputs, &[], &[])?;
        let (exact, errors) =
            self.compare_products(&output.given, &inputs, given, target_given, &doubt, rules)?;
        let twice: Vec<f64> = exact.iter().map(|x| 2.0 * x).collect();
        let absolute = errors.iter().map(|error| 2.0 * error).collect();
        let bound = Bound { absolute, nmse: self.data == Data::Normal };
        compare("appended table", &floats(&output.appended), &twice, &bound, rules)?;
        let twice: Vec<f32> = floats(&output.given.table).iter().map(|x| 2.0 * x).collect();
        compare_exact("added tables", &output.added, &bits(&twice))?;

        let target_projections = reference::sdim_projections(&op, &inputs.targets, &inputs.rotations)?;
        let doubt = self.doubt(&inputs, &projections, &target_projections)?;
        let rotate = Hash::Rotations(Host::view(&inputs.rotations));
        self.compare_products(&output.hashed, &inputs, rotate, rotate, &doubt, rules)?;
        Ok(())
    }

    /// From the projections of history and candidates, none where the signatures are given.
    fn doubt<T: Element>(
        &self,
        inputs: &Inputs<T>,
        history: &[Projection],
        targets: &[Projection],
    ) -> Result<Doubt, Failure> {
        let (op, batch) = (self.op(), self.batch());
        let in_doubt = |projections: &[Projection]| projections.iter().any(|p| uncertain(&op, p));
        let mut doubt = Doubt {
            table: vec![0.0; op.table_length(batch.users())?],
            queries: vec![false; batch.targets().total()],
            attentions: vec![false; batch.targets().total()],
        };
        if history.is_empty() && targets.is_empty() {
            return Ok(doubt);
        }
        let group = op.buckets() * self.width;
        for (user, (behaviours, candidates)) in batch.requests().enumerate() {
            let mut any = false;
            for (l, g) in behaviours.flat_map(|l| (0..self.groups).map(move |g| (l, g))) {
                let start = (l * self.groups + g) * self.bits;
                if in_doubt(&history[start..start + self.bits]) {
                    any = true;
                    let row = &inputs.history[l * self.width..(l + 1) * self.width];
                    let buckets = &mut doubt.table[(user * self.groups + g) * group..][..group];
                    for (off, x) in buckets.iter_mut().zip(row.iter().cycle()) {
                        *off += f64::from(x.to_f32()).abs();
                    }
                }
            }
            for m in candidates {
                let bits = self.groups * self.bits;
                doubt.queries[m] = in_doubt(&targets[m * bits..(m + 1) * bits]);
                doubt.attentions[m] = doubt.queries[m] || any;
            }
        }
        Ok(doubt)
    }

    /// Compares table, query and the table-free form, and returns the exact table and the error allowed in it.
    fn compare_products<T: Element>(
        &self,
        output: &Products,
        inputs: &Inputs<T>,
        hash: Hash<'_, Host>,
        target_hash: Hash<'_, Host>,
        doubt: &Doubt,
        rules: Rules,
    ) -> Result<(Vec<f64>, Vec<f64>), Failure> {
        let (op, batch) = (self.op(), self.batch());
        let nmse = self.data == Data::Normal && !doubt.any();
        let rows = |error: f64, doubted: &[bool]| -> Bound {
            let row = |&doubted: &bool| if doubted { f64::INFINITY } else { error };
            let row = doubted.iter().map(row).flat_map(|error| std::iter::repeat_n(error, self.width));
            Bound { absolute: row.collect(), nmse }
        };
        let history = SdimHistory { rows: Host::view(&inputs.history), hash };
        let exact = reference::sdim_encode::<T>(&op, batch.histories(), &history)?;
        // Each number is the sum of up to L others: off by at most L·U times the sum of their magnitudes.
        let longest = batch.histories().max_length() as f64;
        let error = (longest + 1.0) * U * longest * data::max_abs(&inputs.history);
        let errors: Vec<f64> = doubt.table.iter().map(|off| off + error).collect();
        let table = floats(&output.table);
        compare("table", &table, &exact, &Bound { absolute: errors.clone(), nmse }, rules)?;

        // d + 8 roundings for the length of a bucket row, G + 8 for the mean of rows of at most this magnitude.
        let largest = if self.normalise { 1.0 } else { data::max_abs(&table) };
        let query_error = (self.width + self.groups + 16) as f64 * U * largest;
        let used = batch.targets().total() * self.width;
        let targets = Some(Host::view(&inputs.targets));
        let query = SdimQuery { table: Host::view(&table), targets, hash: target_hash };
        let exact_query = reference::sdim_query::<T>(&op, batch.targets(), &query)?;
        let got: Vec<T> = bytemuck::pod_collect_to_vec(&output.query);
        compare("query", &got, &exact_query[..used], &rows(query_error, &doubt.queries), rules)?;

        // The table-free form makes its own bucket sums: their error counts relative to the row's length if rows
        // are normalised, and no more than a row of length 1 can be off.
        let attend = SdimInputs { history, targets, hash: target_hash };
        let exact_attend = reference::sdim_attend::<T>(&op, &batch, &attend)?;
        let row_error = (self.width as f64).sqrt() * error;
        let relative = |row: &[f64]| {
            let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            if length == 0.0 { 0.0 } else { (2.0 * row_error / length).min(2.0) }
        };
        let sum_error = if self.normalise {
            exact.chunks(self.width).map(relative).fold(0.0, f64::max)
        } else {
            row_error
        };
        let got: Vec<T> = bytemuck::pod_collect_to_vec(&output.attend);
        compare(
            "attend",
            &got,
            &exact_attend[..used],
            &rows(query_error + sum_error, &doubt.attentions),
            rules,
        )?;
        Ok((exact, errors))
    }
}

/// Whether `f32` rounding may flip the sign of a projection: `d` products and additions, in any order, are off by at
/// most `(d + 1)·U` times the sum of magnitudes (Higham, §3.1); products below the normal range add an absolute part.
fn uncertain(op: &Sdim, projection: &Projection) -> bool {
    let margin = (op.width + 1) as f64 * (U * projection.magnitude + f64::from(f32::MIN_POSITIVE));
    // A sum of exact zeros is exactly zero on every device.
    projection.magnitude != 0.0 && projection.value.abs() <= margin
}

/// Signatures must be right in every bit whose projection is not within rounding of 0.
fn compare_signatures(op: &Sdim, got: &[u16], projections: &[Projection]) -> Result<(), Failure> {
    for (i, (&got, bits)) in got.iter().zip(projections.chunks(op.bits)).enumerate() {
        for (t, projection) in bits.iter().enumerate() {
            let bit = got >> t & 1 == 1;
            if bit != (projection.value > 0.0) && !uncertain(op, projection) {
                return Err(Failure(format!(
                    "signatures[{i}]: bit {t} is {bit}, its projection {projection:?}"
                )));
            }
        }
        if u32::from(got) >> op.bits != 0 {
            return Err(Failure(format!("signatures[{i}]: {got} has more than {} bits", op.bits)));
        }
    }
    Ok(())
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
