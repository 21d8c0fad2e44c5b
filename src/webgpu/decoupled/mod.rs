//! Decoupled embeddings: gather, search, merge, aggregate.

pub(super) mod search;

use std::ops::Range;

use crate::error::Result;
use crate::gpu::{Bound, fit};
use crate::memory::{View, ViewMut};
use crate::ops::*;
use crate::plan::Cut;
use crate::webgpu::Wgpu;
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::launch::{Binding, Params};
use crate::webgpu::lookup::{
    self, GATHERED_BYTES, Gather, Pooling, buffers, check_ids, history_report, id_report,
};
use crate::webgpu::memory::{Region, WgpuBuffer, WgpuMemory};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::target_attention::{Attention, rows_per_binding};

impl DecoupledOps for Wgpu {
    fn decoupled_search_into(
        &self,
        op: &Decoupled,
        batch: &WgpuBatch,
        inputs: SearchInputs<'_, WgpuMemory>,
        out: SelectionMut<'_, WgpuMemory>,
    ) -> Result<()> {
        search(self, op, batch, &inputs, out)
    }

    fn decoupled_aggregate_into(
        &self,
        op: &Decoupled,
        batch: &WgpuBatch,
        inputs: AggregateInputs<'_, WgpuMemory>,
        selection: Selection<'_, WgpuMemory>,
        out: ViewMut<'_, WgpuMemory, f32>,
    ) -> Result<()> {
        aggregate(self, op, batch, &inputs, &selection, out)
    }

    fn decoupled_attend_into(
        &self,
        op: &Decoupled,
        batch: &WgpuBatch,
        inputs: DecoupledInputs<'_, WgpuMemory>,
        out: ViewMut<'_, WgpuMemory, f32>,
    ) -> Result<()> {
        attend(self, op, batch, &inputs, out)
    }
}

const SEARCH: &str = "decoupled_search";
const AGGREGATE: &str = "decoupled_aggregate";
const ATTEND: &str = "decoupled_attend";

/// Behaviours that target attention takes at a time, at most: no window is smaller.
const LONGEST_STEP: usize = 256;

