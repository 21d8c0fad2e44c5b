//! Look-ups, sorted ids, sparse gradients and optimisers.

use crate::any::backend::{AnyBackend, call};
use crate::any::memory::{AnyJagged, AnyMemory, Kind};
use crate::any::open::{Open, opens, opens_lists};
use crate::element::Element;
use crate::error::Result;
use crate::ops::{
    Bags, IdColumn, IdPolicy, Lookup, LookupGradOut, LookupGradients, LookupInputs, LookupOps, LookupOutputs,
    LookupSaved, Optimiser, OptimiserState, SortedIds, SortedIdsMut, SparseGradient, SparseGradientMut,
    Table, TableData, TableGradient, TableMut,
};

opens_lists! {
    LookupInputs { ids, weights; tables, second_tables } as [], of Table;
    LookupSaved { ; sorted } as [], of SortedIds;
}

opens! {
    LookupOutputs { out, second } as [];
    LookupGradOut { out, second } as ["grad_out"];
    LookupGradients { tables, second_tables, weights } as ["grads"];
    IdColumn { ids, more_ids, features, feature, rows, policy } as [];
    SortedIds { ids, starts, positions, count } as *;
    SortedIdsMut { ids, starts, positions, count } as ["out"];
    SparseGradient { ids, rows, count } as ["gradient"];
    SparseGradientMut { ids, rows, count } as *;
    Table { rows, width, data } as *;
    TableMut<T> { rows, width, data } as *;
}

/// A rule is the same for every memory.
impl<S: Kind> Open<S> for IdPolicy {
    type Opened = Self;

    fn open(self, _: &'static str, _: &'static str) -> Result<Self> {
        Ok(self)
    }
}

impl<'a, S: Kind> Open<S> for Bags<'a, AnyJagged> {
    type Opened = Bags<'a, S::Jagged>;

    fn open(self, operation: &'static str, argument: &'static str) -> Result<Self::Opened> {
        Ok(match self {
            Self::Each => Bags::Each,
            Self::Sum(bags) => Bags::Sum(Open::<S>::open(bags, operation, argument)?),
            Self::Mean(bags) => Bags::Mean(Open::<S>::open(bags, operation, argument)?),
        })
    }
}

impl<'a, S: Kind> Open<S> for TableData<'a, AnyMemory> {
    type Opened = TableData<'a, S>;

    fn open(self, operation: &'static str, argument: &'static str) -> Result<Self::Opened> {
        Ok(match self {
            Self::F32(data) => TableData::F32(data.open(operation, argument)?),
            Self::F16(data) => TableData::F16(data.open(operation, argument)?),
            Self::Bf16(data) => TableData::Bf16(data.open(operation, argument)?),
            Self::Int8 { codes, scale, offset } => TableData::Int8 {
                codes: codes.open(operation, argument)?,
                scale: scale.open(operation, argument)?,
                offset: offset.open(operation, argument)?,
            },
        })
    }
}

impl<'a, S: Kind> Open<S> for TableGradient<'a, AnyMemory> {
    type Opened = TableGradient<'a, S>;

    fn open(self, operation: &'static str, argument: &'static str) -> Result<Self::Opened> {
        Ok(match self {
            Self::Sparse(gradient) => TableGradient::Sparse(gradient.open(operation, argument)?),
            Self::Dense(gradient) => TableGradient::Dense(gradient.open(operation, argument)?),
        })
    }
}

impl<'a, S: Kind> Open<S> for OptimiserState<'a, AnyMemory> {
    type Opened = OptimiserState<'a, S>;

    fn open(self, operation: &'static str, argument: &'static str) -> Result<Self::Opened> {
        Ok(match self {
            Self::Empty => OptimiserState::Empty,
            Self::Sums(sums) => OptimiserState::Sums(sums.open(operation, argument)?),
            Self::Moments { first, second } => OptimiserState::Moments {
                first: first.open(operation, "state.first")?,
                second: second.open(operation, "state.second")?,
            },
        })
    }
}

impl LookupOps for AnyBackend {
    fn lookup_into(
        &self,
        op: &Lookup,
        bags: Bags<'_, AnyJagged>,
        inputs: LookupInputs<'_, AnyMemory>,
        outputs: LookupOutputs<'_, AnyMemory>,
    ) -> Result<()> {
        call!("lookup", self.lookup_into(op; bags, inputs.lend(), outputs))
    }

    fn sort_ids_into(&self, column: IdColumn<'_, AnyMemory>, out: SortedIdsMut<'_, AnyMemory>) -> Result<()> {
        call!("sort_ids", self.sort_ids_into(; column, out))
    }

    fn lookup_backward_into(
        &self,
        op: &Lookup,
        bags: Bags<'_, AnyJagged>,
        inputs: LookupInputs<'_, AnyMemory>,
        saved: LookupSaved<'_, AnyMemory>,
        grad_out: LookupGradOut<'_, AnyMemory>,
        grads: LookupGradients<'_, AnyMemory>,
    ) -> Result<()> {
        call!("lookup_backward", self.lookup_backward_into(op; bags, inputs.lend(), saved.lend(), grad_out, grads))
    }

    fn update_rows<T: Element>(
        &self,
        op: &Optimiser,
        table: TableMut<'_, AnyMemory, T>,
        state: OptimiserState<'_, AnyMemory>,
        gradient: SparseGradient<'_, AnyMemory>,
    ) -> Result<()> {
        call!("update_rows", self.update_rows(op; table, state, gradient))
    }
}
