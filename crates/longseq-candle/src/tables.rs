//! Embedding tables among the inputs of an operation.

use candle_core::{DType, Device, Result, Tensor};
use longseq::half::{bf16, f16};
use longseq::{Host, SparseGradientMut, Table, TableData, TableGradient};

use crate::error::{Wrapped, wrong};
use crate::loan::Kind;
use crate::place::{Lent, Place};
use crate::read::Slices;
use crate::record::Pass;
use crate::sparse_table::{SparseTable, TableRows};
use crate::tensors::Argument;

/// An embedding table `[rows, width]` of `f32`, `f16` or `bf16`.
#[derive(Clone, Copy)]
pub enum TableTensor<'a> {
    /// A tensor, whose gradient is as large as the table: for small tables.
    Dense(&'a Tensor),
    /// A table that keeps a sparse gradient for its own steps.
    Sparse(&'a SparseTable),
}

impl<'a> From<&'a Tensor> for TableTensor<'a> {
    fn from(table: &'a Tensor) -> Self {
        Self::Dense(table)
    }
}

impl<'a> From<&'a SparseTable> for TableTensor<'a> {
    fn from(table: &'a SparseTable) -> Self {
        Self::Sparse(table)
    }
}

/// The tables of an operation: where their tensors are among its inputs.
#[derive(Default)]
pub(crate) struct Tables {
    tables: Vec<Entry>,
}

struct Entry {
    /// Where the tensor is.
    values: usize,
    /// Of a sparse table, where its anchor is.
    sparse: Option<(SparseTable, usize)>,
    dtype: DType,
    rows: usize,
    width: usize,
}

