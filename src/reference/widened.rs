//! Inputs of any storage type as `f32`, which holds them exactly. The references compute from those alone, so that each is
//! compiled once, in this crate.

use crate::element::Element;
use crate::error::Result;
use crate::host::{Host, reserve};
use crate::memory::View;
use crate::ops::*;

/// The numbers of a view as `f32`.
pub(super) fn wide<T: Element>(operation: &'static str, rows: &[T]) -> Result<Vec<f32>> {
    let mut wide = reserve(operation, rows.len())?;
    wide.extend(rows.iter().map(|row| row.to_f32()));
    Ok(wide)
}

/// The same of a view that may be missing.
pub(super) fn wide_if_any<T: Element>(
    operation: &'static str,
    rows: Option<View<'_, Host, T>>,
) -> Result<Option<Vec<f32>>> {
    rows.map(|rows| wide(operation, &rows)).transpose()
}

/// Runs `reference` on the inputs of target attention.
pub(super) fn attention_in_f32<T: Element, R>(
    operation: &'static str,
    inputs: &TargetAttentionInputs<'_, Host, T>,
    reference: impl FnOnce(&TargetAttentionInputs<'_, Host, f32>) -> Result<R>,
) -> Result<R> {
    let (queries, keys) = (wide(operation, &inputs.queries)?, wide(operation, &inputs.keys)?);
    let values = wide_if_any(operation, inputs.values)?;
    let mut views = TargetAttentionInputs::new(Host::view(&queries), Host::view(&keys));
    views.values = values.as_deref().map(Host::view);
    views.bias = inputs.bias;
    reference(&views)
}

/// Runs `reference` on the inputs of attention over a selection.
pub(super) fn selected_in_f32<T: Element, R>(
    operation: &'static str,
    inputs: &SelectedAttentionInputs<'_, Host, T>,
    reference: impl FnOnce(&SelectedAttentionInputs<'_, Host, f32>) -> Result<R>,
) -> Result<R> {
    let (queries, keys) = (wide(operation, &inputs.queries)?, wide(operation, &inputs.keys)?);
    let values = wide_if_any(operation, inputs.values)?;
    let mut views = SelectedAttentionInputs::new(Host::view(&queries), Host::view(&keys), inputs.selection);
    views.values = values.as_deref().map(Host::view);
    (views.bias, views.gammas) = (inputs.bias, inputs.gammas);
    reference(&views)
}

/// Runs `reference` on the inputs of attention over a selection from tables.
pub(super) fn selected_tables_in_f32<T: Element, R>(
    operation: &'static str,
    inputs: &SelectedTableInputs<'_, Host, T>,
    reference: impl FnOnce(&SelectedTableInputs<'_, Host, f32>) -> Result<R>,
) -> Result<R> {
    let queries = wide(operation, &inputs.queries)?;
    let rows = match &inputs.keys {
        SelectedKeys::Rows(keys) => wide(operation, keys)?,
        _ => Vec::new(),
    };
    let keys = match inputs.keys {
        SelectedKeys::Rows(_) => SelectedKeys::Rows(Host::view(&rows)),
        SelectedKeys::Tables(tables) => SelectedKeys::Tables(tables),
        SelectedKeys::Values => SelectedKeys::Values,
    };
    let (queries, values) = (Host::view(&queries), inputs.values);
    let mut views = SelectedTableInputs::new(queries, keys, values, inputs.history_ids, inputs.selection);
    (views.bias, views.gammas) = (inputs.bias, inputs.gammas);
    reference(&views)
}

/// Runs `reference` on the inputs of TIN.
pub(super) fn tin_in_f32<T: Element, R>(
    operation: &'static str,
    inputs: &TinInputs<'_, Host, T>,
    reference: impl FnOnce(&TinInputs<'_, Host, f32>) -> Result<R>,
) -> Result<R> {
    let (targets, history) = (wide(operation, &inputs.targets)?, wide(operation, &inputs.history)?);
    let positions = wide(operation, &inputs.positions)?;
    let mut views = TinInputs::new(Host::view(&targets), Host::view(&history), Host::view(&positions));
    (views.history_positions, views.target_positions) = (inputs.history_positions, inputs.target_positions);
    reference(&views)
}

/// Runs `reference` on the inputs of interest channels.
pub(super) fn channels_in_f32<T: Element, R>(
    operation: &'static str,
    inputs: &InterestChannelsInputs<'_, Host, T>,
    reference: impl FnOnce(&InterestChannelsInputs<'_, Host, f32>) -> Result<R>,
) -> Result<R> {
    let (axes, history) = (wide(operation, &inputs.axes)?, wide(operation, &inputs.history)?);
    reference(&InterestChannelsInputs::new(Host::view(&axes), Host::view(&history)))
}

/// Runs `reference` on the inputs of DIN.
pub(super) fn din_in_f32<T: Element, R>(
    operation: &'static str,
    inputs: &DinInputs<'_, Host, T>,
    reference: impl FnOnce(&DinInputs<'_, Host, f32>) -> Result<R>,
) -> Result<R> {
    let (targets, history) = (wide(operation, &inputs.targets)?, wide(operation, &inputs.history)?);
    let weights: Vec<Vec<f32>> =
        inputs.hidden.iter().map(|layer| wide(operation, &layer.weight)).collect::<Result<_>>()?;
    let hidden: Vec<_> = inputs
        .hidden
        .iter()
        .zip(&weights)
        .map(|(layer, weight)| DinLayer::new(Host::view(weight), layer.bias, layer.activation))
        .collect();
    let output_weight = wide(operation, &inputs.output_weight)?;
    reference(&DinInputs::new(
        Host::view(&targets),
        Host::view(&history),
        &hidden,
        Host::view(&output_weight),
        inputs.output_bias,
    ))
}

/// Runs `reference` on the inputs of SDIM's `attend`.
pub(super) fn sdim_in_f32<T: Element, R>(
    operation: &'static str,
    inputs: &SdimAttendInputs<'_, Host, T>,
    reference: impl FnOnce(&SdimAttendInputs<'_, Host, f32>) -> Result<R>,
) -> Result<R> {
    let (history, targets) = (wide(operation, &inputs.history)?, wide_if_any(operation, inputs.targets)?);
    let mut views = SdimAttendInputs::new(Host::view(&history), inputs.history_hash, inputs.target_hash);
    views.targets = targets.as_deref().map(Host::view);
    reference(&views)
}

/// Runs `reference` on the inputs of SDIM's `encode`.
pub(super) fn sdim_encode_in_f32<T: Element, R>(
    operation: &'static str,
    inputs: &SdimEncodeInputs<'_, Host, T>,
    reference: impl FnOnce(&SdimEncodeInputs<'_, Host, f32>) -> Result<R>,
) -> Result<R> {
    let history = wide(operation, &inputs.history)?;
    let mut views = SdimEncodeInputs::new(Host::view(&history), inputs.hash);
    views.weights = inputs.weights;
    reference(&views)
}

/// Runs `reference` on the inputs of SDIM's `query`.
pub(super) fn sdim_query_in_f32<T: Element, R>(
    operation: &'static str,
    inputs: &SdimQueryInputs<'_, Host, T>,
    reference: impl FnOnce(&SdimQueryInputs<'_, Host, f32>) -> Result<R>,
) -> Result<R> {
    let targets = wide_if_any(operation, inputs.targets)?;
    let mut views = SdimQueryInputs::new(inputs.table, inputs.hash);
    views.users = inputs.users;
    views.targets = targets.as_deref().map(Host::view);
    reference(&views)
}
