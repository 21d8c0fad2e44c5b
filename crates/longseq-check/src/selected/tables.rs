//! Cases of attention over a selection whose values are rows of embedding tables.

use longseq::*;

use super::SelectedCase;
use super::bounds::Errors;
use super::inputs::Inputs;
use crate::by_dtype;
use crate::case::{Calls, Case, Failure, Rules};
use crate::compare::{Bound, compare};
use crate::data::{self, Data, Ids};
use crate::guard::Guarded;
use crate::lookup::{Owned, Storage, Stored, feature_ids, read_row, table, upload_all, views};
use crate::named::Work;
use crate::target_attention::AttentionOutput;

/// Where keys come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum KeysFrom {
    /// Rows of all behaviours.
    Rows,
    /// Tables of their own.
    Tables,
    /// The tables of values.
    Values,
}

/// Attention over a selection from tables, with `lse`.
#[derive(Debug, Clone)]
pub struct SelectedTableCase {
    /// All but the tables. Rows of values, and of keys where they come from tables, are not used.
    pub forward: SelectedCase,
    /// Where keys come from.
    pub keys: KeysFrom,
    /// How the tables store their rows.
    pub storage: Storage,
    /// The rows of each feature's table. The widths are as equal as they can be.
    pub table_rows: Vec<usize>,
    /// How often each id occurs.
    pub ids: Ids,
    /// With `IdPolicy::Zero`, every fifth id is outside.
    pub policy: IdPolicy,
}

impl Default for SelectedTableCase {
    fn default() -> Self {
        Self {
            forward: SelectedCase::default(),
            keys: KeysFrom::Rows,
            storage: Storage::F32,
            table_rows: vec![20, 7],
            ids: Ids::Skewed,
            policy: IdPolicy::Error,
        }
    }
}

/// The inputs in a kind of memory.
pub(super) struct TableInputs<S: Memory, T: Element> {
    given: Inputs<S, T>,
    pub(super) keys: Vec<Owned<S>>,
    pub(super) values: Vec<Owned<S>>,
    ids: S::Buffer<u32>,
}

impl<S: Memory, T: Element> TableInputs<S, T> {
    /// These as the operation takes them, with the views of the tables of keys and of values.
    pub(super) fn views<'a, B: Backend<Memory = S>>(
        &'a self,
        backend: &B,
        from: KeysFrom,
        [keys, values]: [&'a [Table<'a, S>]; 2],
    ) -> SelectedTableInputs<'a, S, T> {
        let given = self.given.views(backend);
        let keys = match from {
            KeysFrom::Rows => SelectedKeys::Rows(given.keys),
            KeysFrom::Tables => SelectedKeys::Tables(keys),
            KeysFrom::Values => SelectedKeys::Values,
        };
        let ids = backend.view(&self.ids);
        let mut views = SelectedTableInputs::new(given.queries, keys, values, ids, given.selection);
        (views.bias, views.gammas) = (given.bias, given.gammas);
        views
    }
}

impl<T: Element> TableInputs<Host, T> {
    /// These on a backend.
    pub(super) fn upload<B: Backend>(&self, backend: &B) -> Result<TableInputs<B::Memory, T>> {
        Ok(TableInputs {
            given: self.given.upload(backend)?,
            keys: upload_all(backend, &self.keys)?,
            values: upload_all(backend, &self.values)?,
            ids: backend.upload(&self.ids)?,
        })
    }
}

impl SelectedTableCase {
    /// The operation.
    pub fn op(&self) -> SelectedAttention {
        self.forward.op().with_ids(self.policy)
    }