fn weigh_kernel() -> Kernel {
    Kernel {
        name: "weigh_selection",
        sources: &[include_str!("../../../shaders/decoupled/weigh_selection.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("tiles", "vec4<u32>"),
            Slot::plain("positions", "u32"),
            Slot::plain("scores", "u32"),
            Slot::plain("counts", "u32"),
            Slot::write("kept", "vec2<u32>"),
            Slot::write("bad_counts", "atomic<u32>"),
            Slot::write("bad_positions", "atomic<u32>"),
        ],
    }
}

fn aggregate_kernel(table: Format, int8: bool) -> Kernel {
    Kernel {
        name: "aggregate",
        sources: &[include_str!("../../../shaders/decoupled/aggregate.wgsl")],
        constants: vec![("INT8", u32::from(int8))],
        slots: vec![
            Slot::plain("kept", "vec2<u32>"),
            Slot::plain("ids", "u32"),
            Slot::read("table_data", table),
            Slot::plain("scale", "f32"),
            Slot::plain("offset", "f32"),
            Slot::write("out", "f32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    lookup::stores().map(|(format, int8)| aggregate_kernel(format, int8)).chain([weigh_kernel()]).collect()
}

/// What the gathers of a call share.
struct Side<'a> {
    operation: &'static str,
    ids: &'a Binding,
    rows: usize,
}

impl Side<'_> {
    fn over(&self, width: usize, multiply: bool, features: usize) -> Gather<'_> {
        let Side { operation, ids, rows } = *self;
        Gather {
            operation,
            ids,
            features,
            rows,
            pooling: Pooling::Each,
            width,
            multiply,
            padded: false,
            report: None,
        }
    }
}

pub(super) fn search(
    gpu: &Wgpu,
    op: &Decoupled,
    batch: &WgpuBatch,
    inputs: &SearchInputs<'_, WgpuMemory>,
    out: SelectionMut<'_, WgpuMemory>,
) -> Result<()> {
    let top_k = op.check_search(batch.as_ref(), inputs)?;
    op.check_search_outputs(batch.as_ref(), top_k, &out)?;
    search::search(gpu, SEARCH, op, top_k, batch, inputs, out)
}

pub(super) fn aggregate(
    gpu: &Wgpu,
    op: &Decoupled,
    batch: &WgpuBatch,
    inputs: &AggregateInputs<'_, WgpuMemory>,
    selection: &Selection<'_, WgpuMemory>,
    out: ViewMut<'_, WgpuMemory, f32>,
) -> Result<()> {
    let top_k = op.check_aggregate(batch.as_ref(), inputs, selection)?;
    op.check_output(AGGREGATE, batch.as_ref(), inputs.representation, out.len())?;
    aggregate_as(gpu, AGGREGATE, op, top_k, batch, inputs, selection, out)
}

#[expect(clippy::too_many_arguments, reason = "an operation's parameters, inputs and output")]
fn aggregate_as(
    gpu: &Wgpu,
    operation: &'static str,
    op: &Decoupled,
    top_k: usize,
    batch: &WgpuBatch,
    inputs: &AggregateInputs<'_, WgpuMemory>,
    selection: &Selection<'_, WgpuMemory>,
    out: ViewMut<'_, WgpuMemory, f32>,
) -> Result<()> {
    let (histories, targets) = (batch.as_ref().histories(), batch.as_ref().targets());
    let (behaviours, candidates) = (histories.total(), targets.total());
    let [ids, target_ids] = [inputs.history_ids, inputs.target_ids].map(Region::of);
    let tables = inputs.representation;
    let mut read = buffers(tables);
    read.extend([ids.buffer, target_ids.buffer]);
    let width = total_width(tables);
    let out = gpu.output(operation, "out", &out, candidates * width, &read)?;
    let kept = weigh(gpu, operation, top_k, batch, selection)?;
    if operation == AGGREGATE {
        check_ids(gpu, operation, "history_ids", op.ids, ids, behaviours, tables)?;
        check_ids(gpu, operation, "target_ids", op.ids, target_ids, candidates, tables)?;
    }
    let ids = gpu.bind(operation, "history_ids", &ids)?;
    fit(operation, "out", candidates * width)?;
    let mut first_column = 0;
    for (feature, table) in tables.iter().enumerate() {
        let bound = lookup::bind(gpu, operation, table)?;
        let threads = fit(operation, "out", candidates * table.width.div_ceil(4))?;
        let params = Params::default()
            .u32s(&[threads, top_k as u32, ids.base, tables.len() as u32, feature as u32])
            .u32s(&bound.params())
            .u32s(&[out.binding.base, width as u32, first_column]);
        let bindings = [&kept, &ids, &bound.data, &bound.scale, &bound.offset, &out.binding];
        let kernel = aggregate_kernel(bound.format, bound.int8);
        gpu.dispatch(&kernel, params, &bindings, u64::from(threads).div_ceil(64))?;
        first_column += table.width as u32;
    }
    if op.multiply_target {
        let target_ids = gpu.bind(operation, "target_ids", &target_ids)?;
        let side = Side { operation, ids: &target_ids, rows: candidates };
        side.over(width, true, tables.len()).run(gpu, tables, &[], &out.binding)?;
    }
    gpu.finish(out)
}

/// The weights and rows of what was kept.
fn weigh(
    gpu: &Wgpu,
    operation: &'static str,
    top_k: usize,
    batch: &WgpuBatch,
    selection: &Selection<'_, WgpuMemory>,
) -> Result<Binding> {
    let batch_ref = batch.as_ref();
    let candidates = batch_ref.targets().total();
    let positions = gpu.bind(operation, "positions", &Region::of(selection.positions))?;
    let scores = gpu.bind(operation, "scores", &Region::of(selection.scores))?;
    let counts = gpu.bind(operation, "counts", &Region::of(selection.counts))?;
    fit(operation, "positions", candidates * top_k)?;
    let kept = gpu.scratch(operation, (candidates * top_k * 2) as u64)?;
    let bad_counts = gpu.report(operation, "counts", Bound::Columns(vec![top_k as u64 + 1]))?;
    let bound = Bound::History(batch.shared().clone(), top_k);
    let bad_positions = gpu.report(operation, "positions", bound)?;
    let cut = Cut { rows_per_target: 1, tile_rows: 1, step: 64, wanted: 1, longest: usize::MAX };
    let plan = batch.plan(gpu, operation, &cut)?;
    let tiles = plan.plan.tiles.len();
    let params =
        Params::default().u32s(&[tiles as u32, top_k as u32, positions.base, scores.base, counts.base]);
    let bindings =
        [&plan.tiles, &positions, &scores, &counts, &kept, &bad_counts.binding, &bad_positions.binding];
    gpu.dispatch(&weigh_kernel(), params, &bindings, tiles.div_ceil(64) as u64)?;
    gpu.fetch_word(&counts, 32, bad_counts)?;
    gpu.fetch_word(&positions, 32, bad_positions)?;
    Ok(kept)
}

pub(super) fn attend(
    gpu: &Wgpu,
    op: &Decoupled,
    batch: &WgpuBatch,
    inputs: &DecoupledInputs<'_, WgpuMemory>,
    out: ViewMut<'_, WgpuMemory, f32>,
) -> Result<()> {
    op.check_attend(batch.as_ref(), inputs)?;
    op.check_output(ATTEND, batch.as_ref(), inputs.representation, out.len())?;
    let DecoupledInputs { attention, representation, history_ids, target_ids } = *inputs;
    let longest = batch.as_ref().histories().max_length();
    match op.top_k.filter(|&top_k| top_k < longest) {
        Some(top_k) => {
            let slots = batch.as_ref().targets().rows() * top_k;
            let mut positions = gpu.zeroed::<u32>(ATTEND, slots)?;
            let mut scores = gpu.zeroed::<f32>(ATTEND, slots)?;
            let mut counts = gpu.zeroed::<u32>(ATTEND, batch.as_ref().targets().rows())?;
            let found = SelectionMut {
                positions: ViewMut::new(&mut positions),
                scores: ViewMut::new(&mut scores),
                counts: ViewMut::new(&mut counts),
            };
            let inputs = SearchInputs { attention, history_ids, target_ids };
            search::search(gpu, ATTEND, op, top_k, batch, &inputs, found)?;
            let kept = Selection {
                positions: View::new(&positions),
                scores: View::new(&scores),
                counts: View::new(&counts),
            };
            let aggregate = AggregateInputs { representation, history_ids, target_ids };
            aggregate_as(gpu, ATTEND, op, top_k, batch, &aggregate, &kept, out)
        }
        // All behaviours take part: attention over gathered rows.
        None => attend_all(gpu, op, batch, inputs, out),
    }
}

fn attend_all(
    gpu: &Wgpu,
    op: &Decoupled,
    batch: &WgpuBatch,
    inputs: &DecoupledInputs<'_, WgpuMemory>,
    out: ViewMut<'_, WgpuMemory, f32>,
) -> Result<()> {
    let operation = ATTEND;
    let (histories, targets) = (batch.as_ref().histories(), batch.as_ref().targets());
    let (behaviours, candidates) = (histories.total(), targets.total());
    let [ids, target_ids] = [inputs.history_ids, inputs.target_ids].map(Region::of);
    let (attention, representation) = (inputs.attention, inputs.representation);
    let (width, value_width) = (total_width(attention), total_width(representation));
    let mut read = buffers(representation);
    read.push(target_ids.buffer);
    let out = gpu.output(operation, "out", &out, candidates * value_width, &read)?;
    let features = attention.len();
    let ids = ids.rows(0, behaviours, features);
    let target_ids = gpu.bind(operation, "target_ids", &target_ids.rows(0, candidates, features))?;
    let report = history_report(gpu, operation, op.ids, batch.as_ref(), ids, attention)?;
    let target_report = id_report(gpu, operation, "target_ids", op.ids, attention)?;
    let targets = Side { operation, ids: &target_ids, rows: candidates };
    let queries = gpu.scratch(operation, (candidates * width) as u64)?;
    let noted = target_report.as_ref().map(|report| (&report.binding, 0));
    Gather { report: noted, ..targets.over(width, false, features) }
        .run(gpu, attention, &op.scales, &queries)?;
    // A window of the histories at a time is gathered, into the same memory.
    let wider = width.max(value_width);
    let window = rows_per_binding::<f32>(gpu, wider).min(GATHERED_BYTES / (4 * wider)).max(LONGEST_STEP);
    let most = window.min(behaviours);
    let keys = gpu.scratch(operation, (most * width) as u64)?;
    let values = gpu.scratch(operation, (most * value_width) as u64)?;
    let history = |span: &Range<usize>| {
        let ids = gpu.bind(operation, "history_ids", &ids.rows(span.start, span.len(), features))?;
        let rows = Side { operation, ids: &ids, rows: span.len() };
        let report = report.as_ref().map(|report| (&report.binding, span.start * features));
        Gather { report, ..rows.over(width, false, features) }.run(gpu, attention, &[], &keys)?;
        rows.over(value_width, false, features).run(gpu, representation, &[], &values)?;
        Ok([keys.clone(), values.clone()])
    };
    let whole = Attention {
        operation,
        heads: 1,
        kv_heads: 1,
        width,
        value_width,
        scale: 1.0,
        weighting: Weighting::Softmax,
    };
    let queries = WgpuBuffer::<f32>::allocated(queries.buffer, candidates * width);
    whole.run::<f32, f32>(gpu, batch, queries.region(), window, &history, None, &out, None)?;
    if let Some(report) = report {
        gpu.fetch_word(&gpu.bind(operation, "history_ids", &ids)?, 32, report)?;
    }
    if let Some(report) = target_report {
        gpu.fetch_word(&target_ids, 32, report)?;
    }
    if op.multiply_target {
        targets.over(value_width, true, representation.len()).run(gpu, representation, &[], &out.binding)?;
    }
    gpu.finish(out)
}
