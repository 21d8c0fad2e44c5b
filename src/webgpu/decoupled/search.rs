//! The search among behaviours: tables read in place where they can be bound together, gathered first otherwise.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::gpu::fit;
use crate::ops::*;
use crate::plan::{Cut, best_tile_rows};
use crate::webgpu::Wgpu;
use crate::webgpu::batch::{DevicePlan, WgpuBatch};
use crate::webgpu::launch::{Binding, Params};
use crate::webgpu::lookup::{
    self, Bound, GATHERED_BYTES, Gather, Pooling, buffers, history_report, id_report,
};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::target_attention::rows_per_binding;

/// The most behaviours a search keeps: more would not fit the workgroup memory.
const MAX_TOP_K: usize = 1024;
/// Pieces of a search: every part of a history keeps K entries of its own, so there are fewer than elsewhere.
const PIECES: usize = 256;
/// Behaviours that a workgroup takes at a time.
const STEP: usize = 256;
/// What loading a behaviour costs, in candidates scored with it: it is read by id.
const LOAD: usize = 8;
/// Tables that are bound beside what else a search needs: pieces, queries, ids, lists, and a report of bad ids.
const MAX_TABLES: usize = 3;

/// How many entries a list holds, and how many lists may lie beside each other, in 12 KiB at most. A list has room for
/// K entries and as many on their way, or half as many where they would take too much.
fn lists_of(top_k: usize) -> (usize, &'static [usize]) {
    match top_k {
        0..=32 => (64, &[4, 8]),
        33..=64 => (128, &[4, 8]),
        65..=128 => (192, &[4, 8]),
        129..=256 => (384, &[4]),
        257..=512 => (768, &[2]),
        _ => (1536, &[1]),
    }
}

/// Rows that were gathered into one table.
const GATHERED: Keys = Keys::Tables(0, Format::f32(true));

/// What holds the behaviours' numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// So many tables of one storage type; none where rows were gathered.
    Tables(usize, Format),
    /// One table of 8-bit rows.
    Int8(Format),
}

fn search_kernel(top_k: usize, lists: usize, keys: Keys) -> Kernel {
    let (tables, format) = match keys {
        Keys::Tables(tables, format) => (tables, format),
        Keys::Int8(format) => (1, format),
    };
    let mut slots = vec![
        Slot::plain("pieces", "vec4<u32>"),
        Slot::plain("queries", "mat4x4<f32>"),
        Slot::plain("ids", "u32"),
        Slot::read("table0", format),
    ];
    let sources: &'static [&'static str] = match keys {
        Keys::Tables(..) => {
            slots.extend([Slot::read("table1", format), Slot::read("table2", format)]);
            &[
                include_str!("../../../shaders/decoupled/select.wgsl"),
                include_str!("../../../shaders/decoupled/keys_tables.wgsl"),
                include_str!("../../../shaders/decoupled/search.wgsl"),
            ]
        }
        Keys::Int8(_) => {
            slots.extend([Slot::plain("scale", "f32"), Slot::plain("offset", "f32")]);
            &[
                include_str!("../../../shaders/decoupled/select.wgsl"),
                include_str!("../../../shaders/decoupled/keys_int8.wgsl"),
                include_str!("../../../shaders/decoupled/search.wgsl"),
            ]
        }
    };
    slots.extend([Slot::write("lists", "vec2<u32>"), Slot::write("report", "atomic<u32>")]);
    let group4 = if lists > 4 { 2 } else { 1 };
    let capacity = lists_of(top_k).0 as u32;
    let constants =
        vec![("LISTS", lists as u32), ("CAPACITY", capacity), ("GROUP4", group4), ("TABLES", tables as u32)];
    Kernel { name: "search", sources, constants, slots }
}

