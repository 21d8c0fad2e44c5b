//! Cases of the backward pass of look-ups.

use longseq::*;
use proptest::prelude::{Strategy, prop};

use super::{LookupCase, Owned, Pool, upload_all, views};
use crate::case::{Calls, Case, Failure, Rules};
use crate::compare::{Bound, U, compare, compare_exact, roundings};
use crate::data::{self, Data};
use crate::guard::Guarded;
use crate::named::Work;

/// The formula, as `explain` prints it.
pub const FORMULA: &str = "\
each: dT[id] = Σ_{rows l with this id} g_l          g: the part of grad_out that belongs to the table
sum:  dT[id] = Σ_{rows l with this id} g_bag(l)
      with weights: dT_f[id] = Σ w[l, f] · g_bag(l), dw[l, f] = ⟨T_f[ids[l, f]], g_bag(l)⟩ over both sets of tables
mean: dT[id] = Σ_{rows l with this id} g_bag(l) / |bag(l)|
rows: SGD, row-wise Adagrad, Adagrad, lazy Adam on the rows of a sparse gradient";

/// The gradient of a look-up.
#[derive(Debug, Clone)]
pub struct LookupBackwardCase {
    /// The look-up: tables, ids, bags.
    pub forward: LookupCase,
    /// What the gradients that come in look like.
    pub grad: Data,
    /// The place in `grad_out` of a NaN.
    pub nan: Option<usize>,
    /// The form asked for, of the first tables and then of the second ones; the last goes on for all others.
    pub forms: Vec<Form>,
    /// Whether ids are sorted in a call of their own, before.
    pub sorted: bool,
    /// Rows that sparse gradients and sorted ids have room for, beyond those that are needed.
    pub spare: usize,
    /// Whether the gradient of the weights is asked for, where ids have some.
    pub of_weights: bool,
}

/// The form of a table's gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Form {
    /// None is asked for.
    None,
    /// The rows that were read.
    Sparse,
    /// All rows.
    Dense,
}

impl Default for LookupBackwardCase {
    fn default() -> Self {
        Self {
            forward: LookupCase::default(),
            grad: Data::Normal,
            nan: None,
            forms: vec![Form::Sparse],
            sorted: false,
            spare: 0,
            of_weights: true,
        }
    }
}

impl Form {
    /// Lists of forms.
    pub fn lists() -> impl Strategy<Value = Vec<Form>> {
        prop::collection::vec(prop::sample::select(vec![Form::None, Form::Sparse, Form::Dense]), 1..5)
    }
}

/// A gradient as bits: ids, rows and count; of a dense one, and of weights, the numbers alone; of none nothing.
pub type SparseGradientBits = (Vec<u32>, Vec<u32>, Vec<u32>);

/// Buffers of a gradient.
pub(crate) struct Place<B: Backend> {
    form: Form,
    ids: Guarded<B, u32>,
    rows: Guarded<B, f32>,
    count: Guarded<B, u32>,
}

impl<B: Backend> Place<B> {
    /// Room for `used` rows, which must be written, and `spare` more; of a table of so many rows of `width`.
    pub(crate) fn new(
        backend: &B,
        form: Form,
        (used, spare): (usize, usize),
        rows: usize,
        width: usize,
    ) -> Result<Self, Failure> {
        let (ids, count, rows) = match form {
            Form::None => ((0, 0), 0, (0, 0)),
            Form::Sparse => ((used, spare), 1, (used * width, spare * width)),
            Form::Dense => ((0, 0), 0, (rows * width, 0)),
        };
        Ok(Self {
            form,
            ids: Guarded::new(backend, ids.0, ids.1)?,
            rows: Guarded::new(backend, rows.0, rows.1)?,
            count: Guarded::new(backend, count, 0)?,
        })
    }

