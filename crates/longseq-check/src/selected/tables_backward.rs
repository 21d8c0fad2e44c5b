//! Cases of the gradients of attention over a selection from tables.

use longseq::reference::{SelectedTableGradientReference, SparseGradientReference};
use longseq::*;

use super::SelectedBackwardCase;
use super::tables::{KeysFrom, SelectedTableCase, TableInputs};
use crate::by_dtype;
use crate::case::{Calls, Case, Failure, GradientBits, Rules};
use crate::compare::{Bound, compare, compare_exact};
use crate::data::{self, Data};
use crate::guard::Guarded;
use crate::lookup::{Form, Place, SparseGradientBits, Storage, dense, views};
use crate::named::Work;

/// A backward pass of attention over a selection from tables.
#[derive(Debug, Clone)]
pub struct SelectedTableBackwardCase {
    /// The forward pass.
    pub forward: SelectedTableCase,
    /// Which gradients are asked for: queries, keys that are rows, bias, `γ`, similarities. What the forward pass does not have is not
    /// asked for.
    pub asked: [bool; 5],
    /// The form of the gradients of tables of keys, and of values. 8-bit tables have none.
    pub forms: [Form; 2],
    /// Rows that sparse gradients have room for, beyond those that are needed.
    pub spare: usize,
    /// Gradients of queries and keys are stored as these are, not as `f32`.
    pub narrow: bool,
    /// A gradient comes in for `lse` too.
    pub with_grad_lse: bool,
    /// A NaN in the gradient of this candidate's output.
    pub nan: Option<usize>,
}

impl Default for SelectedTableBackwardCase {
    fn default() -> Self {
        Self {
            forward: SelectedTableCase::default(),
            asked: [true; 5],
            forms: [Form::Sparse; 2],
            spare: 0,
            narrow: false,
            with_grad_lse: false,
            nan: None,
        }
    }
}

const NAMES: [&str; 5] = ["dqueries", "dkeys", "dbias", "dgammas", "dsimilarities"];

/// The gradients of all but tables, then those of tables of keys and of values.
pub type SelectedTableGradientOutput = (GradientBits, Vec<SparseGradientBits>);

