//! Search.

use crate::any::backend::{AnyBackend, call};
use crate::any::memory::{AnyBatch, AnyMemory, Kind};
use crate::any::open::{Open, opens};
use crate::element::Element;
use crate::error::Result;
use crate::memory::{View, ViewMut};
use crate::ops::{Search, SearchOps, SearchRows, SelectionMut, Signs, SimilarityInputs};

opens! {
    SimilarityInputs { queries, keys, bias } as [];
}

impl<'a, S: Kind> Open<S> for SearchRows<'a, AnyMemory> {
    type Opened = SearchRows<'a, S>;

    fn open(self, operation: &'static str, argument: &'static str) -> Result<Self::Opened> {
        Ok(match self {
            Self::F32(rows) => SearchRows::F32(rows.open(operation, argument)?),
            Self::F16(rows) => SearchRows::F16(rows.open(operation, argument)?),
            Self::Bf16(rows) => SearchRows::Bf16(rows.open(operation, argument)?),
            Self::Int8 { codes, scale, offset } => SearchRows::Int8 {
                codes: codes.open(operation, argument)?,
                scale: scale.open(operation, argument)?,
                offset: offset.open(operation, argument)?,
            },
            Self::Codes(codes) => SearchRows::Codes(codes.open(operation, argument)?),
            Self::Signs(signs) => SearchRows::Signs(signs.open(operation, argument)?),
            Self::Keys(keys) => SearchRows::Keys(keys.open(operation, argument)?),
        })
    }
}

impl SearchOps for AnyBackend {
    fn search_into(
        &self,
        op: &Search,
        batch: &AnyBatch,
        inputs: SimilarityInputs<'_, AnyMemory>,
        out: SelectionMut<'_, AnyMemory>,
    ) -> Result<()> {
        call!("search", self.search_into(op; batch, inputs, out))
    }

    fn pack_signs_into<T: Element>(
        &self,
        op: &Signs,
        rows: View<'_, AnyMemory, T>,
        rotations: View<'_, AnyMemory, f32>,
        out: ViewMut<'_, AnyMemory, u32>,
    ) -> Result<()> {
        call!("pack_signs", self.pack_signs_into(op; rows, rotations, out))
    }
}