    /// Where the backend writes; `None` where nothing is asked for.
    pub(crate) fn gradient(&mut self, backend: &B) -> Result<Option<TableGradient<'_, B::Memory>>, Failure> {
        let rows = self.rows.view_mut(backend)?;
        Ok(match self.form {
            Form::None => None,
            Form::Dense => Some(TableGradient::Dense(rows)),
            Form::Sparse => {
                let (ids, count) = (self.ids.view_mut(backend)?, self.count.view_mut(backend)?);
                Some(SparseGradientMut::new(ids, rows, count).into())
            }
        })
    }

    /// What was written.
    pub(crate) fn finish(self, backend: &B) -> Result<SparseGradientBits, Failure> {
        let rows = self.rows.finish(backend, "rows")?.into_iter().map(f32::to_bits).collect();
        Ok((self.ids.finish(backend, "ids")?, rows, self.count.finish(backend, "count")?))
    }
}

impl LookupBackwardCase {
    /// How the tables store their rows.
    pub fn storage(&self) -> &'static str {
        self.forward.storage()
    }

    /// The number of rows of the output.
    fn rows(&self) -> usize {
        let case = &self.forward;
        if case.pool == Pool::Each { case.jagged().total() } else { case.bags.len() }
    }

    /// The gradients that come in: of the output and of the second one.
    fn grads(&self) -> [Vec<f32>; 2] {
        let mut rng = data::rng(self.forward.seed ^ 0x9e37);
        let widths = [&self.forward.widths, &self.forward.second_widths];
        let mut grads =
            widths.map(|widths| data::rows(&mut rng, self.grad, self.rows(), widths.iter().sum()));
        if let Some(place) = self.nan {
            grads[0][place] = f32::NAN;
        }
        grads
    }

    /// The form of the gradient of a table; those of second tables follow.
    fn form(&self, table: usize) -> Form {
        *self.forms.get(table).or(self.forms.last()).unwrap_or(&Form::Sparse)
    }

    /// The number of different ids of each feature.
    fn counts(&self, ids: &[u32]) -> Vec<usize> {
        let features = self.forward.table_rows.len();
        let count = |(feature, &rows): (usize, &usize)| {
            let mut own: Vec<u32> = ids[..self.forward.jagged().total() * features]
                .iter()
                .skip(feature)
                .step_by(features)
                .copied()
                .filter(|&id| (id as usize) < rows)
                .collect();
            own.sort_unstable();
            own.dedup();
            own.len()
        };
        self.forward.table_rows.iter().enumerate().map(count).collect()
    }

    /// The least that the call must do.
    pub fn work(&self, operation: &str) -> Work {
        let case = &self.forward;
        let (ids, features) = (case.jagged().total(), case.table_rows.len());
        if operation == "sort_ids" {
            // Ids read, positions and ids written.
            return Work { flops: 0, bytes: (12 * ids * features) as u64 };
        }
        let touched = self.counts(&case.inputs().0).into_iter().max().unwrap_or(0);
        let both: Vec<usize> = [&case.widths[..], &case.second_widths].concat();
        let flops = (ids * both.iter().sum::<usize>()) as u64;
        Work { flops, bytes: Lookup::default().backward_bytes(ids, self.rows(), touched, &both) }
    }

    /// The error that the gradient of each weight may have: a rounding for each product, one for the sum of both tables, and those of
    /// decoding an int8.
    fn weight_bound(&self, grads: &[Vec<f32>; 2], tables: [&Vec<Owned<Host>>; 2], rules: Rules) -> Bound {
        let case = &self.forward;
        let features = case.table_rows.len();
        let mut absolute = vec![0.0; case.jagged().total() * features];
        for (grad, tables) in grads.iter().zip(tables) {
            let total: usize = tables.iter().map(|table| table.width).sum();
            for (bag, rows) in case.jagged().ranges().enumerate() {
                let mut start = bag * total;
                for (feature, table) in tables.iter().enumerate() {
                    let grad = &grad[start..start + table.width];
                    start += table.width;
                    let sum: f64 = grad.iter().map(|&x| f64::from(x).abs()).filter(|x| x.is_finite()).sum();
                    let error = (roundings(table.width) + 5.0) * U * sum * table.max_abs();
                    let flushed = 3.0 * table.width as f64 * f64::from(f32::MIN_POSITIVE);
                    let error = error + if rules.subnormal { 0.0 } else { flushed };
                    rows.clone().for_each(|l| absolute[l * features + feature] += error);
                }
            }
        }
        Bound::of_each(absolute, false)
    }

    /// Sorts every feature's ids, in a call of its own.
    fn sort<B: Backend>(
        &self,
        backend: &B,
        ids: &Buffer<B, u32>,
        calls: &mut dyn Calls,
    ) -> Result<Vec<SortedIdsBuffers<B::Memory>>, Failure> {
        let mut sorted = Vec::new();
        if !self.sorted {
            return Ok(sorted);
        }
        let features = self.forward.table_rows.len();
        let used = backend.view(ids).slice(0, self.forward.jagged().total() * features)?;
        for (feature, &rows) in self.forward.table_rows.iter().enumerate() {
            let column = IdColumn::new(used, features, feature, rows).with_policy(self.forward.policy);
            let (positions, capacity) = (column.check()? + self.spare, column.capacity()? + self.spare);
            let (ids, starts) = (backend.zeros(capacity)?, backend.zeros(capacity + 1)?);
            let (positions, count) = (backend.zeros(positions)?, backend.zeros(1)?);
            let mut own = SortedIdsBuffers::new(ids, starts, positions, count);
            calls.make("sort_ids", &mut || Ok(backend.sort_ids_into(column, own.sorted_mut())?))?;
            sorted.push(own);
        }
        Ok(sorted)
    }
}

