//! Target attention on the CPU: a tile of candidates reads the history once, chunk by chunk.

use crate::cpu::pooling::{CHUNK, Pooling};
use crate::cpu::tiles::{Tile, for_each, split, tiles};
use crate::cpu::vector::{dot, store, widen};
use crate::element::Element;
use crate::error::Result;
use crate::jagged::Batch;
use crate::memory::Host;
use crate::ops::{PartialAttention, TargetAttention, TargetAttentionInputs, TargetAttentionOutputs};

pub(super) fn attend<T: Element>(
    op: &TargetAttention,
    batch: &Batch,
    inputs: &TargetAttentionInputs<'_, Host, T>,
    outputs: TargetAttentionOutputs<'_, Host, T>,
) -> Result<()> {
    op.check(batch, inputs)?;
    op.check_outputs(batch, &outputs)?;
    let tiles = tiles(batch);
    let out = split(&tiles, outputs.out.into_slice(), op.heads * op.value_width);
    let lse: Vec<Option<&mut [f32]>> = match outputs.lse {
        Some(lse) => split(&tiles, lse.into_slice(), op.heads).into_iter().map(Some).collect(),
        None => tiles.iter().map(|_| None).collect(),
    };
    let items = tiles.into_iter().zip(out).zip(lse).collect();
    for_each(items, |((tile, out), lse)| attend_tile(op, &tile, inputs, out, lse));
    Ok(())
}

fn attend_tile<T: Element>(
    op: &TargetAttention,
    tile: &Tile,
    inputs: &TargetAttentionInputs<'_, Host, T>,
    out: &mut [T],
    lse: Option<&mut [f32]>,
) {
    let scale = op.effective_scale();
    let (key_width, value_width) = (op.kv_heads * op.width, op.kv_heads * op.value_width);
    let (mut query_room, mut key_room, mut value_room) = (Vec::new(), Vec::new(), Vec::new());
    let query_row = op.heads * op.width;
    let queries =
        widen(&inputs.queries[tile.targets.start * query_row..tile.targets.end * query_row], &mut query_room);
    let new_pooling = |_: &[f32]| Pooling::new(op.weighting, op.value_width);
    let mut pooling: Vec<Pooling> = queries.chunks_exact(op.width).map(new_pooling).collect();
    let mut scores = [0.0; CHUNK];
    for start in tile.history.clone().step_by(CHUNK) {
        let rows = start..tile.history.end.min(start + CHUNK);
        let keys = widen(&inputs.keys[rows.start * key_width..rows.end * key_width], &mut key_room);
        let values = match &inputs.values {
            Some(values) => widen(&values[rows.start * value_width..rows.end * value_width], &mut value_room),
            None => keys,
        };
        for (i, (query, pooling)) in queries.chunks_exact(op.width).zip(&mut pooling).enumerate() {
            let head = i % op.heads;
            let kv_head = op.kv_head(head);
            for (score, key) in scores.iter_mut().zip(keys.chunks_exact(key_width)) {
                *score = scale * dot(query, &key[kv_head * op.width..(kv_head + 1) * op.width]);
            }
            let scores = &mut scores[..rows.len()];
            if let Some(bias) = inputs.bias {
                for (score, l) in scores.iter_mut().zip(rows.clone()) {
                    *score += bias[l * op.heads + head];
                }
            }
            pooling.add(scores, |l| &values[l * value_width + kv_head * op.value_width..][..op.value_width]);
        }
    }
    let mut lse = lse;
    for (i, (pooling, out)) in pooling.into_iter().zip(out.chunks_exact_mut(op.value_width)).enumerate() {
        let (row, row_lse) = pooling.finish();
        store(out, &row);
        if let Some(lse) = &mut lse {
            lse[i] = row_lse;
        }
    }
}

pub(super) fn merge<T: Element>(
    op: &TargetAttention,
    first: &PartialAttention<'_, Host, T>,
    second: &PartialAttention<'_, Host, T>,
    outputs: TargetAttentionOutputs<'_, Host, T>,
) -> Result<()> {
    let rows = op.check_merge(first, second)?;
    op.check_merge_outputs(rows, &outputs)?;
    let mut lse = outputs.lse;
    for (i, out) in outputs.out.into_slice().chunks_exact_mut(op.value_width).enumerate() {
        let lses = [first.lse[i], second.lse[i]];
        let max = lses[0].max(lses[1]);
        // Two parts without behaviours: their rows are zeros, and any finite shift keeps the weights 0.
        let shift = if max == f32::NEG_INFINITY { 0.0 } else { max };
        let weights = lses.map(|lse| (lse - shift).exp());
        let sum = weights[0] + weights[1];
        let divisor = if sum == 0.0 { 1.0 } else { sum };
        for (j, out) in out.iter_mut().enumerate() {
            let [a, b] = [first.out, second.out].map(|part| part[i * op.value_width + j].to_f32());
            *out = T::from_f32((weights[0] * a + weights[1] * b) / divisor);
        }
        if let Some(lse) = &mut lse {
            lse[i] = shift + sum.ln();
        }
    }
    Ok(())
}