fn queries_kernel(table: Format, int8: bool) -> Kernel {
    Kernel {
        name: "search_queries",
        sources: &[include_str!("../../../shaders/decoupled/search_queries.wgsl")],
        constants: vec![("INT8", u32::from(int8))],
        slots: vec![
            Slot::plain("tiles", "vec4<u32>"),
            Slot::plain("ids", "u32"),
            Slot::read("table_data", table),
            Slot::plain("scale", "f32"),
            Slot::plain("offset", "f32"),
            Slot::write("packed", "vec4<f32>"),
            Slot::write("report", "atomic<u32>"),
        ],
    }
}

fn merge_kernel(top_k: usize) -> Kernel {
    Kernel {
        name: "merge_selection",
        sources: &[
            include_str!("../../../shaders/decoupled/select.wgsl"),
            include_str!("../../../shaders/decoupled/combine_selection.wgsl"),
        ],
        constants: vec![("LISTS", 1), ("CAPACITY", lists_of(top_k).0 as u32)],
        slots: vec![
            Slot::plain("tiles", "vec4<u32>"),
            Slot::plain("lists", "vec2<u32>"),
            Slot::write("positions", "u32"),
            Slot::write("scores", "u32"),
            Slot::write("counts", "u32"),
        ],
    }
}

pub(in crate::webgpu) fn variants() -> Vec<Kernel> {
    let mut kernels: Vec<Kernel> =
        lookup::stores().map(|(format, int8)| queries_kernel(format, int8)).collect();
    // One K of each kind.
    for top_k in [32, 64, 128, 256, 512, 1024] {
        kernels.push(merge_kernel(top_k));
        let tables =
            (1..=MAX_TABLES).flat_map(|tables| Format::ALL.map(|format| Keys::Tables(tables, format)));
        let int8 = [true, false].map(|by_four| Keys::Int8(Format::int8(by_four)));
        for keys in tables.chain(int8).chain([GATHERED]) {
            kernels.extend(lists_of(top_k).1.iter().map(|&lists| search_kernel(top_k, lists, keys)));
        }
    }
    kernels
}

/// What a search reads, whatever holds the keys.
struct Search<'a> {
    operation: &'static str,
    op: &'a Decoupled,
    top_k: usize,
    lists: usize,
    plan: &'a DevicePlan,
    tables: &'a [Bound],
    packed: &'a Binding,
    found: &'a Binding,
    /// All ids of the behaviours.
    ids: &'a Binding,
    report: Option<&'a Binding>,
}

/// How the tables can be read in place: not where there are too many, or they are stored in different ways.
fn keys_of(tables: &[Bound]) -> Option<Keys> {
    let by_four = tables.iter().all(|table| table.format.vectors);
    let format = |table: &Bound| table.format.with_vectors(by_four);
    let first = format(tables.first()?);
    match tables {
        [table] if table.int8 => Some(Keys::Int8(first)),
        [_] | [_, _] | [_, _, _] => {
            let alike = tables.iter().all(|table| !table.int8 && format(table) == first);
            alike.then_some(Keys::Tables(tables.len(), first))
        }
        _ => None,
    }
}

/// Fours of numbers of a row of some tables side by side, each rounded up.
fn width4(tables: &[Bound]) -> usize {
    tables.iter().map(|table| (table.width as usize).div_ceil(4)).sum()
}