impl Tables {
    /// Adds tables to the inputs.
    pub(crate) fn new(
        operation: &'static str,
        argument: &'static str,
        tables: &[TableTensor<'_>],
        inputs: &mut Vec<Tensor>,
        kinds: &mut Vec<Kind>,
    ) -> Result<Self> {
        let mut entries = Vec::with_capacity(tables.len());
        for table in tables {
            let (tensor, sparse) = match table {
                TableTensor::Dense(tensor) => (*tensor, None),
                TableTensor::Sparse(table) => (table.values(), Some(*table)),
            };
            let [rows, width] = tensor.dims() else {
                return Err(wrong(operation, argument, "[rows, width]", format!("{:?}", tensor.dims())));
            };
            let (rows, width) = (*rows, *width);
            let values = Argument::new(operation, argument, tensor).float()?;
            let dtype = values.dtype();
            let index = inputs.len();
            inputs.push(values);
            kinds.push(Kind::Unread);
            let sparse = sparse.map(|table| {
                inputs.push(table.anchor().clone());
                kinds.push(Kind::Unread);
                (table.clone(), index + 1)
            });
            entries.push(Entry { values: index, sparse, dtype, rows, width });
        }
        Ok(Self { tables: entries })
    }

    /// The sum of the widths.
    pub(crate) fn width(&self) -> usize {
        self.tables.iter().map(|table| table.width).sum()
    }

    pub(crate) fn lend<'a, B: Place>(
        &self,
        backend: &B,
        parts: &Slices<'a>,
    ) -> Result<Vec<LentTable<'a, B>>> {
        let lend = |entry: &Entry| {
            let index = entry.values;
            let values = match entry.dtype {
                DType::F16 => LentValues::F16(backend.lend(parts.of::<f16>(index)?).wrapped()?),
                DType::BF16 => LentValues::Bf16(backend.lend(parts.of::<bf16>(index)?).wrapped()?),
                _ => LentValues::F32(backend.lend(parts.of::<f32>(index)?).wrapped()?),
            };
            Ok(LentTable { rows: entry.rows, width: entry.width, values })
        };
        self.tables.iter().map(lend).collect()
    }

    /// Memory for the gradients that are wanted: sparse ones of up to `capacity` rows.
    pub(crate) fn gradient_memory<B: Place>(
        &self,
        backend: &B,
        pass: &Pass<'_>,
        capacity: usize,
    ) -> Result<TableGradientMemory<B>> {
        let mut memory = Vec::with_capacity(self.tables.len());
        for entry in &self.tables {
            memory.push(match entry.sparse {
                Some((_, anchor)) if pass.wanted[anchor] => {
                    let capacity = capacity.min(entry.rows);
                    let ids = backend.output::<u32>(capacity).wrapped()?;
                    let rows = backend.output::<f32>(capacity * entry.width).wrapped()?;
                    OfTable::Sparse { ids, rows, count: backend.output::<u32>(1).wrapped()? }
                }
                None if pass.wanted[entry.values] => {
                    OfTable::Dense(backend.output::<f32>(entry.rows * entry.width).wrapped()?)
                }
                _ => OfTable::None,
            });
        }
        Ok(TableGradientMemory { tables: memory })
    }

    /// Gives the gradients to the graph, and to sparse tables.
    pub(crate) fn finish<B: Place>(
        &self,
        memory: TableGradientMemory<B>,
        backend: &B,
        pass: &Pass<'_>,
        grads: &mut [Option<Tensor>],
    ) -> Result<()> {
        for (entry, output) in self.tables.iter().zip(memory.tables) {
            match (output, &entry.sparse) {
                (OfTable::Dense(output), _) => {
                    let rows = backend.finish::<f32>(output).wrapped()?;
                    let grad = Tensor::from_vec(rows, (entry.rows, entry.width), &Device::Cpu)?;
                    grads[entry.values] = Some(grad.to_dtype(entry.dtype)?);
                }
                (OfTable::Sparse { ids, rows, count }, Some((table, anchor))) => {
                    let count = backend.finish::<u32>(count).wrapped()?[0] as usize;
                    let (mut ids, mut rows) =
                        (backend.finish::<u32>(ids).wrapped()?, backend.finish::<f32>(rows).wrapped()?);
                    ids.truncate(count);
                    rows.truncate(count * entry.width);
                    table.add(TableRows { ids, rows });
                    grads[*anchor] = Some(pass.inputs[*anchor].zeros_like()?);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Memory for gradients of tables.
pub(crate) struct TableGradientMemory<B: Place> {
    tables: Vec<OfTable<B>>,
}

enum OfTable<B: Place> {
    None,
    Dense(B::Output<f32>),
    Sparse { ids: B::Output<u32>, rows: B::Output<f32>, count: B::Output<u32> },
}

impl<B: Place> TableGradientMemory<B> {
    /// Where the gradients are written; an empty list if none is wanted.
    pub(crate) fn views(&mut self, backend: &B) -> Vec<Option<TableGradient<'_, B::Memory>>> {
        let is_wanted = self.tables.iter().any(|output| !matches!(output, OfTable::None));
        let tables = self.tables.iter_mut().filter(|_| is_wanted);
        tables
            .map(|output| match output {
                OfTable::None => None,
                OfTable::Dense(output) => Some(TableGradient::Dense(backend.output_mut(output))),
                OfTable::Sparse { ids, rows, count } => Some(TableGradient::Sparse(SparseGradientMut::new(
                    backend.output_mut(ids),
                    backend.output_mut(rows),
                    backend.output_mut(count),
                ))),
            })
            .collect()
    }
}

/// A table where a backend reads it.
pub(crate) struct LentTable<'a, B: Place> {
    rows: usize,
    width: usize,
    values: LentValues<'a, B>,
}

enum LentValues<'a, B: Place> {
    F32(Lent<'a, B, f32>),
    F16(Lent<'a, B, f16>),
    Bf16(Lent<'a, B, bf16>),
}

/// The tables, for the inputs of a call.
pub(crate) fn views<'a, B: Place>(lent: &'a [LentTable<'_, B>]) -> Vec<Table<'a, B::Memory>> {
    let view = |table: &'a LentTable<'_, B>| {
        let data = match &table.values {
            LentValues::F32(values) => TableData::F32(values.view()),
            LentValues::F16(values) => TableData::F16(values.view()),
            LentValues::Bf16(values) => TableData::Bf16(values.view()),
        };
        Table::new(table.rows, table.width, data)
    };
    lent.iter().map(view).collect()
}

/// The first of some tensors, of this type, as the CPU reads a table.
pub(crate) fn data<'a>(dtype: DType, parts: &Slices<'a>) -> Result<TableData<'a, Host>> {
    Ok(match dtype {
        DType::F16 => TableData::F16(Host::view(parts.of::<f16>(0)?)),
        DType::BF16 => TableData::Bf16(Host::view(parts.of::<bf16>(0)?)),
        _ => TableData::F32(Host::view(parts.of::<f32>(0)?)),
    })
}
