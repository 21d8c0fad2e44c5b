//! The inputs of an operation where a backend reads them, and buffers for their gradients.

use candle_core::{Result, Tensor};
use longseq::{View, ViewMut};

use crate::error::Wrapped;
use crate::place::{Lent, Place};
use crate::read::Slices;
use crate::record::Pass;
use crate::tensors::{Float, tensor};

/// How an input is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In the storage type of the operation's rows.
    Row,
    /// As `f32`.
    Number,
    /// As `u32`.
    Id,
    /// Not read by the operation.
    Unread,
}

/// Inputs that a backend reads, by their index.
pub(crate) struct Loan<'a, B: Place, T: Float> {
    rows: Vec<Option<Lent<'a, B, T>>>,
    numbers: Vec<Option<Lent<'a, B, f32>>>,
    ids: Vec<Option<Lent<'a, B, u32>>>,
}

impl<'a, B: Place, T: Float> Loan<'a, B, T> {
    /// Lends the first tensors, one for each kind.
    pub(crate) fn new(backend: &B, parts: &Slices<'a>, kinds: &[Kind]) -> Result<Self> {
        let mut loan = Self { rows: Vec::new(), numbers: Vec::new(), ids: Vec::new() };
        for (index, kind) in kinds.iter().enumerate() {
            let (mut row, mut number, mut id) = (None, None, None);
            match kind {
                Kind::Row => row = Some(backend.lend(parts.of::<T>(index)?).wrapped()?),
                Kind::Number => number = Some(backend.lend(parts.of::<f32>(index)?).wrapped()?),
                Kind::Id => id = Some(backend.lend(parts.of::<u32>(index)?).wrapped()?),
                Kind::Unread => {}
            }
            loan.rows.push(row);
            loan.numbers.push(number);
            loan.ids.push(id);
        }
        Ok(loan)
    }

    /// An input of [`Kind::Row`].
    pub(crate) fn row(&self, index: usize) -> View<'_, B::Memory, T> {
        self.rows[index].as_ref().expect("an input of this kind").view()
    }

    /// An input of [`Kind::Number`].
    pub(crate) fn number(&self, index: usize) -> View<'_, B::Memory, f32> {
        self.numbers[index].as_ref().expect("an input of this kind").view()
    }

    /// An input of [`Kind::Id`].
    pub(crate) fn id(&self, index: usize) -> View<'_, B::Memory, u32> {
        self.ids[index].as_ref().expect("an input of this kind").view()
    }
}

/// Views for writing, by index of an input: one of them, where a gradient is wanted.
pub(crate) type Views<'a, B, T> = Vec<Option<ViewMut<'a, <B as longseq::DeviceOps>::Memory, T>>>;

/// Memory for the gradients that a backward pass wants.
pub(crate) struct GradientMemory<B: Place, T: Float> {
    rows: Vec<Option<B::Output<T>>>,
    numbers: Vec<Option<B::Output<f32>>>,
}

impl<B: Place, T: Float> GradientMemory<B, T> {
    pub(crate) fn new(backend: &B, pass: &Pass<'_>, kinds: &[Kind]) -> Result<Self> {
        let mut memory = Self { rows: Vec::new(), numbers: Vec::new() };
        for (index, kind) in kinds.iter().enumerate() {
            let length = pass.inputs[index].elem_count();
            let wanted = |asked: Kind| (*kind == asked && pass.wanted[index]).then_some(length);
            let row = wanted(Kind::Row).map(|length| backend.output::<T>(length).wrapped());
            let number = wanted(Kind::Number).map(|length| backend.output::<f32>(length).wrapped());
            memory.rows.push(row.transpose()?);
            memory.numbers.push(number.transpose()?);
        }
        Ok(memory)
    }

    /// Where gradients of rows, and of numbers, are written.
    pub(crate) fn views(&mut self, backend: &B) -> (Views<'_, B, T>, Views<'_, B, f32>) {
        let rows =
            self.rows.iter_mut().map(|output| output.as_mut().map(|output| backend.output_mut::<T>(output)));
        let numbers = self
            .numbers
            .iter_mut()
            .map(|output| output.as_mut().map(|output| backend.output_mut::<f32>(output)));
        (rows.collect(), numbers.collect())
    }

    /// The gradients, in the shapes of the inputs.
    pub(crate) fn finish(self, backend: &B, pass: &Pass<'_>) -> Result<Vec<Option<Tensor>>> {
        let mut grads = Vec::with_capacity(self.rows.len());
        for ((row, number), input) in self.rows.into_iter().zip(self.numbers).zip(pass.inputs) {
            grads.push(match (row, number) {
                (Some(row), _) => Some(tensor(backend.finish::<T>(row).wrapped()?, input)?),
                (None, Some(number)) => Some(tensor(backend.finish::<f32>(number).wrapped()?, input)?),
                (None, None) => None,
            });
        }
        Ok(grads)
    }
}
