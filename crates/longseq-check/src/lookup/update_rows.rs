//! Cases of optimisers on rows of a table.

use longseq::*;
use rand::RngExt;

use crate::by_dtype;
use crate::case::{Calls, Case, Failure, Rules};
use crate::compare::{Bound, U, compare, compare_exact, roundings};
use crate::data::{self, Data, Ids};
use crate::guard::Guarded;
use crate::named::Work;

/// A step of an optimiser on some rows of a table.
#[derive(Debug, Clone)]
pub struct UpdateRowsCase {
    /// Where the data come from.
    pub seed: u64,
    /// How the table stores its rows.
    pub dtype: DType,
    /// The rows of the table.
    pub rows: usize,
    /// Their width.
    pub width: usize,
    /// The gradient has the different ones of so many ids.
    pub ids: usize,
    /// How often each id occurs.
    pub draw: Ids,
    /// Rows that the gradient has room for, beyond its own.
    pub spare: usize,
    /// The optimiser.
    pub optimiser: Optimiser,
    /// What the gradients look like.
    pub data: Data,
    /// The state is zeros, as before the first step.
    pub fresh: bool,
    /// The place in the gradient's rows of a NaN.
    pub nan: Option<usize>,
}

impl Default for UpdateRowsCase {
    fn default() -> Self {
        Self {
            seed: 1,
            dtype: DType::F32,
            rows: 50,
            width: 16,
            ids: 20,
            draw: Ids::Skewed,
            spare: 0,
            optimiser: Optimiser::adagrad(0.1),
            data: Data::Normal,
            fresh: false,
            nan: None,
        }
    }
}

/// What a step reads.
struct Inputs<T> {
    table: Vec<T>,
    state: Vec<Vec<f32>>,
    ids: Vec<u32>,
    rows: Vec<f32>,
    /// Rows of the gradient that count.
    count: usize,
}

/// A table and its state after a step, as bytes and bits.
pub type UpdatedBits = (Vec<u8>, Vec<Vec<u32>>);

