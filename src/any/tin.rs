//! TIN.

use crate::any::backend::{AnyBackend, call};
use crate::any::memory::{AnyBatch, AnyMemory};
use crate::any::open::opens;
use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::memory::View;
use crate::ops::{Tin, TinGradients, TinInputs, TinOps, TinOutputs, TinSaved};

opens! {
    TinInputs<T> { targets, history, positions, history_positions, target_positions } as [];
    TinOutputs<T> { out, pooled, lse } as [];
    TinSaved<T> { pooled, lse } as ["saved"];
    TinGradients<T> { targets, history, positions } as ["grads"];
}

impl TinOps for AnyBackend {
    fn tin_into<T: Element>(
        &self,
        op: &Tin,
        batch: &AnyBatch,
        inputs: TinInputs<'_, AnyMemory, T>,
        outputs: TinOutputs<'_, AnyMemory, T>,
    ) -> Result<()> {
        call!("tin", self.tin_into(op; batch, inputs, outputs))
    }

    fn tin_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &Tin,
        batch: &AnyBatch,
        inputs: TinInputs<'_, AnyMemory, T>,
        saved: TinSaved<'_, AnyMemory, T>,
        grad_out: View<'_, AnyMemory, T>,
        grads: TinGradients<'_, AnyMemory, G>,
    ) -> Result<()> {
        call!("tin_backward", self.tin_backward_into(op; batch, inputs, saved, grad_out, grads))
    }
}