pub(super) fn search(
    gpu: &Wgpu,
    operation: &'static str,
    op: &Decoupled,
    top_k: usize,
    batch: &WgpuBatch,
    inputs: &SearchInputs<'_, WgpuMemory>,
    out: SelectionMut<'_, WgpuMemory>,
) -> Result<()> {
    if top_k > MAX_TOP_K {
        let (needed, limit) = (top_k as u64, MAX_TOP_K as u64);
        return Err(Error::Limit { operation, argument: "top_k", needed, limit });
    }
    let (histories, targets) = (batch.as_ref().histories(), batch.as_ref().targets());
    let (behaviours, candidates) = (histories.total(), targets.total());
    let features = inputs.attention.len();
    let ids = Region::of(inputs.history_ids).rows(0, behaviours, features);
    let target_ids = Region::of(inputs.target_ids).rows(0, candidates, features);
    let mut read = buffers(inputs.attention);
    read.extend([ids.buffer, target_ids.buffer]);
    let positions = gpu.output(operation, "positions", &out.positions, candidates * top_k, &read)?;
    let scores = gpu.output(operation, "scores", &out.scores, candidates * top_k, &read)?;
    let counts = gpu.output(operation, "counts", &out.counts, candidates, &read)?;
    let bound_ids = gpu.bind(operation, "history_ids", &ids)?;
    let target_ids = gpu.bind(operation, "target_ids", &target_ids)?;
    let bind = |table| lookup::bind(gpu, operation, table);
    let tables: Vec<Bound> = inputs.attention.iter().map(bind).collect::<Result<_>>()?;
    let keys = keys_of(&tables);
    let width = 4 * width4(&tables);
    let window = match keys {
        Some(_) => usize::MAX,
        None => rows_per_binding::<f32>(gpu, width).min(GATHERED_BYTES / (4 * width)).max(STEP),
    };
    let lists = best_tile_rows(batch.as_ref(), 1, lists_of(top_k).1, LOAD);
    let cut = Cut { rows_per_target: 1, tile_rows: lists, step: 2 * STEP, wanted: PIECES, longest: window };
    let plan = batch.plan(gpu, operation, &cut)?;
    let entries = (plan.plan.slots + plan.plan.tiles.len()) * lists * top_k;
    fit(operation, "lists", entries)?;
    // All memory first: what the device refuses, it refuses before anything runs.
    let found = gpu.scratch(operation, entries as u64 * 2)?;
    let packed = gpu.scratch(operation, (plan.plan.tiles.len() * width * lists.max(4)) as u64)?;

    let report = history_report(gpu, operation, op.ids, batch.as_ref(), ids, inputs.attention)?;
    let target_report = id_report(gpu, operation, "target_ids", op.ids, inputs.attention)?;
    let search = Search {
        operation,
        op,
        top_k,
        lists,
        plan: &plan,
        tables: &tables,
        packed: &packed,
        found: &found,
        ids: &bound_ids,
        report: report.as_ref().map(|report| &report.binding),
    };
    search.pack_queries(gpu, &target_ids, target_report.as_ref().map(|report| &report.binding))?;
    match keys {
        Some(keys) => search.in_place(gpu, keys)?,
        None => search.gathered(gpu, inputs.attention, ids, window)?,
    }
    for (report, ids) in [(report, &bound_ids), (target_report, &target_ids)] {
        if let Some(report) = report {
            gpu.fetch_word(ids, 32, report)?;
        }
    }
    let params = Params::default()
        .u32s(&[positions.binding.base, scores.binding.base, counts.binding.base])
        .u32s(&[lists as u32, top_k as u32, plan.plan.slots as u32]);
    let bindings = [&plan.tiles, &found, &positions.binding, &scores.binding, &counts.binding];
    gpu.dispatch(&merge_kernel(top_k), params, &bindings, (plan.plan.tiles.len() * lists) as u64)?;
    gpu.finish(positions)?;
    gpu.finish(scores)?;
    gpu.finish(counts)
}