impl UpdateRowsCase {
    /// How the table stores its rows.
    pub fn storage(&self) -> &'static str {
        data::dtype_name(self.dtype)
    }

    fn inputs<T: Element>(&self) -> Inputs<T> {
        let mut rng = data::rng(self.seed);
        let mut ids = data::ids(&mut rng, self.draw, self.ids, self.rows);
        ids.sort_unstable();
        ids.dedup();
        let count = ids.len();
        ids.resize(count + self.spare, u32::MAX);
        let mut rows: Vec<f32> = data::rows(&mut rng, self.data, count + self.spare, self.width);
        if let Some(place) = self.nan {
            rows[place] = f32::NAN;
        }
        let all = self.rows * self.width;
        let mut positive =
            |length: usize| (0..length).map(|_| rng.random_range(0.0..4.0f32)).collect::<Vec<_>>();
        let mut state = match self.optimiser.method {
            OptimiserMethod::Sgd => vec![],
            OptimiserMethod::RowWiseAdagrad { .. } => vec![positive(self.rows)],
            OptimiserMethod::Adam { .. } => {
                let second = positive(all);
                vec![data::rows(&mut rng, Data::Normal, self.rows, self.width), second]
            }
            _ => vec![positive(all)],
        };
        if self.fresh {
            state.iter_mut().for_each(|state| state.fill(0.0));
        }
        let table = data::rows(&mut rng, Data::Normal, self.rows, self.width);
        Inputs { table, state, ids, rows, count }
    }

    /// The least that the call must do.
    pub fn work(&self) -> Work {
        by_dtype!(self.dtype, T => {
            let count = self.inputs::<T>().count;
            let bytes = self.optimiser.bytes::<T>(count, self.width);
            Work { flops: 6 * (count * self.width) as u64, bytes }
        })
    }

    fn run_as<T: Element, B: Backend>(
        &self,
        backend: &B,
        calls: &mut dyn Calls,
    ) -> Result<UpdatedBits, Failure> {
        let Inputs { table, state, ids, rows, count } = self.inputs::<T>();
        let (ids, rows) = (backend.upload(&ids)?, backend.upload(&rows)?);
        let count = backend.upload(&[count as u32])?;
        let gradient = SparseGradient::new(backend.view(&ids), backend.view(&rows), backend.view(&count));
        let mut table = Guarded::<B, T>::holding(backend, &table)?;
        let mut state = state.iter().map(|state| Guarded::<B, f32>::holding(backend, state));
        let mut state = state.by_ref().collect::<Result<Vec<_>, Failure>>()?;
        calls.make("update_rows", &mut || {
            let table = TableMut::new(self.rows, self.width, table.view_mut(backend)?);
            let state = match &mut state[..] {
                [] => OptimiserState::Empty,
                [sums] => OptimiserState::Sums(sums.view_mut(backend)?),
                [first, second, ..] => OptimiserState::Moments {
                    first: first.view_mut(backend)?,
                    second: second.view_mut(backend)?,
                },
            };
            Ok(backend.update_rows(&self.optimiser, table, state, gradient)?)
        })?;
        let table = table.finish(backend, "table")?;
        let bits = |state: Guarded<B, f32>| -> Result<Vec<u32>, Failure> {
            Ok(state.finish(backend, "state")?.into_iter().map(f32::to_bits).collect())
        };
        let state = state.into_iter().map(bits).collect::<Result<_, _>>()?;
        Ok((bytemuck::cast_slice(&table).to_vec(), state))
    }

    fn compare_as<T: Element>(&self, (table, state): &UpdatedBits, rules: Rules) -> Result<(), Failure> {
        let inputs = self.inputs::<T>();
        let table: &[T] = &bytemuck::pod_collect_to_vec(table);
        let op = &self.optimiser;
        let exact = self.reference(op, &inputs, &inputs.table, |x| x)?;
        // Of a table of zeros, what remains is the step: with magnitudes, a bound of all its terms.
        let zeros = vec![T::from_f32(0.0); inputs.table.len()];
        let magnitude = self.reference(&op.with_weight_decay(0.0), &inputs, &zeros, f32::abs)?;
        let is_met = |i: usize| inputs.ids[..inputs.count].binary_search(&(i as u32)).is_ok();
        for (i, (row, before)) in table.chunks(self.width).zip(inputs.table.chunks(self.width)).enumerate() {
            if !is_met(i) {
                compare_exact(&format!("row {i}, which has no gradient"), row, before)?;
            }
        }
        let finite = |x: f64| if x.is_finite() { x } else { 0.0 };
        let nmse = self.data == Data::Normal && self.nan.is_none();
        // The sum of squares of a row; then the operations of a formula, of which none has more than eight in a chain, half of them
        // under a root.
        let squares = roundings(self.width);
        let weights = exact.table.iter().zip(&magnitude.table).zip(&inputs.table);
        let absolute = weights.map(|((_, step), before)| {
            (squares + 16.0) * U * (f64::from(before.to_f32().abs()) + finite(step.abs()))
        });
        let bound = Bound::of_each(absolute.collect(), nmse);
        compare("table", table, &exact.table, &bound, rules)?;
        for (i, got) in state.iter().enumerate() {
            let got: Vec<f32> = got.iter().map(|&x| f32::from_bits(x)).collect();
            let width = inputs.state[i].len() / self.rows;
            for (row, (got, before)) in got.chunks(width).zip(inputs.state[i].chunks(width)).enumerate() {
                if !is_met(row) {
                    compare_exact(&format!("state {i} of row {row}, which has no gradient"), got, before)?;
                }
            }
            let absolute = magnitude.state[i].iter().map(|&x| (squares + 5.0) * U * finite(x)).collect();
            let bound = Bound::of_each(absolute, nmse);
            compare(&format!("state {i}"), &got, &exact.state[i], &bound, rules)?;
        }
        Ok(())
    }

    /// The exact step from a table, with every gradient and state changed by `map`.
    fn reference<T: Element>(
        &self,
        op: &Optimiser,
        inputs: &Inputs<T>,
        table: &[T],
        map: fn(f32) -> f32,
    ) -> Result<reference::UpdatedRowsReference, Failure> {
        let mut table = table.to_vec();
        let mapped = |numbers: &Vec<f32>| numbers.iter().map(|&x| map(x)).collect::<Vec<f32>>();
        let rows = mapped(&inputs.rows);
        let mut states: Vec<Vec<f32>> = inputs.state.iter().map(mapped).collect();
        let state = match &mut states[..] {
            [] => OptimiserState::Empty,
            [sums] => OptimiserState::Sums(Host::view_mut(sums)),
            [first, second, ..] => {
                OptimiserState::Moments { first: Host::view_mut(first), second: Host::view_mut(second) }
            }
        };
        let count = [inputs.count as u32];
        let gradient = SparseGradient::new(Host::view(&inputs.ids), Host::view(&rows), Host::view(&count));
        let table = TableMut::new(self.rows, self.width, Host::view_mut(&mut table));
        Ok(reference::update_rows(op, &table, &state, gradient)?)
    }
}

impl Case for UpdateRowsCase {
    type Output = UpdatedBits;

    fn run_with<B: Backend>(&self, backend: &B, calls: &mut dyn Calls) -> Result<UpdatedBits, Failure> {
        by_dtype!(self.dtype, T => self.run_as::<T, B>(backend, calls))
    }

    fn compare(&self, output: &UpdatedBits, rules: Rules) -> Result<(), Failure> {
        by_dtype!(self.dtype, T => self.compare_as::<T>(output, rules))
    }
}