impl Case for LookupBackwardCase {
    type Output = Vec<SparseGradientBits>;

    fn run_with<B: Backend>(&self, backend: &B, calls: &mut dyn Calls) -> Result<Self::Output, Failure> {
        let case = &self.forward;
        let (ids, first, second) = case.inputs();
        let counts = self.counts(&ids);
        let op = Lookup::default().with_ids(case.policy);
        let bags = backend.jagged(&case.jagged())?;
        let ids = backend.upload(&ids)?;
        let (first, second) = (upload_all(backend, &first)?, upload_all(backend, &second)?);
        let (tables, second_tables) = (views(backend, &first), views(backend, &second));
        let weights = case.weights().map(|weights| backend.upload(&weights)).transpose()?;
        let mut inputs = LookupInputs::new(backend.view(&ids), &tables).with_second_tables(&second_tables);
        if let Some(weights) = &weights {
            inputs = inputs.with_weights(backend.view(weights));
        }
        let [grad, grad_second] = self.grads();
        let (grad, grad_second) = (backend.upload(&grad)?, backend.upload(&grad_second)?);
        let sorted = self.sort(backend, &ids, calls)?;
        let sorted: Vec<SortedIds<'_, B::Memory>> = sorted.iter().map(|sorted| sorted.sorted()).collect();
        let used = case.jagged().total();
        let mut places = Vec::new();
        for (i, &width) in case.widths.iter().chain(&case.second_widths).enumerate() {
            let feature = i % counts.len();
            let rows = case.table_rows[feature];
            let spare = used.min(rows) - counts[feature] + self.spare;
            places.push(Place::new(backend, self.form(i), (counts[feature], spare), rows, width)?);
        }
        let of_weights = self.of_weights && weights.is_some();
        let tail = case.jagged().rows() - used;
        let mut weight_grad = match of_weights {
            true => Guarded::<B, f32>::new(backend, used * counts.len(), tail * counts.len())?,
            false => Guarded::new(backend, 0, 0)?,
        };
        calls.make("lookup_backward", &mut || {
            let mut gradients = Vec::new();
            for place in &mut places {
                gradients.push(place.gradient(backend)?);
            }
            let second = gradients.split_off(tables.len());
            let mut grad_out = LookupGradOut::new(backend.view(&grad));
            if !second_tables.is_empty() {
                grad_out = grad_out.with_second(backend.view(&grad_second));
            }
            let saved = LookupSaved::new().with_sorted(&sorted);
            let mut grads = LookupGradients::new().with_tables(gradients).with_second_tables(second);
            if of_weights {
                grads = grads.with_weights(weight_grad.view_mut(backend)?);
            }
            Ok(backend.lookup_backward_into(&op, case.pooled(&bags), inputs, saved, grad_out, grads)?)
        })?;
        let mut out: Self::Output =
            places.into_iter().map(|place| place.finish(backend)).collect::<Result<_, _>>()?;
        let bits = weight_grad.finish(backend, "weights")?.into_iter().map(f32::to_bits).collect();
        out.push((Vec::new(), bits, Vec::new()));
        Ok(out)
    }

