//! How results of SDIM are compared with the reference.

use longseq::reference::Projection;
use longseq::*;

use super::{Changed, Inputs, Products, SdimCase, SdimOutput, Weights, bits, floats};
use crate::case::{Failure, Rules};
use crate::compare::{Bound, U, compare, compare_exact, roundings};
use crate::data::{self, Data};

/// Where a device that hashes by itself may differ: rounding may flip the sign of a projection.
struct Doubt {
    /// The error of each number of the table from this: a behaviour may be in any bucket of a group.
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

impl SdimCase {
    pub(super) fn compare_as<T: Element>(&self, output: &SdimOutput, rules: Rules) -> Result<(), Failure> {
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
        let table = floats(&output.given.table);
        self.compare_changed(&output.changed, &table, &inputs.encode(given), (&exact, &errors), rules)?;

        let target_projections = reference::sdim_projections(&op, &inputs.targets, &inputs.rotations)?;
        let doubt = self.doubt(&inputs, &projections, &target_projections)?;
        let rotate = Hash::Rotations(Host::view(&inputs.rotations));
        self.compare_products(&output.hashed, &inputs, rotate, rotate, &doubt, rules)?;
        Ok(())
    }

    /// Compares what calls made of the given table, which is off from the exact one by `errors` at most.
    fn compare_changed<T: Element>(
        &self,
        changed: &Changed,
        table: &[f32],
        inputs: &SdimEncodeInputs<'_, Host, T>,
        (exact, errors): (&[f64], &[f64]),
        rules: Rules,
    ) -> Result<(), Failure> {
        let (op, batch) = (self.op(), self.batch());
        let times = |factor: f64| {
            let absolute = errors.iter().map(|error| factor * error).collect();
            Bound { absolute, ..Bound::uniform(0.0, self.data == Data::Normal) }
        };
        let twice: Vec<f64> = exact.iter().map(|x| 2.0 * x).collect();
        compare("appended table", &floats(&changed.appended), &twice, &times(2.0), rules)?;
        // The roundings of the table are of sums of up to L numbers, those of the append and the removal of up to 2·L.
        let once = reference::sdim_remove(&op, batch.histories(), inputs, &twice)?;
        compare("table after removal", &floats(&changed.removed), &once, &times(5.0), rules)?;
        let twice: Vec<f32> = table.iter().map(|x| 2.0 * x).collect();
        compare_exact("added tables", &changed.added, &bits(&twice))?;
        let ((each, one), table) = (self.factors(), table.iter().map(|&x| x.into()).collect::<Vec<f64>>());
        let decayed = reference::sdim_decay(&op, &reference::sdim_decay(&op, &table, &each)?, &one)?;
        // Two products, each rounded once.
        let absolute = decayed.iter().map(|x| 2.5 * U * x.abs() + f64::from(f32::MIN_POSITIVE)).collect();
        let bound = Bound { absolute, ..Bound::uniform(0.0, self.data == Data::Normal) };
        compare("decayed table", &floats(&changed.decayed), &decayed, &bound, rules)
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
                    let weight = inputs.weights.as_ref().map_or(1.0, |weights| weights[l].abs().into());
                    let buckets = &mut doubt.table[(user * self.groups + g) * group..][..group];
                    for (off, x) in buckets.iter_mut().zip(row.iter().cycle()) {
                        *off += weight * f64::from(x.to_f32()).abs();
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
            Bound { absolute: row.collect(), ..Bound::uniform(0.0, nmse) }
        };
        let exact = reference::sdim_encode::<T>(&op, batch.histories(), &inputs.encode(hash))?;
        // Each number is the sum of up to L others: off by at most some roundings of the sum of their magnitudes. The product with
        // a weight is one rounding more, and may be lost where it is subnormal.
        let longest = batch.histories().max_length() as f64;
        let each = roundings(batch.histories().max_length()) + 1.0;
        let error = match self.weights {
            Weights::None => each * U * longest * data::max_abs(&inputs.history),
            _ => {
                longest * ((each + 1.0) * U * inputs.largest_term(self.width) + f64::from(f32::MIN_POSITIVE))
            }
        };
        let errors: Vec<f64> = doubt.table.iter().map(|off| off + error).collect();
        let table = floats(&output.table);
        let bound = Bound { absolute: errors.clone(), ..Bound::uniform(0.0, nmse) };
        compare("table", &table, &exact, &bound, rules)?;

        // d + 8 roundings for the length of a bucket row, G + 8 for the mean of rows of at most this magnitude.
        let max_length = data::max_abs(&table) * (self.width as f64).sqrt();
        let least_length = f64::from(Sdim::MIN_NORM);
        let largest =
            if self.normalise { (max_length / least_length).min(1.0) } else { data::max_abs(&table) };
        let query_error = (self.width + self.groups + 16) as f64 * U * largest;
        let used = batch.targets().total() * self.width;
        let targets = Host::view(&inputs.targets[..]);
        let users = self.users();
        let mut query = SdimQueryInputs::new(Host::view(&table), target_hash).with_targets(targets);
        query.users = self.shared.then(|| Host::view(&users[..]));
        let exact_query = reference::sdim_query::<T>(&op, batch.targets(), &query)?;
        let got: Vec<T> = bytemuck::pod_collect_to_vec(&output.query);
        compare("query", &got, &exact_query[..used], &rows(query_error, &doubt.queries), rules)?;

        // The table-free form computes its own bucket sums: if rows are normalised, their error is relative to the
        // row's length, and at most the distance of two rows of length 1.
        let attend =
            SdimAttendInputs::new(Host::view(&inputs.history), hash, target_hash).with_targets(targets);
        let exact_attend = reference::sdim_attend::<T>(&op, &batch, &attend)?;
        let error = each * U * longest * data::max_abs(&inputs.history);
        let row_error = (self.width as f64).sqrt() * error;
        let relative = |row: &[f64]| {
            let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            if length == 0.0 { 0.0 } else { (2.0 * row_error / length.max(least_length)).min(2.0) }
        };
        let sum_error = if self.normalise {
            let plain = reference::sdim_encode::<T>(&op, batch.histories(), &attend.encode())?;
            plain.chunks(self.width).map(relative).fold(0.0, f64::max)
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
                return Err(Failure::new(format!(
                    "signatures[{i}]: bit {t} is {bit}, its projection {projection:?}"
                )));
            }
        }
        if u32::from(got) >> op.bits != 0 {
            return Err(Failure::new(format!("signatures[{i}]: {got} has more than {} bits", op.bits)));
        }
    }
    Ok(())
}