impl SelectedTableBackwardCase {
    /// How the tables store their rows.
    pub fn storage(&self) -> &'static str {
        self.forward.storage()
    }

    /// The least that the call must do, ids and sums by id apart: as with rows.
    pub fn work(&self) -> Work {
        let forward = self.forward.forward.clone();
        SelectedBackwardCase { forward, narrow: self.narrow, ..Default::default() }.work()
    }

    /// What is asked for and there.
    fn asked(&self, inputs: &SelectedTableInputs<'_, Host, impl Element>) -> [bool; 5] {
        let [queries, keys, bias, gammas, similarities] = self.asked;
        let rows = self.forward.keys == KeysFrom::Rows;
        [
            queries,
            keys && rows,
            bias && inputs.bias.is_some(),
            gammas && inputs.gammas.is_some(),
            similarities,
        ]
    }

    /// The forms of the gradients of tables of keys and of values.
    fn forms(&self) -> [Form; 2] {
        let [keys, values] = self.forms;
        match (self.forward.storage, self.forward.keys) {
            (Storage::Int8, _) => [Form::None; 2],
            (_, KeysFrom::Tables) => [keys, values],
            _ => [Form::None, values],
        }
    }

    /// The rows that are written, those that are nobody's, and the width of a row.
    fn sizes(&self) -> [(usize, usize, usize); 5] {
        let case = &self.forward.forward;
        let (op, batch, tail) = (case.op(), case.batch(), case.tail);
        let (n, m) = (batch.histories().total(), batch.targets().total());
        [
            (m, tail, op.heads * op.width),
            (n, tail, op.kv_heads * op.width),
            (n, tail, op.heads),
            (op.heads, 0, 3),
            (m, tail, op.top_k),
        ]
    }

    /// The gradients of the output and of the log-sum-exp.
    fn incoming<T: Element>(&self) -> (Vec<T>, Option<Vec<f32>>) {
        let case = &self.forward.forward;
        let (op, rows) = (case.op(), case.batch().targets().rows());
        let mut rng = data::rng(case.seed ^ 0x9e37);
        let mut grad_out: Vec<T> = data::rows(&mut rng, Data::Normal, rows, op.heads * op.value_width);
        if let Some(candidate) = self.nan {
            grad_out[candidate * op.heads * op.value_width] = T::from_f32(f32::NAN);
        }
        (grad_out, self.with_grad_lse.then(|| data::rows(&mut rng, Data::Normal, rows, op.heads)))
    }

    fn exact<T: Element>(
        &self,
        inputs: &TableInputs<Host, T>,
    ) -> Result<SelectedTableGradientReference, Failure> {
        let (op, batch) = (self.forward.op(), self.forward.forward.batch());
        let (grad_out, grad_lse) = self.incoming::<T>();
        let wide_out: Vec<f64> = grad_out.iter().map(|x| x.to_f32().into()).collect();
        let wide_lse: Option<Vec<f64>> =
            grad_lse.as_ref().map(|grad| grad.iter().map(|&x| x.into()).collect());
        let host = Cpu::new();
        let (keys, values) = (views(&host, &inputs.keys), views(&host, &inputs.values));
        let given = inputs.views(&host, self.forward.keys, [&keys, &values]);
        let lse = wide_lse.as_deref();
        Ok(reference::selected_table_attention_backward(&op, &batch, &given, &wide_out, lse)?)
    }

    /// Buffers for the gradients of the tables of a side whose heads have this width.
    fn places<B: Backend>(
        &self,
        backend: &B,
        (form, width): (Form, usize),
        exact: &[SparseGradientReference],
    ) -> Result<Vec<Place<B>>, Failure> {
        let capacity = self.forward.op().gradient_capacity(&self.forward.forward.batch());
        let tables = self.forward.table_rows.iter().zip(self.forward.widths(width)).enumerate();
        let place = |(feature, (&rows, width)): (usize, (&usize, usize))| {
            let used = exact.get(feature).map_or(0, |exact| exact.ids.len());
            let spare = capacity.min(rows) - used + self.spare;
            Place::new(backend, form, (used, spare), rows, width)
        };
        if form == Form::None { Ok(Vec::new()) } else { tables.map(place).collect() }
    }

    fn run_as<B: Backend, T: Element, G: GradientOf<T>>(
        &self,
        backend: &B,
        calls: &mut dyn Calls,
    ) -> Result<SelectedTableGradientOutput, Failure> {
        let (op, batch, inputs) =
            (self.forward.op(), self.forward.forward.batch(), self.forward.inputs::<T>());
        let (exact, (grad_out, grad_lse)) = (self.exact(&inputs)?, self.incoming::<T>());
        let asked = self.asked(&inputs.views(&Cpu::new(), KeysFrom::Values, [&[], &[]]));
        let device_batch = backend.batch(batch.histories(), batch.targets())?;
        let inputs = inputs.upload(backend)?;
        let (keys, values) = (views(backend, &inputs.keys), views(backend, &inputs.values));
        let grad_out = backend.upload(&grad_out)?;
        let grad_lse = grad_lse.as_ref().map(|grad| backend.upload(grad)).transpose()?;
        let sizes = self.sizes();
        let size = |i: usize| {
            let (rows, unused, width) = if asked[i] { sizes[i] } else { (0, 0, 0) };
            (rows * width, unused * width)
        };
        let rows = |i: usize| Guarded::<B, G>::new(backend, size(i).0, size(i).1);
        let numbers = |i: usize| Guarded::<B, f32>::new(backend, size(i).0, size(i).1);
        let mut stored = [rows(0)?, rows(1)?];
        let mut wide = [numbers(2)?, numbers(3)?, numbers(4)?];
        let [key_form, value_form] = self.forms();
        let mut key_places = self.places(backend, (key_form, op.width), &exact.key_tables)?;
        let mut value_places = self.places(backend, (value_form, op.value_width), &exact.values)?;
        calls.make("selected_table_attention_backward", &mut || {
            let mut grad = SelectedAttentionGradOut::new(backend.view(&grad_out));
            grad.lse = grad_lse.as_ref().map(|grad_lse| backend.view(grad_lse));
            let mut grads = SelectedTableGradients::new();
            let ([queries, keys_grad], [bias, gammas, similarities]) = (&mut stored, &mut wide);
            grads.queries = asked[0].then(|| queries.view_mut(backend)).transpose()?;
            grads.keys = asked[1].then(|| keys_grad.view_mut(backend)).transpose()?;
            grads.bias = asked[2].then(|| bias.view_mut(backend)).transpose()?;
            grads.gammas = asked[3].then(|| gammas.view_mut(backend)).transpose()?;
            grads.similarities = asked[4].then(|| similarities.view_mut(backend)).transpose()?;
            let gradient = |place| Place::gradient(place, backend);
            grads.key_tables = key_places.iter_mut().map(gradient).collect::<Result<_, Failure>>()?;
            grads.values = value_places.iter_mut().map(gradient).collect::<Result<_, Failure>>()?;
            let views = inputs.views(backend, self.forward.keys, [&keys, &values]);
            Ok(backend.selected_table_attention_backward_into(&op, &device_batch, views, grad, grads)?)
        })?;
        let mut bits = Vec::new();
        for (rows, name) in stored.into_iter().zip(NAMES) {
            bits.push(bytemuck::cast_slice(&rows.finish(backend, name)?).to_vec());
        }
        for (numbers, name) in wide.into_iter().zip(&NAMES[2..]) {
            bits.push(bytemuck::cast_slice(&numbers.finish(backend, name)?).to_vec());
        }
        let places = key_places.into_iter().chain(value_places);
        let tables = places.map(|place| place.finish(backend)).collect::<Result<Vec<_>, Failure>>()?;
        Ok((bits, tables))
    }

    fn compare_as<T: Element, G: Element>(
        &self,
        got: &SelectedTableGradientOutput,
        rules: Rules,
    ) -> Result<(), Failure> {
        let inputs = self.forward.inputs::<T>();
        let (grad_out, grad_lse) = self.incoming::<T>();
        let exact = self.exact(&inputs)?;
        let (op, (bits, tables)) = (self.forward.op(), got);
        let (max, norm) = (data::max_abs(&grad_out), data::max_norm(&grad_out, op.value_width));
        let max_lse = grad_lse.as_deref().map_or(0.0, data::max_abs);
        let errors = self.forward.errors(&inputs);
        let [dq, dk, _, dbias, dgammas, dsimilarities] = errors.gradients(max, norm, max_lse, rules);
        let bounds = [dq, dk, dbias, dgammas, dsimilarities];
        let sizes = self.sizes();
        let asked = self.asked(&inputs.views(&Cpu::new(), KeysFrom::Values, [&[], &[]]));
        let SelectedTableGradientReference {
            queries,
            keys,
            key_tables,
            values,
            bias,
            gammas,
            similarities,
            ..
        } = exact;
        let exact = [queries, keys, bias.unwrap_or_default(), gammas.unwrap_or_default(), similarities];
        for i in (0..5).filter(|&i| asked[i]) {
            let bound = Bound::uniform(bounds[i], false);
            let exact = &exact[i][..sizes[i].0 * sizes[i].2];
            if i < 2 {
                let rows = bytemuck::pod_collect_to_vec::<u8, G>(&bits[i]);
                compare(NAMES[i], &rows, exact, &bound, rules)?;
            } else {
                let numbers = bytemuck::pod_collect_to_vec::<u8, f32>(&bits[i]);
                compare(NAMES[i], &numbers, exact, &bound, rules)?;
            }
        }
        let readers = self.forward.readers_of_ids(&inputs);
        let [_, dk, dv, ..] = errors.of_tables(readers).gradients(max, norm, max_lse, rules);
        let is_aliased = self.forward.keys == KeysFrom::Values;
        let [key_form, value_form] = self.forms();
        let of_keys = if key_form == Form::None { 0 } else { self.forward.table_rows.len() };
        let (got_keys, got_values) = tables.split_at(of_keys);
        self.compare_tables("keys", (key_form, got_keys), &key_tables, (op.width, dk), rules)?;
        let bound = if is_aliased { dk } else { dv };
        self.compare_tables("values", (value_form, got_values), &values, (op.value_width, bound), rules)
    }

    fn compare_tables(
        &self,
        side: &str,
        (form, got): (Form, &[SparseGradientBits]),
        exact: &[SparseGradientReference],
        (width, bound): (usize, f64),
        rules: Rules,
    ) -> Result<(), Failure> {
        let bound = Bound::uniform(bound, false);
        let tables = got.iter().zip(exact).zip(self.forward.widths(width)).enumerate();
        for (feature, (((ids, rows, count), exact), width)) in tables {
            let name = format!("gradient of {side} {feature}");
            let rows: Vec<f32> = rows.iter().map(|&x| f32::from_bits(x)).collect();
            if form == Form::Sparse {
                compare_exact(&format!("{name}: count"), count, &[exact.ids.len() as u32])?;
                compare_exact(&format!("{name}: ids"), ids, &exact.ids)?;
                compare(&name, &rows, &exact.rows, &bound, rules)?;
            } else {
                compare(&name, &rows, &dense(exact, rows.len(), width), &bound, rules)?;
            }
        }
        Ok(())
    }
}

impl Case for SelectedTableBackwardCase {
    type Output = SelectedTableGradientOutput;

    fn run_with<B: Backend>(
        &self,
        backend: &B,
        calls: &mut dyn Calls,
    ) -> Result<SelectedTableGradientOutput, Failure> {
        by_dtype!(self.forward.forward.dtype, T => if self.narrow {
            self.run_as::<B, T, T>(backend, calls)
        } else {
            self.run_as::<B, T, f32>(backend, calls)
        })
    }

    fn compare(&self, output: &SelectedTableGradientOutput, rules: Rules) -> Result<(), Failure> {
        by_dtype!(self.forward.forward.dtype, T => if self.narrow {
            self.compare_as::<T, T>(output, rules)
        } else {
            self.compare_as::<T, f32>(output, rules)
        })
    }
}
