//! The inputs of an operation where a backend reads them, and memory for their gradients.

use burn_core::backend::TensorMetadata;
use longseq::prelude::*;
use longseq::{Result, View, ViewMut};

use crate::argument::Float;
use crate::graph::Pass;
use crate::place::{Lent, Place, Values};

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

/// The memory of a place's backend.
pub(crate) type MemoryOf<P> = <<P as Place>::Backend as DeviceOps>::Memory;

/// Inputs that a backend reads, by their index.
pub(crate) struct Loan<'a, P: Place, T: Float> {
    rows: Vec<Option<Lent<'a, P, T>>>,
    numbers: Vec<Option<Lent<'a, P, f32>>>,
    ids: Vec<Option<Lent<'a, P, u32>>>,
}

impl<'a, P: Place, T: Float> Loan<'a, P, T> {
    /// Lends the first tensors, one for each kind.
    pub(crate) fn new(place: &P, tensors: &'a [Values<P>], kinds: &[Kind]) -> Result<Self> {
        let mut loan = Self { rows: Vec::new(), numbers: Vec::new(), ids: Vec::new() };
        for (tensor, kind) in tensors.iter().zip(kinds) {
            let (mut row, mut number, mut id) = (None, None, None);
            match kind {
                Kind::Row => row = Some(place.lend(tensor)?),
                Kind::Number => number = Some(place.lend(tensor)?),
                Kind::Id => id = Some(place.lend(tensor)?),
                Kind::Unread => {}
            }
            loan.rows.push(row);
            loan.numbers.push(number);
            loan.ids.push(id);
        }
        Ok(loan)
    }

    /// An input of [`Kind::Row`].
    pub(crate) fn row(&self, index: usize) -> View<'_, MemoryOf<P>, T> {
        self.rows[index].as_ref().expect("an input of this kind").view()
    }

    /// An input of [`Kind::Number`].
    pub(crate) fn number(&self, index: usize) -> View<'_, MemoryOf<P>, f32> {
        self.numbers[index].as_ref().expect("an input of this kind").view()
    }

    /// An input of [`Kind::Id`].
    pub(crate) fn id(&self, index: usize) -> View<'_, MemoryOf<P>, u32> {
        self.ids[index].as_ref().expect("an input of this kind").view()
    }
}

/// Views for writing, by index of an input: one of them, where a gradient is wanted.
pub(crate) type Views<'a, P, T> = Vec<Option<ViewMut<'a, MemoryOf<P>, T>>>;

/// Memory for the gradients that a backward pass wants.
pub(crate) struct GradientMemory<P: Place, T: Float> {
    rows: Vec<Option<P::Output<T>>>,
    numbers: Vec<Option<P::Output<f32>>>,
}

impl<P: Place, T: Float> GradientMemory<P, T> {
    pub(crate) fn new(place: &P, pass: &Pass<'_, P>, kinds: &[Kind]) -> Result<Self> {
        let mut memory = Self { rows: Vec::new(), numbers: Vec::new() };
        for (index, kind) in kinds.iter().enumerate() {
            let length = pass.inputs[index].shape().num_elements();
            let wanted = |asked: Kind| (*kind == asked && pass.wanted[index]).then_some(length);
            memory.rows.push(wanted(Kind::Row).map(|length| place.output::<T>(length)).transpose()?);
            memory.numbers.push(wanted(Kind::Number).map(|length| place.output::<f32>(length)).transpose()?);
        }
        Ok(memory)
    }

    /// Where gradients of rows, and of numbers, are written.
    pub(crate) fn views(&mut self, place: &P) -> (Views<'_, P, T>, Views<'_, P, f32>) {
        let rows =
            self.rows.iter_mut().map(|output| output.as_mut().map(|output| place.output_mut::<T>(output)));
        let numbers = self
            .numbers
            .iter_mut()
            .map(|output| output.as_mut().map(|output| place.output_mut::<f32>(output)));
        (rows.collect(), numbers.collect())
    }

    /// The gradients, in the shapes of the inputs.
    pub(crate) fn finish(self, place: &P, pass: &Pass<'_, P>) -> Result<Vec<Option<Values<P>>>> {
        let mut grads = Vec::with_capacity(self.rows.len());
        for ((row, number), input) in self.rows.into_iter().zip(self.numbers).zip(pass.inputs) {
            let shape = input.shape().to_vec();
            grads.push(match (row, number) {
                (Some(row), _) => Some(place.finish::<T>(row, shape)?),
                (None, Some(number)) => Some(place.finish::<f32>(number, shape)?),
                (None, None) => None,
            });
        }
        Ok(grads)
    }
}
