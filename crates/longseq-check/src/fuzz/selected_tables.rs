//! Attention over a selection from tables: cases of it and of its gradients, and calls whose every argument comes from the bytes.

use arbitrary::{Result, Unstructured};
use longseq::*;

use super::bytes::*;
use super::cases::{requests, selected_case};
use super::raw::{RawTable, alike, both, table, views};
use super::raw_selected::Kept;
use crate::data::Ids;
use crate::lookup::{Form, Storage};
use crate::named::AnyCase;
use crate::selected::{KeysFrom, SelectedTableBackwardCase, SelectedTableCase};

/// A case whose sizes and options come from the bytes.
pub(super) fn case(bytes: &mut Unstructured<'_>) -> Result<AnyCase> {
    let mut forward = selected_case(bytes)?;
    (forward.histories, forward.targets) = requests(bytes)?;
    let op = forward.op();
    let keys = *bytes.choose(&[KeysFrom::Rows, KeysFrom::Tables, KeysFrom::Values])?;
    let keys = if keys == KeysFrom::Values && op.width != op.value_width { KeysFrom::Tables } else { keys };
    // A table for each number, at most.
    let features = bytes.int_in_range(1..=3)?.min(op.kv_heads * op.width.min(op.value_width));
    let rows = |_| bytes.int_in_range(1..=90);
    let case = SelectedTableCase {
        forward,
        keys,
        table_rows: (0..features).map(rows).collect::<Result<_>>()?,
        storage: *bytes.choose(&Storage::ALL)?,
        ids: *bytes.choose(&[Ids::Skewed, Ids::Uniform, Ids::Last, Ids::Hot])?,
        policy: *bytes.choose(&[IdPolicy::Error, IdPolicy::Zero])?,
    };
    if bytes.arbitrary()? {
        return Ok(AnyCase::SelectedTable(case));
    }
    let forms = [Form::Sparse, Form::Dense, Form::None];
    Ok(AnyCase::SelectedTableBackward(SelectedTableBackwardCase {
        forward: case,
        asked: bytes.arbitrary()?,
        forms: [*bytes.choose(&forms)?, *bytes.choose(&forms)?],
        spare: bytes.int_in_range(0..=2)?,
        narrow: bytes.arbitrary()?,
        with_grad_lse: bytes.arbitrary()?,
        nan: None,
    }))
}

/// As many tables as features, whose widths mostly add up.
fn tables(
    bytes: &mut Unstructured<'_>,
    kind: Numbers,
    (features, total): (usize, usize),
) -> Result<Vec<RawTable>> {
    if bytes.ratio(1, 8)? {
        return (0..features).map(|_| table(bytes, kind)).collect();
    }
    let table = |feature: usize| {
        let width = total / features + usize::from(feature < total % features);
        let rows = bytes.int_in_range(1..=9)?;
        Ok((rows, width, numbers(bytes, kind, product(&[rows, width]))?))
    };
    (0..features).map(table).collect()
}

/// A call of the forward pass.
pub(super) fn selected_tables(bytes: &mut Unstructured<'_>) -> Result<()> {
    let kind = Numbers::new(bytes)?;
    let Some(batch) = batch(bytes)? else { return Ok(()) };
    let kv_heads = size(bytes)?.min(4);
    let op = SelectedAttention::new(size(bytes)?)
        .with_heads(kv_heads.saturating_mul(size(bytes)?), kv_heads)
        .with_value_width(size(bytes)?)
        .with_top_k(size(bytes)?)
        .with_ids(*bytes.choose(&[IdPolicy::Error, IdPolicy::Zero, IdPolicy::Skip])?);
    let (n, m, features) = (batch.histories().rows(), batch.targets().rows(), bytes.int_in_range(1..=3)?);
    let queries = numbers(bytes, kind, product(&[m, op.heads, op.width]))?;
    let key_rows = numbers(bytes, kind, product(&[n, op.kv_heads, op.width]))?;
    let bias = numbers(bytes, kind, product(&[n, op.heads]))?;
    let gammas = numbers(bytes, kind, product(&[op.heads, 3]))?;
    let bias = bytes.arbitrary::<bool>()?.then_some(bias);
    let gammas = bytes.arbitrary::<bool>()?.then_some(gammas);
    let key_tables = tables(bytes, kind, (features, product(&[op.kv_heads, op.width])))?;
    let value_tables = tables(bytes, kind, (features, product(&[op.kv_heads, op.value_width])))?;
    let limit = key_tables.iter().chain(&value_tables).map(|table| table.0).min().unwrap_or(1);
    let history_ids = ids(bytes, product(&[n, features]), limit)?;
    let kept = Kept::new(bytes, kind, &batch, op.top_k)?;
    let (key_tables, value_tables) = (views(&key_tables), views(&value_tables));
    let keys = match bytes.arbitrary::<u8>()? % 3 {
        0 => SelectedKeys::Values,
        1 => SelectedKeys::Tables(&key_tables),
        _ => SelectedKeys::Rows(Host::view(&key_rows)),
    };
    let mut inputs = SelectedTableInputs::<Host, f32>::new(
        Host::view(&queries),
        keys,
        &value_tables,
        Host::view(&history_ids),
        kept.view(),
    );
    inputs.bias = bias.as_deref().map(Host::view);
    inputs.gammas = gammas.as_deref().map(Host::view);
    let exact = reference::selected_table_attention(&op, &batch, &inputs);
    let got = Cpu::new().selected_table_attention(&op, &batch, inputs);
    let Some((exact, got)) = both(exact, got) else { return Ok(()) };
    if kind != Numbers::Any {
        // As for attention over a selection of rows, weights are not compared.
        alike(&exact.out, &got, product(&[batch.targets().total(), op.heads, op.value_width]), false);
    }
    Ok(())
}
