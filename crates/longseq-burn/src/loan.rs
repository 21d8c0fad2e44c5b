//! The inputs of an operation where a backend reads them, and room for their gradients.

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

/// Room for the gradients that a backward pass wants.
pub(crate) struct Rooms<P: Place, T: Float> {
    rows: Vec<Option<P::Room<T>>>,
    numbers: Vec<Option<P::Room<f32>>>,
}

impl<P: Place, T: Float> Rooms<P, T> {
    pub(crate) fn new(place: &P, pass: &Pass<'_, P>, kinds: &[Kind]) -> Result<Self> {
        let mut rooms = Self { rows: Vec::new(), numbers: Vec::new() };
        for (index, kind) in kinds.iter().enumerate() {
            let length = pass.inputs[index].shape().num_elements();
            let wanted = |asked: Kind| (*kind == asked && pass.wanted[index]).then_some(length);
            rooms.rows.push(wanted(Kind::Row).map(|length| place.room::<T>(length)).transpose()?);
            rooms.numbers.push(wanted(Kind::Number).map(|length| place.room::<f32>(length)).transpose()?);
        }
        Ok(rooms)
    }

    /// Where gradients of rows, and of numbers, are written.
    pub(crate) fn views(&mut self, place: &P) -> (Views<'_, P, T>, Views<'_, P, f32>) {
        let rows = self.rows.iter_mut().map(|room| room.as_mut().map(|room| place.room_mut::<T>(room)));
        let numbers =
            self.numbers.iter_mut().map(|room| room.as_mut().map(|room| place.room_mut::<f32>(room)));
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
