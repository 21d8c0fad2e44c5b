//! Cases of SDIM's gradients.

use longseq::*;

use super::items::Source;
use super::{Inputs, SdimCase};
use crate::by_dtype;
use crate::case::{Calls, Case, Failure, Rules};
use crate::compare::{Bound, U, additions, compare};
use crate::data::{self, Data};
use crate::guard::Guarded;
use crate::named::Work;

/// The three backward passes of SDIM, at the table that the reference computes.
#[derive(Debug, Clone, Default)]
pub struct SdimBackwardCase {
    /// The forward pass.
    pub forward: SdimCase,
    /// The gradients of behaviours are stored as they are, not as `f32`.
    pub narrow: bool,
    /// Signatures are computed from rotations, not given.
    pub hashed: bool,
    /// Where rows have signatures of their own, these have 8 bits instead of 16.
    pub bytes: bool,
    /// A NaN in the gradient of this candidate's output.
    pub nan: Option<usize>,
}

/// The results of a run, floating-point numbers as bits.
#[derive(Debug, Clone, PartialEq)]
pub struct SdimGradientOutput {
    /// Of behaviours and candidates.
    signatures: [Vec<u16>; 2],
    query: Vec<u32>,
    encode: Vec<u8>,
    attend: Vec<u8>,
}

const CALLS: [&str; 3] = ["sdim_query_backward", "sdim_encode_backward", "sdim_attend_backward"];

/// What the backward passes read besides the rows.
struct Incoming<T> {
    table: Vec<f32>,
    grad_out: Vec<T>,
    grad_table: Vec<f32>,
}

