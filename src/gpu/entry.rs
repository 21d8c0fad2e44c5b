//! Checks at the start of a call that are the same on both GPU backends.

use crate::backend::Backend;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::jagged::{Batch, Jagged};
use crate::memory::Memory;
use crate::ops::{
    DIN_LAYERS, Decoupled, Din, DinInputs, Sdim, SdimEncodeInputs, Search, SearchInputs, SelectionBuffers,
};

/// The largest number of units of a hidden layer of DIN that the kernels support.
const MAX_UNITS: usize = 256;

/// Checks a call of DIN with an output of `out` elements, and returns the units of its hidden layers.
pub(crate) fn check_din<S: Memory, T: Element>(
    operation: &'static str,
    op: &Din,
    batch: &Batch,
    inputs: &DinInputs<'_, S, T>,
    out: usize,
) -> Result<Vec<usize>> {
    op.check(batch, inputs)?;
    op.check_output(batch, out)?;
    check_units(operation, inputs)
}

/// Checks that the kernels support the hidden layers of a network that is otherwise valid, and returns their units.
pub(crate) fn check_units<S: Memory, T: Element>(
    operation: &'static str,
    inputs: &DinInputs<'_, S, T>,
) -> Result<Vec<usize>> {
    let units: Vec<usize> = inputs.hidden.iter().map(|layer| layer.bias.len()).collect();
    match units.iter().zip(&DIN_LAYERS).find(|&(&units, _)| units > MAX_UNITS) {
        None => Ok(units),
        Some((&units, names)) => {
            let (needed, limit) = (units as u64, MAX_UNITS as u64);
            Err(Error::Limit { operation, argument: names.bias, needed, limit })
        }
    }
}

/// Checks a call that fills or extends a bucket table of `table` elements. Returns the number of users.
pub(crate) fn check_encode<S: Memory, T: Element>(
    operation: &'static str,
    op: &Sdim,
    histories: &Jagged,
    inputs: &SdimEncodeInputs<'_, S, T>,
    table: usize,
) -> Result<usize> {
    op.check_encode(operation, histories, inputs)?;
    op.check_table(operation, histories.slot_count(), table)?;
    Ok(histories.users())
}

/// The offsets of rows whose owners kernels find by them; sub-ranges have none.
pub(crate) fn known_offsets<'a>(
    operation: &'static str,
    jagged: &'a Jagged,
    backend: &str,
) -> Result<&'a [usize]> {
    jagged.offsets().ok_or_else(|| Error::Unsupported {
        operation,
        what: "bags or histories that are sub-ranges".into(),
        supported: format!("rows of one user after the other on {backend}"),
    })
}

/// [`DecoupledOps::decoupled_search`] for backends with a largest K, which is checked before memory for the result is asked for.
pub(crate) fn search<B: Backend>(
    backend: &B,
    op: &Decoupled,
    batch: &B::Batch,
    inputs: SearchInputs<'_, B::Memory>,
) -> Result<SelectionBuffers<B::Memory>> {
    op.check_search(batch.as_ref(), &inputs)?;
    let length = op.selection_length(batch.as_ref())?;
    check_top_k("decoupled_search", op.top_k.unwrap_or(0))?;
    let mut kept = SelectionBuffers {
        positions: backend.zeros(length)?,
        scores: backend.zeros(length)?,
        counts: backend.zeros(batch.as_ref().targets().rows())?,
    };
    backend.decoupled_search_into(op, batch, inputs, kept.selection_mut())?;
    Ok(kept)
}

/// Checks that the kernels support a search for the best `top_k` behaviours.
pub(crate) fn check_top_k(operation: &'static str, top_k: usize) -> Result<()> {
    if top_k <= Search::MAX_TOP_K {
        return Ok(());
    }
    let (needed, limit) = (top_k as u64, Search::MAX_TOP_K as u64);
    Err(Error::Limit { operation, argument: "top_k", needed, limit })
}