    /// How the tables store their rows.
    pub fn storage(&self) -> &'static str {
        self.storage.name()
    }

    /// The least that the call must do, ids apart: as with rows.
    pub fn work(&self) -> Work {
        self.forward.work()
    }

    /// The widths of the tables of a side whose heads have this width.
    pub(super) fn widths(&self, width: usize) -> Vec<usize> {
        let (features, total) = (self.table_rows.len(), self.forward.kv_heads * width);
        (0..features).map(|f| total * (f + 1) / features - total * f / features).collect()
    }

    pub(super) fn inputs<T: Element>(&self) -> TableInputs<Host, T> {
        let (op, batch) = (self.op(), self.forward.batch());
        let mut rng = data::rng(self.forward.seed ^ 0x7ab1e);
        let mut tables = |width: usize| -> Vec<Owned<Host>> {
            let widths = self.widths(width);
            let tables = self.table_rows.iter().zip(widths);
            tables
                .map(|(&rows, width)| table(&mut rng, self.forward.data, self.storage, rows, width))
                .collect()
        };
        let (keys, values) = (tables(op.width), tables(op.value_width));
        let mut ids = feature_ids(&mut rng, self.ids, batch.histories().rows(), &self.table_rows);
        if self.policy == IdPolicy::Zero {
            let features = self.table_rows.len();
            for (place, id) in ids.iter_mut().enumerate().step_by(5) {
                *id = self.table_rows[place % features] as u32 + place as u32 % 3;
            }
        }
        // Ids that are nobody's may be anything.
        ids[batch.histories().total() * self.table_rows.len()..].fill(u32::MAX);
        TableInputs { given: self.forward.inputs(), keys, values, ids: ids.into() }
    }

    /// The rows of all behaviours, decoded and rounded, or for bounds the sums of the magnitudes that decoding adds up.
    fn rows(&self, tables: &[Owned<Host>], ids: &[u32]) -> HostBuffer<f32> {
        let (used, features) = (self.forward.batch().histories().total(), tables.len());
        let owned = views(&Cpu::new(), tables);
        let row = |(place, &id): (usize, &u32)| -> Vec<f32> {
            let (table, stored) = (&owned[place % features], &tables[place % features].data);
            let (id, width) = (id as usize, table.width);
            match stored {
                Stored::Int8 { codes, scale, offset } if id < table.rows => {
                    let codes = &codes[id * width..(id + 1) * width];
                    let sum = |&code: &i8| scale[id].abs() * f32::from(code).abs() + offset[id].abs();
                    codes.iter().map(sum).collect()
                }
                _ => read_row(table, id as u32).into_iter().map(|x| x as f32).collect(),
            }
        };
        let mut rows: Vec<f32> = ids[..used * features].iter().enumerate().flat_map(row).collect();
        let width: usize = tables.iter().map(|table| table.width).sum();
        rows.resize(self.forward.batch().histories().rows() * width, 0.0);
        rows.into()
    }

    /// The errors that a backend may make.
    pub(super) fn errors<T: Element>(&self, inputs: &TableInputs<Host, T>) -> Errors {
        let given = &inputs.given;
        let wide =
            |rows: &[T]| -> HostBuffer<f32> { rows.iter().map(|x| x.to_f32()).collect::<Vec<_>>().into() };
        let values = self.rows(&inputs.values, &inputs.ids);
        let (keys, values) = match self.keys {
            KeysFrom::Rows => (wide(&given.keys), Some(values)),
            KeysFrom::Tables => (self.rows(&inputs.keys, &inputs.ids), Some(values)),
            KeysFrom::Values => (values, None),
        };
        let rows = Inputs::<Host, f32> {
            queries: wide(&given.queries),
            keys,
            values,
            bias: given.bias.as_ref().map(|bias| bias.to_vec().into()),
            gammas: given.gammas.as_ref().map(|gammas| gammas.to_vec().into()),
            positions: given.positions.to_vec().into(),
            similarities: given.similarities.to_vec().into(),
            counts: given.counts.to_vec().into(),
        };
        // A product and a sum decode a number.
        let decoding = if self.storage == Storage::Int8 { 2.0 } else { 0.0 };
        Errors::of_decoded(&self.forward, &rows, decoding)
    }

    /// The most slots of all candidates whose behaviours have the same id.
    pub(super) fn readers_of_ids<T: Element>(&self, inputs: &TableInputs<Host, T>) -> usize {
        let (features, top_k, given) = (self.table_rows.len(), self.forward.top_k, &inputs.given);
        let mut readers: Vec<Vec<usize>> = self.table_rows.iter().map(|&rows| vec![0; rows]).collect();
        for (history, targets) in self.forward.batch().requests() {
            for m in targets {
                for &position in &given.positions[m * top_k..][..given.counts[m] as usize] {
                    let behaviour = history.start + position as usize;
                    for (feature, readers) in readers.iter_mut().enumerate() {
                        let id = inputs.ids[behaviour * features + feature] as usize;
                        readers.get_mut(id).into_iter().for_each(|readers| *readers += 1);
                    }
                }
            }
        }
        readers.into_iter().flatten().max().unwrap_or(0)
    }

    fn run_as<B: Backend, T: Element>(
        &self,
        backend: &B,
        calls: &mut dyn Calls,
    ) -> Result<AttentionOutput, Failure> {
        let (op, batch) = (self.op(), self.forward.batch());
        let device_batch = backend.batch(batch.histories(), batch.targets())?;
        let inputs = self.inputs::<T>().upload(backend)?;
        let (keys, values) = (views(backend, &inputs.keys), views(backend, &inputs.values));
        let (rows, row) = (batch.targets().total(), op.heads * op.value_width);
        let tail = self.forward.tail;
        let mut out = Guarded::<B, T>::new(backend, rows * row, tail * row)?;
        let mut lse = Guarded::<B, f32>::new(backend, rows * op.heads, tail * op.heads)?;
        calls.make("selected_table_attention", &mut || {
            let outputs =
                SelectedAttentionOutputs::new(out.view_mut(backend)?).with_lse(lse.view_mut(backend)?);
            let inputs = inputs.views(backend, self.keys, [&keys, &values]);
            Ok(backend.selected_table_attention_into(&op, &device_batch, inputs, outputs)?)
        })?;
        Ok(AttentionOutput::new(out.finish(backend, "out")?, lse.finish(backend, "lse")?))
    }

    fn compare_as<T: Element>(&self, output: &AttentionOutput, rules: Rules) -> Result<(), Failure> {
        let (op, batch, inputs) = (self.op(), self.forward.batch(), self.inputs::<T>());
        let (keys, values) = (views(&Cpu::new(), &inputs.keys), views(&Cpu::new(), &inputs.values));
        let views = inputs.views(&Cpu::new(), self.keys, [&keys, &values]);
        let exact = reference::selected_table_attention(&op, &batch, &views)?;
        let rows = batch.targets().total() * op.heads;
        let errors = self.errors(&inputs);
        let case = &self.forward;
        let plain = [Data::Normal, Data::Equal].contains(&case.data) && case.scale.is_none();
        let plain = plain && case.nan.is_none() && self.storage != Storage::Int8;
        let bound = Bound::uniform(errors.out::<T>(rules), plain);
        compare("out", &output.values::<T>(), &exact.out[..rows * op.value_width], &bound, rules)?;
        compare("lse", &output.lse(), &exact.lse[..rows], &Bound::uniform(errors.lse(), false), rules)
    }
}

impl Case for SelectedTableCase {
    type Output = AttentionOutput;

    fn run_with<B: Backend>(&self, backend: &B, calls: &mut dyn Calls) -> Result<AttentionOutput, Failure> {
        by_dtype!(self.forward.dtype, T => self.run_as::<B, T>(backend, calls))
    }

    fn compare(&self, output: &AttentionOutput, rules: Rules) -> Result<(), Failure> {
        by_dtype!(self.forward.dtype, T => self.compare_as::<T>(output, rules))
    }
}
