//! The rows of candidates and behaviours.

use std::ops::Range;

use crate::cpu::vector::WideRows;
use crate::element::Element;
use crate::host::Host;
use crate::ops::DinInputs;

/// The rows of a call, whatever they are stored as.
#[derive(Clone, Copy)]
pub(super) struct WideInputs<'a> {
    pub(super) targets: WideRows<'a>,
    pub(super) history: WideRows<'a>,
    pub(super) width: usize,
}

impl<'a> WideInputs<'a> {
    pub(super) fn new<T: Element>(inputs: &DinInputs<'a, Host, T>, width: usize) -> Self {
        let (targets, history) = (inputs.targets.as_slice(), inputs.history.as_slice());
        Self { targets: WideRows::new(targets), history: WideRows::new(history), width }
    }

    /// The elements of some rows.
    pub(super) fn elements(&self, rows: &Range<usize>) -> Range<usize> {
        rows.start * self.width..rows.end * self.width
    }
}
