//! Embedding tables among the inputs of an operation.

use burn_core::backend::ops::FloatTensorOps;
use burn_core::tensor::{DType, FloatDType, Tensor};
use longseq::half::{bf16, f16};
use longseq::{Result, Table, TableData, TableGradient};

use crate::argument::Argument;
use crate::graph::{Input, Pass};
use crate::loan::{Kind, MemoryOf};
use crate::place::{Lent, Place, Values};

/// The tables of an operation: where they are among its inputs.
#[derive(Default)]
pub(crate) struct Tables {
    tables: Vec<Entry>,
}

struct Entry {
    index: usize,
    dtype: DType,
    rows: usize,
    width: usize,
}

impl Tables {
    /// Adds tables `[rows, width]` of `f32`, `f16` or `bf16` to the inputs.
    pub(crate) fn new<P: Place>(
        operation: &'static str,
        argument: &'static str,
        tables: &[&Tensor<2>],
        inputs: &mut Vec<Input<P>>,
        kinds: &mut Vec<Kind>,
    ) -> Result<Self> {
        let mut entries = Vec::with_capacity(tables.len());
        for table in tables {
            let [rows, width] = table.dims();
            let input = Argument::new(operation, argument, *table).float::<P>()?;
            entries.push(Entry { index: inputs.len(), dtype: input.dtype(), rows, width });
            inputs.push(input);
            kinds.push(Kind::Unread);
        }
        Ok(Self { tables: entries })
    }

    /// The sum of the widths.
    pub(crate) fn width(&self) -> usize {
        self.tables.iter().map(|table| table.width).sum()
    }

    pub(crate) fn lend<'a, P: Place>(
        &self,
        place: &P,
        tensors: &'a [Values<P>],
    ) -> Result<Vec<LentTable<'a, P>>> {
        let lend = |entry: &Entry| {
            let tensor = &tensors[entry.index];
            let values = match entry.dtype {
                DType::F16 => LentValues::F16(place.lend(tensor)?),
                DType::BF16 => LentValues::Bf16(place.lend(tensor)?),
                _ => LentValues::F32(place.lend(tensor)?),
            };
            Ok(LentTable { rows: entry.rows, width: entry.width, values })
        };
        self.tables.iter().map(lend).collect()
    }

    /// Memory for the gradients that are wanted.
    pub(crate) fn gradient_memory<P: Place>(
        &self,
        place: &P,
        pass: &Pass<'_, P>,
    ) -> Result<TableGradientMemory<P>> {
        let output = |entry: &Entry| {
            pass.wanted[entry.index].then(|| place.output::<f32>(entry.rows * entry.width)).transpose()
        };
        Ok(TableGradientMemory { tables: self.tables.iter().map(output).collect::<Result<_>>()? })
    }

    /// Gives the gradients to the graph.
    pub(crate) fn finish<P: Place>(
        &self,
        memory: TableGradientMemory<P>,
        place: &P,
        grads: &mut [Option<Values<P>>],
    ) -> Result<()> {
        for (entry, output) in self.tables.iter().zip(memory.tables) {
            if let Some(output) = output {
                let grad = place.finish::<f32>(output, vec![entry.rows, entry.width])?;
                grads[entry.index] = Some(match entry.dtype {
                    DType::F16 => P::Burn::float_cast(grad, FloatDType::F16),
                    DType::BF16 => P::Burn::float_cast(grad, FloatDType::BF16),
                    _ => grad,
                });
            }
        }
        Ok(())
    }
}

/// Memory for gradients of tables.
pub(crate) struct TableGradientMemory<P: Place> {
    tables: Vec<Option<P::Output<f32>>>,
}

impl<P: Place> TableGradientMemory<P> {
    /// Where the gradients are written; an empty list if none is wanted.
    pub(crate) fn views(&mut self, place: &P) -> Vec<Option<TableGradient<'_, MemoryOf<P>>>> {
        if self.tables.iter().all(Option::is_none) {
            return Vec::new();
        }
        let tables = self.tables.iter_mut();
        tables
            .map(|output| output.as_mut().map(|output| TableGradient::Dense(place.output_mut(output))))
            .collect()
    }
}

/// A table where a backend reads it.
pub(crate) struct LentTable<'a, P: Place> {
    rows: usize,
    width: usize,
    values: LentValues<'a, P>,
}

enum LentValues<'a, P: Place> {
    F32(Lent<'a, P, f32>),
    F16(Lent<'a, P, f16>),
    Bf16(Lent<'a, P, bf16>),
}

/// The tables, for the inputs of a call.
pub(crate) fn views<'a, P: Place>(lent: &'a [LentTable<'_, P>]) -> Vec<Table<'a, MemoryOf<P>>> {
    let view = |table: &'a LentTable<'_, P>| {
        let data = match &table.values {
            LentValues::F32(values) => TableData::F32(values.view()),
            LentValues::F16(values) => TableData::F16(values.view()),
            LentValues::Bf16(values) => TableData::Bf16(values.view()),
        };
        Table::new(table.rows, table.width, data)
    };
    lent.iter().map(view).collect()
}
