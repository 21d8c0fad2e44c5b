//! DIN's local activation unit.

use crate::any::backend::{AnyBackend, call};
use crate::any::memory::{AnyBatch, AnyMemory, Kind};
use crate::any::open::{Open, open_all, opens, opens_lists};
use crate::element::{Element, GradientOf};
use crate::error::Result;
use crate::memory::{View, ViewMut};
use crate::ops::{
    Activation, Din, DinGradients, DinInputs, DinLayer, DinLayerGradients, DinOps, DinStatistics,
};

opens_lists! {
    DinInputs<T> { targets, history, output_weight, output_bias; hidden } as [], of DinLayer<T>;
}

opens! {
    DinLayer<T> { weight, bias, activation } as *;
    DinLayerGradients<T> { weight, bias, alpha, gain, shift } as *;
    DinStatistics { mean, centred_squares } as [];
}

impl<'a, S: Kind> Open<S> for Activation<View<'a, AnyMemory, f32>> {
    type Opened = Activation<View<'a, S, f32>>;

    fn open(self, operation: &'static str, argument: &'static str) -> Result<Self::Opened> {
        Ok(match self {
            Self::Relu => Activation::Relu,
            Self::Sigmoid => Activation::Sigmoid,
            Self::Prelu { alpha } => Activation::Prelu { alpha: alpha.open(operation, argument)? },
            Self::Dice { gain, shift, alpha } => Activation::Dice {
                gain: gain.open(operation, argument)?,
                shift: shift.open(operation, argument)?,
                alpha: alpha.open(operation, argument)?,
            },
        })
    }
}

/// [`DinGradients`] with a list of its own: those borrow the caller's for as long as the views in it.
pub(super) struct HeldGradients<'a, S: Kind, G: Element> {
    targets: Option<ViewMut<'a, S, G>>,
    history: Option<ViewMut<'a, S, G>>,
    hidden: Vec<DinLayerGradients<'a, S, G>>,
    output_weight: Option<ViewMut<'a, S, G>>,
    output_bias: Option<ViewMut<'a, S, f32>>,
}

impl<'a, S: Kind, G: Element> Open<S> for DinGradients<'a, AnyMemory, G> {
    type Opened = HeldGradients<'a, S, G>;

    fn open(self, operation: &'static str, _: &'static str) -> Result<Self::Opened> {
        let Self { targets, history, hidden, output_weight, output_bias } = self;
        Ok(HeldGradients {
            targets: targets.open(operation, "grads.targets")?,
            history: history.open(operation, "grads.history")?,
            hidden: open_all(hidden.iter_mut().map(reborrow), operation, "grads.hidden")?,
            output_weight: output_weight.open(operation, "grads.output_weight")?,
            output_bias: output_bias.open(operation, "grads.output_bias")?,
        })
    }
}

impl<'a, S: Kind, G: Element> HeldGradients<'a, S, G> {
    /// The gradients for the call.
    fn lend(&'a mut self) -> DinGradients<'a, S, G> {
        DinGradients {
            targets: self.targets.take(),
            history: self.history.take(),
            hidden: &mut self.hidden,
            output_weight: self.output_weight.take(),
            output_bias: self.output_bias.take(),
        }
    }
}

/// The same gradients of a layer.
fn reborrow<'a, G: Element>(
    layer: &'a mut DinLayerGradients<'_, AnyMemory, G>,
) -> DinLayerGradients<'a, AnyMemory, G> {
    DinLayerGradients {
        weight: layer.weight.as_mut().map(ViewMut::reborrow),
        bias: layer.bias.as_mut().map(ViewMut::reborrow),
        alpha: layer.alpha.as_mut().map(ViewMut::reborrow),
        gain: layer.gain.as_mut().map(ViewMut::reborrow),
        shift: layer.shift.as_mut().map(ViewMut::reborrow),
    }
}

impl DinOps for AnyBackend {
    fn din_into<T: Element>(
        &self,
        op: &Din,
        batch: &AnyBatch,
        inputs: DinInputs<'_, AnyMemory, T>,
        out: ViewMut<'_, AnyMemory, T>,
    ) -> Result<()> {
        call!("din", self.din_into(op; batch, inputs.lend(), out))
    }

    fn din_backward_into<T: Element, G: GradientOf<T>>(
        &self,
        op: &Din,
        batch: &AnyBatch,
        inputs: DinInputs<'_, AnyMemory, T>,
        grad_out: View<'_, AnyMemory, T>,
        grads: DinGradients<'_, AnyMemory, G>,
    ) -> Result<()> {
        call!("din_backward", self.din_backward_into(op; batch, inputs.lend(), grad_out, grads.lend()))
    }

    fn din_statistics_into<T: Element>(
        &self,
        op: &Din,
        batch: &AnyBatch,
        inputs: DinInputs<'_, AnyMemory, T>,
        layer: usize,
        out: DinStatistics<'_, AnyMemory>,
    ) -> Result<()> {
        call!("din_statistics", self.din_statistics_into(op; batch, inputs.lend(), layer, out))
    }
}