impl SdimBackwardCase {
    /// How rows are stored.
    pub fn storage(&self) -> &'static str {
        self.forward.storage()
    }

    /// The least that the call must do: what its forward pass does; nothing is hashed where signatures are given.
    pub fn work(&self, operation: &str) -> Work {
        let mut work = self.forward.work(operation.trim_end_matches("_backward"));
        if !self.hashed {
            let batch = self.forward.batch();
            let (behaviours, candidates) = (batch.histories().total(), batch.targets().total());
            let hashed = match operation {
                "sdim_query_backward" => candidates,
                "sdim_encode_backward" => behaviours,
                _ => behaviours + candidates,
            };
            work.flops -= self.forward.op().signatures_flops(hashed);
        }
        work
    }

    fn incoming<T: Element>(
        &self,
        inputs: &Inputs<T>,
        signatures: &[Vec<u16>; 2],
    ) -> Result<Incoming<T>, Failure> {
        let (op, batch) = (self.forward.op(), self.forward.batch());
        let hash = Hash::Signatures16(Host::view(&signatures[0]));
        let encode = SdimEncodeInputs::new(Host::view(&inputs.history), hash);
        let table = reference::sdim_encode(&op, batch.histories(), &encode)?;
        let mut rng = data::rng(self.forward.seed ^ 0x9e37);
        let mut grad_out: Vec<T> = data::rows(&mut rng, Data::Normal, batch.targets().rows(), op.width);
        if let Some(candidate) = self.nan {
            grad_out[candidate * op.width] = T::from_f32(f32::NAN);
        }
        let grad_table = data::rows(&mut rng, Data::Normal, table.len() / op.width, op.width);
        Ok(Incoming { table: table.into_iter().map(|x| x as f32).collect(), grad_out, grad_table })
    }

    fn run_as<B: Backend, T: Element, G: GradientOf<T>>(
        &self,
        backend: &B,
        calls: &mut dyn Calls,
    ) -> Result<SdimGradientOutput, Failure> {
        let (op, batch, inputs) = (self.forward.op(), self.forward.batch(), self.forward.inputs::<T>()?);
        let device_batch = backend.batch(batch.histories(), batch.targets())?;
        let histories = backend.jagged(batch.histories())?;
        let targets = backend.jagged(batch.targets())?;
        let rotations = backend.upload(&inputs.rotations)?;
        let (rows, target_rows) = (backend.upload(&inputs.history)?, backend.upload(&inputs.targets)?);
        let signatures = if self.hashed {
            let words = |rows: &Buffer<B, T>, count: usize| -> Result<Vec<u16>, Failure> {
                let mut words = backend.zeros(count * op.groups)?;
                let (rows, rotations) = (backend.view(rows), backend.view(&rotations));
                backend.sdim_signatures_into(&op, rows, rotations, backend.view_mut(&mut words))?;
                Ok(backend.download(backend.view(&words))?)
            };
            [words(&rows, batch.histories().rows())?, words(&target_rows, batch.targets().rows())?]
        } else {
            [inputs.history_signatures.clone(), inputs.target_signatures.clone()]
        };
        let incoming = self.incoming(&inputs, &signatures)?;
        let given = [0, 1].map(|side| Source::new(backend, &self.forward, &inputs, (side, self.bytes)));
        let [given, target_given] = given;
        let given = [given?, target_given?];
        let [hash, target_hash] = given.each_ref().map(|given| match self.hashed {
            true => Hash::Rotations(backend.view(&rotations)),
            false => given.hash(backend),
        });
        let hashed_rows = self.hashed.then(|| backend.view(&target_rows));
        let (table, grad_table) = (backend.upload(&incoming.table)?, backend.upload(&incoming.grad_table)?);
        let grad_out = backend.upload(&incoming.grad_out)?;

        let mut query = Guarded::<B, f32>::new(backend, incoming.table.len(), 0)?;
        let mut query_inputs = SdimQueryInputs::new(backend.view(&table), target_hash);
        query_inputs.targets = hashed_rows;
        calls.make(CALLS[0], &mut || {
            let (from, to) = (backend.view(&grad_out), query.view_mut(backend)?);
            Ok(backend.sdim_query_backward_into::<T>(&op, &targets, query_inputs, from, to)?)
        })?;
        let (used, unused) = (batch.histories().total() * op.width, self.forward.tail * op.width);
        let mut encode = Guarded::<B, G>::new(backend, used, unused)?;
        let weights = inputs.weights.as_ref().map(|weights| backend.upload(weights)).transpose()?;
        let mut encode_inputs = SdimEncodeInputs::new(backend.view(&rows), hash);
        encode_inputs.weights = weights.as_ref().map(|weights| backend.view(weights));
        calls.make(CALLS[1], &mut || {
            let (from, to) = (backend.view(&grad_table), encode.view_mut(backend)?);
            Ok(backend.sdim_encode_backward_into(&op, &histories, encode_inputs, from, to)?)
        })?;
        let mut attend = Guarded::<B, G>::new(backend, used, unused)?;
        let mut attend_inputs = SdimAttendInputs::new(backend.view(&rows), hash, target_hash);
        attend_inputs.targets = hashed_rows;
        calls.make(CALLS[2], &mut || {
            let (from, to) = (backend.view(&grad_out), attend.view_mut(backend)?);
            Ok(backend.sdim_attend_backward_into(&op, &device_batch, attend_inputs, from, to)?)
        })?;
        let bytes = |rows: Vec<G>| bytemuck::cast_slice(&rows).to_vec();
        Ok(SdimGradientOutput {
            signatures,
            query: super::bits(&query.finish(backend, "table")?),
            encode: bytes(encode.finish(backend, "encode")?),
            attend: bytes(attend.finish(backend, "attend")?),
        })
    }

    fn compare_as<T: Element, G: Element>(
        &self,
        output: &SdimGradientOutput,
        rules: Rules,
    ) -> Result<(), Failure> {
        let (op, batch, inputs) = (self.forward.op(), self.forward.batch(), self.forward.inputs::<T>()?);
        let incoming = self.incoming(&inputs, &output.signatures)?;
        let grad_out: Vec<f64> = incoming.grad_out.iter().map(|x| x.to_f32().into()).collect();
        let grad_table: Vec<f64> = incoming.grad_table.iter().map(|&x| x.into()).collect();
        let [hash, target_hash] = [0, 1].map(|side| Hash::Signatures16(Host::view(&output.signatures[side])));
        let history = Host::view(&inputs.history);
        let query_inputs = SdimQueryInputs::<_, T>::new(Host::view(&incoming.table), target_hash);
        let query = reference::sdim_query_backward(&op, batch.targets(), &query_inputs, &grad_out)?;
        let encode_inputs = inputs.encode(hash);
        let encode = reference::sdim_encode_backward(&op, batch.histories(), &encode_inputs, &grad_table)?;
        let attend_inputs = SdimAttendInputs::new(history, hash, target_hash);
        let attend = reference::sdim_attend_backward(&op, &batch, &attend_inputs, &grad_out)?;

        let plain = self.forward.data == Data::Normal && self.nan.is_none();
        let buckets = self.bucket_errors(&inputs, &incoming, &output.signatures);
        let per_row = |error: &BucketError| std::iter::repeat_n(error.of_given_table, op.width);
        let bound = Bound::of_each(buckets.iter().flat_map(per_row).collect(), plain);
        if !query.is_empty() {
            compare("table", &super::floats(&output.query), &query, &bound, rules)?;
        }
        let used = batch.histories().total() * op.width;
        let sum_error = (op.groups as f64 + 2.0) * U;
        let largest = op.groups as f64 * data::max_abs(&incoming.grad_table);
        let heaviest = inputs.weights.as_ref().map_or(1.0, |weights| data::max_abs(weights));
        let bound = Bound::uniform((sum_error + U) * largest * heaviest, plain);
        compare(
            "encode",
            &bytemuck::pod_collect_to_vec::<u8, G>(&output.encode),
            &encode[..used],
            &bound,
            rules,
        )?;

        let of_behaviour = |(b, l): (usize, usize)| -> f64 {
            let bucket = |g: usize| {
                let word = usize::from(output.signatures[0][l * op.groups + g]);
                &buckets[(b * op.groups + g) * op.buckets() + word]
            };
            (0..op.groups).map(bucket).map(|error| error.of_sums + sum_error * error.largest).sum()
        };
        let behaviours =
            batch.histories().ranges().enumerate().flat_map(|(b, rows)| rows.map(move |l| (b, l)));
        // Rows in gaps have gradients of exactly 0.
        let mut absolute = vec![0.0; used];
        for (b, l) in behaviours {
            absolute[l * op.width..(l + 1) * op.width].fill(of_behaviour((b, l)));
        }
        if absolute.is_empty() {
            return Ok(());
        }
        let bound = Bound::of_each(absolute, plain && !self.forward.normalise);
        compare(
            "attend",
            &bytemuck::pod_collect_to_vec::<u8, G>(&output.attend),
            &attend[..used],
            &bound,
            rules,
        )
    }

    /// For each bucket row, the error that `f32` arithmetic may make in its gradient.
    ///
    /// With `D` the sum of `‖grad_out‖` over the candidates that read it, each number of the gradient is at most `2·D/(G·‖T‖)`.
    /// The sum of the `grad_out` has a rounding per addition. Where the table is computed on the way, its rounding errors turn
    /// the row and change its length, by at most `δ = Σ‖s‖/‖T‖` times the roundings of a sum.
    fn bucket_errors<T: Element>(
        &self,
        inputs: &Inputs<T>,
        incoming: &Incoming<T>,
        signatures: &[Vec<u16>; 2],
    ) -> Vec<BucketError> {
        let (op, batch) = (self.forward.op(), self.forward.batch());
        // Beside a number that is not finite, the others have their bound.
        let square = |x: &T| if x.to_f32().is_finite() { f64::from(x.to_f32()).powi(2) } else { 0.0 };
        let norm = |row: &[T]| row.iter().map(square).sum::<f64>().sqrt();
        let sums = |jagged: &Jagged, rows: &[T], words: &[u16]| {
            let mut sums = vec![0.0; batch.users() * op.groups * op.buckets()];
            for (b, rows_of_b) in jagged.ranges().enumerate() {
                for row in rows_of_b {
                    for g in 0..op.groups {
                        let bucket =
                            (b * op.groups + g) * op.buckets() + usize::from(words[row * op.groups + g]);
                        sums[bucket] += norm(&rows[row * op.width..(row + 1) * op.width]);
                    }
                }
            }
            sums
        };
        let grads = sums(batch.targets(), &incoming.grad_out, &signatures[1]);
        let rows = sums(batch.histories(), &inputs.history, &signatures[0]);
        let additions_of = |jagged: &Jagged| (additions(jagged.max_length()) + 8.0) * U;
        let (of_grads, of_rows) = (additions_of(batch.targets()), additions_of(batch.histories()));
        let error = |((sum, grads), rows): ((&[f32], f64), f64)| {
            let length = sum.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let divisor = op.groups as f64 * if op.normalise { length } else { 1.0 };
            let largest = if grads == 0.0 || divisor == 0.0 { 0.0 } else { 2.0 * grads / divisor };
            let turned = if op.normalise && length > 0.0 { 6.0 * of_rows * rows / length } else { 0.0 };
            BucketError {
                largest,
                of_given_table: of_grads * largest,
                of_sums: (of_grads + turned) * largest,
            }
        };
        incoming.table.chunks(op.width).zip(grads).zip(rows).map(error).collect()
    }
}

/// How large the gradient of a bucket row may be, and its error where the table is given and where it is computed.
struct BucketError {
    largest: f64,
    of_given_table: f64,
    of_sums: f64,
}

impl Case for SdimBackwardCase {
    type Output = SdimGradientOutput;

    fn run_with<B: Backend>(
        &self,
        backend: &B,
        calls: &mut dyn Calls,
    ) -> Result<SdimGradientOutput, Failure> {
        by_dtype!(self.forward.dtype, T => if self.narrow {
            self.run_as::<B, T, T>(backend, calls)
        } else {
            self.run_as::<B, T, f32>(backend, calls)
        })
    }

    fn compare(&self, output: &SdimGradientOutput, rules: Rules) -> Result<(), Failure> {
        by_dtype!(self.forward.dtype, T => if self.narrow {
            self.compare_as::<T, T>(output, rules)
        } else {
            self.compare_as::<T, f32>(output, rules)
        })
    }
}