    fn compare(&self, output: &Self::Output, rules: Rules) -> Result<(), Failure> {
        let case = &self.forward;
        let (ids, first, second) = case.inputs();
        let (tables, second_tables) = (views(&Cpu::new(), &first), views(&Cpu::new(), &second));
        let inputs = LookupInputs::new(Host::view(&ids), &tables).with_second_tables(&second_tables);
        let weights = case.weights();
        let op = Lookup::default().with_ids(case.policy);
        let (bags, grads) = (case.jagged(), self.grads());
        let exact = |widen: fn(f32) -> f64| -> Result<(Vec<_>, Vec<f64>), Failure> {
            let weights: Option<Vec<f32>> =
                weights.as_ref().map(|weights| weights.iter().map(|&x| widen(x) as f32).collect());
            let inputs = match &weights {
                Some(weights) => inputs.with_weights(Host::view(weights)),
                None => inputs,
            };
            let [grad, second] =
                grads.each_ref().map(|grad| grad.iter().map(|&x| widen(x)).collect::<Vec<_>>());
            let second = (!second_tables.is_empty()).then_some(&second[..]);
            let exact = reference::lookup_backward(&op, case.pooled(&bags), &inputs, &grad, second)?;
            Ok((exact.tables.into_iter().chain(exact.second_tables).collect(), exact.weights))
        };
        let (magnitudes, _) = exact(|x| f64::from(x).abs())?;
        let (exact, exact_weights) = exact(f64::from)?;
        let longest = bags.total();
        for (i, (exact, magnitudes)) in exact.into_iter().zip(magnitudes).enumerate() {
            let (got_ids, got, count) = &output[i];
            let name = format!("gradient {i}");
            let got: Vec<f32> = got.iter().map(|&x| f32::from_bits(x)).collect();
            let (rows, magnitudes) = match self.form(i) {
                Form::None => continue,
                Form::Sparse => {
                    compare_exact(&format!("{name}: count"), count, &[exact.ids.len() as u32])?;
                    compare_exact(&format!("{name}: ids"), got_ids, &exact.ids)?;
                    (exact.rows, magnitudes.rows)
                }
                Form::Dense => {
                    let feature = i % case.table_rows.len();
                    let width = got.len() / case.table_rows[feature].max(1);
                    (dense(&exact, got.len(), width), dense(&magnitudes, got.len(), width))
                }
            };
            // A rounding for each term, one for its weight and one for the product with it.
            let roundings = roundings(longest) + 3.0;
            // Where subnormal numbers are flushed: each term, its product with the weight, and the sum after it.
            let flushed =
                if rules.subnormal { 0.0 } else { 3.0 * longest as f64 * f64::from(f32::MIN_POSITIVE) };
            let absolute = magnitudes
                .iter()
                .map(|sum| if sum.is_finite() { roundings * U * sum + flushed } else { 0.0 });
            // Sums of equal numbers do not cancel.
            let nmse = matches!(self.grad, Data::Same(_));
            let bound = Bound::of_each(absolute.collect(), nmse);
            compare(&name, &got, &rows, &bound, rules)?;
        }
        let Some((_, got, _)) = output.last().filter(|_| self.of_weights && weights.is_some()) else {
            return Ok(());
        };
        let got: Vec<f32> = got.iter().map(|&x| f32::from_bits(x)).collect();
        let bound = self.weight_bound(&grads, [&first, &second], rules);
        compare("gradient of weights", &got, &exact_weights[..bound.absolute.len()], &bound, rules)
    }
}

/// A sparse gradient as all rows of its table.
pub(crate) fn dense(gradient: &reference::SparseGradientReference, length: usize, width: usize) -> Vec<f64> {
    let mut dense = vec![0.0; length];
    for (&id, row) in gradient.ids.iter().zip(gradient.rows.chunks(width.max(1))) {
        dense[id as usize * width..(id as usize + 1) * width].copy_from_slice(row);
    }
    dense
}
