//! Attention by decoupled tables: search and aggregation, or attention over all behaviours.

use std::ops::Range;

use crate::error::Result;
use crate::memory::{View, ViewMut};
use crate::ops::{
    AggregateInputs, Decoupled, DecoupledInputs, SearchInputs, Selection, SelectionMut, Weighting,
    total_width,
};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::binding::Binding;
use crate::webgpu::decoupled::aggregate::aggregate_as;
use crate::webgpu::decoupled::search::search_as;
use crate::webgpu::lookup::{GATHERED_BYTES, Gather, Pooling};
use crate::webgpu::memory::{Region, WgpuBuffer, WgpuMemory};
use crate::webgpu::state::Wgpu;
use crate::webgpu::tables::buffers_of;
use crate::webgpu::target_attention::added::Added;
use crate::webgpu::target_attention::attend::Attention;

const NAME: &str = "decoupled_attend";

/// The longest step of target attention, in behaviours: no window is shorter.
const LONGEST_STEP: usize = 256;

pub(super) fn attend(
    gpu: &Wgpu,
    op: &Decoupled,
    batch: &WgpuBatch,
    inputs: &DecoupledInputs<'_, WgpuMemory>,
    out: ViewMut<'_, WgpuMemory, f32>,
) -> Result<()> {
    op.check_attend(batch.as_ref(), inputs)?;
    op.check_output(NAME, batch.as_ref(), inputs.representation, out.len())?;
    let longest = batch.as_ref().histories().max_length();
    match op.top_k.filter(|&top_k| top_k < longest) {
        Some(top_k) => attend_best(gpu, op, top_k, batch, inputs, out),
        None => attend_all(gpu, op, batch, inputs, out),
    }
}

/// Attends over the best K behaviours of each candidate.
fn attend_best(
    gpu: &Wgpu,
    op: &Decoupled,
    top_k: usize,
    batch: &WgpuBatch,
    inputs: &DecoupledInputs<'_, WgpuMemory>,
    out: ViewMut<'_, WgpuMemory, f32>,
) -> Result<()> {
    let DecoupledInputs { attention, representation, history_ids, target_ids } = *inputs;
    let candidates = batch.as_ref().targets().rows();
    let mut positions = gpu.zeroed::<u32>(NAME, candidates * top_k)?;
    let mut scores = gpu.zeroed::<f32>(NAME, candidates * top_k)?;
    let mut counts = gpu.zeroed::<u32>(NAME, candidates)?;
    let found = SelectionMut {
        positions: ViewMut::new(&mut positions),
        scores: ViewMut::new(&mut scores),
        counts: ViewMut::new(&mut counts),
    };
    search_as(gpu, NAME, op, top_k, batch, &SearchInputs { attention, history_ids, target_ids }, found)?;
    let kept = Selection {
        positions: View::new(&positions),
        scores: View::new(&scores),
        counts: View::new(&counts),
    };
    let inputs = AggregateInputs { representation, history_ids, target_ids };
    aggregate_as(gpu, NAME, op, top_k, batch, &inputs, &kept, out)
}

/// A gather of all features, one row of output per row of ids.
fn gather(ids: &Binding, rows: usize, width: usize, features: usize) -> Gather<'_> {
    Gather {
        operation: NAME,
        ids,
        features,
        rows,
        pooling: Pooling::Each,
        width,
        multiply: false,
        padded: false,
        report: None,
    }
}

/// Attends over all behaviours, in windows of gathered rows.
fn attend_all(
    gpu: &Wgpu,
    op: &Decoupled,
    batch: &WgpuBatch,
    inputs: &DecoupledInputs<'_, WgpuMemory>,
    out: ViewMut<'_, WgpuMemory, f32>,
) -> Result<()> {
    let (histories, targets) = (batch.as_ref().histories(), batch.as_ref().targets());
    let (behaviours, candidates) = (histories.total(), targets.total());
    let [ids, target_ids] = [inputs.history_ids, inputs.target_ids].map(Region::of);
    let (attention, representation) = (inputs.attention, inputs.representation);
    let (width, value_width) = (total_width(attention), total_width(representation));
    let mut read = buffers_of(representation);
    read.push(target_ids.buffer);
    let out = gpu.output(NAME, "out", &out, candidates * value_width, &read, &[])?;
    let features = attention.len();
    let ids = ids.rows(0, behaviours, features);
    let target_ids = gpu.bind(NAME, "target_ids", &target_ids.rows(0, candidates, features))?;
    let report = gpu.history_report(NAME, op.ids, batch.as_ref(), ids, attention)?;
    let target_report = gpu.id_report(NAME, "target_ids", op.ids, attention)?;
    let queries = gpu.scratch(NAME, (candidates * width) as u64)?;
    let (scales, scale) = op.split_scales();
    let noted = target_report.as_ref().map(|report| (&report.binding, 0));
    Gather { report: noted, ..gather(&target_ids, candidates, width, features) }
        .run(gpu, attention, &scales, &queries)?;
    // The rows of one window of the histories at a time, in the same memory.
    let wider = width.max(value_width);
    let window = gpu.rows_per_binding::<f32>(wider).min(GATHERED_BYTES / (4 * wider)).max(LONGEST_STEP);
    let most = window.min(behaviours);
    let keys = gpu.scratch(NAME, (most * width) as u64)?;
    let values = gpu.scratch(NAME, (most * value_width) as u64)?;
    let history = |span: &Range<usize>| {
        let ids = gpu.bind(NAME, "history_ids", &ids.rows(span.start, span.len(), features))?;
        let report = report.as_ref().map(|report| (&report.binding, span.start * features));
        Gather { report, ..gather(&ids, span.len(), width, features) }.run(gpu, attention, &[], &keys)?;
        gather(&ids, span.len(), value_width, features).run(gpu, representation, &[], &values)?;
        Ok([keys.clone(), values.clone()])
    };
    let whole = Attention {
        operation: NAME,
        heads: 1,
        kv_heads: 1,
        width,
        value_width,
        scale,
        weighting: Weighting::Softmax,
        computes_rows: true,
    };
    let queries = WgpuBuffer::<f32>::allocated(queries.buffer, candidates * width, &gpu.shared.owner);
    let (added, queries) = (Added::Nothing, queries.region());
    whole.run::<f32, f32>(gpu, batch, queries, window, &history, &added, &out.binding, None)?;
    if let Some(report) = report {
        gpu.fetch_word(&gpu.bind(NAME, "history_ids", &ids)?, 32, report)?;
    }
    if let Some(report) = target_report {
        gpu.fetch_word(&target_ids, 32, report)?;
    }
    if op.multiply_target {
        let rows = gather(&target_ids, candidates, value_width, representation.len());
        Gather { multiply: true, ..rows }.run(gpu, representation, &[], &out.binding)?;
    }
    gpu.finish(out)
}