impl Search<'_> {
    /// Rows of a packed tile.
    fn tile_rows(&self) -> usize {
        self.lists.max(4)
    }

    fn pack_queries(&self, gpu: &Wgpu, ids: &Binding, report: Option<&Binding>) -> Result<()> {
        let no_report = gpu.no_output(self.operation)?;
        let mut first4 = 0;
        for (feature, table) in self.tables.iter().enumerate() {
            let fours = (table.width as usize).div_ceil(4);
            let threads = self.plan.plan.tiles.len() * fours * self.tile_rows();
            let params = Params::default()
                .u32s(&[fit(self.operation, "queries", threads)?, ids.base])
                .u32s(&[self.tables.len() as u32, feature as u32])
                .u32s(&table.params())
                .f32s(&[self.op.scales.get(feature).copied().unwrap_or(1.0)])
                .u32s(&[width4(self.tables) as u32, first4, self.tile_rows() as u32])
                .u32s(&[u32::from(report.is_some())]);
            let report = report.unwrap_or(&no_report);
            let bindings =
                [&self.plan.tiles, ids, &table.data, &table.scale, &table.offset, self.packed, report];
            let kernel = queries_kernel(table.format, table.int8);
            gpu.dispatch(&kernel, params, &bindings, threads.div_ceil(64) as u64)?;
            first4 += fours as u32;
        }
        Ok(())
    }

    /// Reads the tables where they are, in one dispatch.
    fn in_place(&self, gpu: &Wgpu, keys: Keys) -> Result<()> {
        let mut shapes = [[0; 4]; MAX_TABLES];
        let mut first4 = 0;
        for (shape, table) in shapes.iter_mut().zip(self.tables) {
            *shape = [table.width, table.rows, table.data.base, first4];
            first4 += table.width.div_ceil(4);
        }
        let nothing = gpu.nothing();
        let data = |index: usize| self.tables.get(index).map_or(&nothing, |table| &table.data);
        let [first, second, third] = match keys {
            Keys::Tables(..) => [data(0), data(1), data(2)],
            Keys::Int8(_) => [data(0), &self.tables[0].scale, &self.tables[0].offset],
        };
        let pieces = 0..self.plan.plan.pieces.len();
        self.run(gpu, keys, pieces, 0, shapes, [first, second, third], self.report)
    }

    /// Gathers the rows of all tables first, a window of the histories at a time, and reads them as one table.
    fn gathered(
        &self,
        gpu: &Wgpu,
        tables: &[Table<'_, WgpuMemory>],
        ids: Region<'_, u32>,
        window: usize,
    ) -> Result<()> {
        let (features, width) = (tables.len(), 4 * width4(self.tables));
        let windows = self.plan.plan.windows(window);
        let most = windows.iter().map(|(_, span)| span.len()).max().unwrap_or(0);
        let keys = gpu.scratch(self.operation, (most * width) as u64)?;
        let nothing = gpu.nothing();
        for (pieces, span) in windows {
            let ids = gpu.bind(self.operation, "history_ids", &ids.rows(span.start, span.len(), features))?;
            let gather = Gather {
                operation: self.operation,
                ids: &ids,
                features,
                rows: span.len(),
                pooling: Pooling::Each,
                width,
                multiply: false,
                padded: true,
                report: self.report.map(|report| (report, span.start * features)),
            };
            gather.run(gpu, tables, &[], &keys)?;
            let shapes = [[width as u32, span.len() as u32, 0, 0], [0; 4], [0; 4]];
            let bindings = [&keys, &nothing, &nothing];
            self.run(gpu, GATHERED, pieces, span.start, shapes, bindings, None)?;
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "what differs between the two ways to hold the keys")]
    fn run(
        &self,
        gpu: &Wgpu,
        keys: Keys,
        pieces: Range<usize>,
        first_history: usize,
        shapes: [[u32; 4]; MAX_TABLES],
        data: [&Binding; 3],
        report: Option<&Binding>,
    ) -> Result<()> {
        let no_report = gpu.no_output(self.operation)?;
        let params = Params::default()
            .u32s(&[pieces.start as u32, first_history as u32, self.ids.base, self.tables.len() as u32])
            .u32s(&[self.top_k as u32, self.plan.plan.slots as u32, width4(self.tables) as u32])
            .u32s(&[u32::from(report.is_some())])
            .u32s(&[self.tables[0].scale.base, self.tables[0].offset.base])
            .u32s(&shapes.concat());
        let [first, second, third] = data;
        let report = report.unwrap_or(&no_report);
        let bindings = [&self.plan.pieces, self.packed, self.ids, first, second, third, self.found, report];
        gpu.dispatch(&search_kernel(self.top_k, self.lists, keys), params, &bindings, pieces.len() as u64)
    }
}
