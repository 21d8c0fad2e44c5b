//! Search: scores the behaviours by their attention tables and keeps the best K per candidate.

use std::ops::Range;

use crate::error::Result;
use crate::gpu::{check_top_k, fit};
use crate::ops::{Decoupled, SearchInputs, SelectionMut, Table};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::binding::Binding;
use crate::webgpu::decoupled::keys::{Keys, MAX_TABLES, SearchParams, search_kernel};
use crate::webgpu::decoupled::queries::{SearchQueriesParams, queries_kernel};
use crate::webgpu::launch::{MOST_STEPS_OF_ROW, check_loops, groups_of};
use crate::webgpu::lookup::{GATHERED_BYTES, Gather, Pooling};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::selection::{Combined, Pieces, STEP, combine};
use crate::webgpu::state::Wgpu;
use crate::webgpu::tables::{BoundTable, buffers_of};

pub(super) fn search(
    gpu: &Wgpu,
    op: &Decoupled,
    batch: &WgpuBatch,
    inputs: &SearchInputs<'_, WgpuMemory>,
    out: SelectionMut<'_, WgpuMemory>,
) -> Result<()> {
    let top_k = op.check_search(batch.as_ref(), inputs)?;
    op.check_search_outputs(batch.as_ref(), top_k, &out)?;
    search_as(gpu, "decoupled_search", op, top_k, batch, inputs, out)
}

/// vec4s of the concatenated rows of some tables, each padded to whole vec4s.
fn width4(tables: &[BoundTable]) -> usize {
    tables.iter().map(|table| (table.width as usize).div_ceil(4)).sum()
}

/// What the dispatches of one search share.
struct Search<'a> {
    operation: &'static str,
    /// On the candidates' rows, and on the sums of their products.
    scales: (Vec<f32>, f32),
    pieces: &'a Pieces,
    tables: &'a [BoundTable],
    packed: &'a Binding,
    /// All ids of the behaviours.
    ids: &'a Binding,
    report: Option<&'a Binding>,
}

/// As [`search`], of checked arguments, and under another operation's name.
pub(super) fn search_as(
    gpu: &Wgpu,
    operation: &'static str,
    op: &Decoupled,
    top_k: usize,
    batch: &WgpuBatch,
    inputs: &SearchInputs<'_, WgpuMemory>,
    out: SelectionMut<'_, WgpuMemory>,
) -> Result<()> {
    check_top_k(operation, top_k)?;
    let (behaviours, candidates) = (batch.as_ref().histories().total(), batch.as_ref().targets().total());
    let features = inputs.attention.len();
    let ids = Region::of(inputs.history_ids).rows(0, behaviours, features);
    let target_ids = Region::of(inputs.target_ids).rows(0, candidates, features);
    let mut read = buffers_of(inputs.attention);
    read.extend([ids.buffer, target_ids.buffer]);
    let positions = gpu.output(operation, "positions", &out.positions, candidates * top_k, &read, &[])?;
    let scores = gpu.output(operation, "scores", &out.scores, candidates * top_k, &read, &[&positions])?;
    let counts = gpu.output(operation, "counts", &out.counts, candidates, &read, &[&positions, &scores])?;
    let bound_ids = gpu.bind(operation, "history_ids", &ids)?;
    let target_ids = gpu.bind(operation, "target_ids", &target_ids)?;
    let bind = |table| BoundTable::new(gpu, operation, table);
    let tables: Vec<BoundTable> = inputs.attention.iter().map(bind).collect::<Result<_>>()?;
    let keys = Keys::in_place(&tables, top_k);
    let width = 4 * width4(&tables);
    check_loops(operation, "tables", width, 4 * MOST_STEPS_OF_ROW)?;
    let window = match keys {
        Some(_) => usize::MAX,
        None => gpu.rows_per_binding::<f32>(width).min(GATHERED_BYTES / (4 * width)).max(STEP),
    };
    // All memory is allocated first, so that a call that runs out of memory does nothing.
    let pieces = Pieces::new(gpu, operation, batch, top_k, width4(&tables), window)?;
    let packed = gpu.scratch(operation, (pieces.packed_rows() * width) as u64)?;

    let report = gpu.history_report(operation, op.ids, batch.as_ref(), ids, inputs.attention)?;
    let target_report = gpu.id_report(operation, "target_ids", op.ids, inputs.attention)?;
    let search = Search {
        operation,
        scales: op.split_scales(),
        pieces: &pieces,
        tables: &tables,
        packed: &packed,
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
    let out = Combined { positions: &positions.binding, scores: &scores.binding, counts: &counts.binding };
    combine(gpu, operation, &pieces, false, &out)?;
    [positions, scores, counts].into_iter().try_for_each(|output| gpu.finish(output))
}

/// Where the rows of the behaviours are, for one dispatch.
struct Rows<'a> {
    keys: Keys,
    pieces: Range<usize>,
    /// The history row of the first gathered row.
    first_history: usize,
    /// Of each table: width, rows, first element, first vec4 in the packed query.
    shapes: [[u32; 4]; MAX_TABLES],
    data: Vec<&'a Binding>,
    report: Option<&'a Binding>,
}

impl Search<'_> {
    fn pack_queries(&self, gpu: &Wgpu, ids: &Binding, report: Option<&Binding>) -> Result<()> {
        let no_report = gpu.no_output(self.operation)?;
        // Rows of a packed tile.
        let tile_rows = self.pieces.lists.packed_rows();
        let mut first4 = 0;
        for (feature, table) in self.tables.iter().enumerate() {
            let table_width4 = (table.width as usize).div_ceil(4);
            let threads = self.pieces.plan.plan.tiles.len() * table_width4 * tile_rows;
            let params = SearchQueriesParams {
                threads: fit(self.operation, "queries", threads)?,
                ids_base: ids.base,
                features: self.tables.len() as u32,
                feature: feature as u32,
                table_rows: table.rows,
                width: table.width,
                table_base: table.data.base,
                scale_base: table.scale.base,
                offset_base: table.offset.base,
                factor: self.scales.0.get(feature).copied().unwrap_or(1.0),
                width4: width4(self.tables) as u32,
                first4,
                tile_rows: tile_rows as u32,
                check_ids: u32::from(report.is_some()),
            };
            let report = report.unwrap_or(&no_report);
            let bindings =
                [&self.pieces.plan.tiles, ids, &table.data, &table.scale, &table.offset, self.packed, report];
            let kernel = queries_kernel(table.format, table.int8);
            gpu.dispatch(self.operation, &kernel, &params, &bindings, groups_of(threads))?;
            first4 += table_width4 as u32;
        }
        Ok(())
    }

    /// Reads the tables in place, in one dispatch.
    fn in_place(&self, gpu: &Wgpu, keys: Keys) -> Result<()> {
        let mut shapes = [[0; 4]; MAX_TABLES];
        let mut first4 = 0;
        for (shape, table) in shapes.iter_mut().zip(self.tables) {
            *shape = [table.width, table.rows, table.data.base, first4];
            first4 += table.width.div_ceil(4);
        }
        let nothing = gpu.nothing();
        let table = |index: usize| self.tables.get(index).map_or(&nothing, |table| &table.data);
        let data = match keys {
            Keys::Int8(_) => vec![table(0), &self.tables[0].scale, &self.tables[0].offset],
            _ => (0..MAX_TABLES).map(table).collect(),
        };
        let pieces = 0..self.pieces.plan.plan.pieces.len();
        self.run(gpu, &Rows { keys, pieces, first_history: 0, shapes, data, report: self.report })
    }

    /// Gathers the rows of all tables, a window of the histories at a time, and reads them as one table.
    fn gathered(
        &self,
        gpu: &Wgpu,
        tables: &[Table<'_, WgpuMemory>],
        ids: Region<'_, u32>,
        window: usize,
    ) -> Result<()> {
        let (features, width) = (tables.len(), 4 * width4(self.tables));
        let windows = self.pieces.plan.plan.dense_windows(window);
        let most = windows.iter().map(|(_, span)| span.len()).max().unwrap_or(0);
        let keys = gpu.scratch(self.operation, (most * width) as u64)?;
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
            let rows = Rows {
                keys: Keys::Gathered,
                pieces,
                first_history: span.start,
                shapes: [[width as u32, span.len() as u32, 0, 0], [0; 4], [0; 4]],
                data: vec![&keys],
                report: None,
            };
            self.run(gpu, &rows)?;
        }
        Ok(())
    }

    fn run(&self, gpu: &Wgpu, rows: &Rows<'_>) -> Result<()> {
        let no_report = gpu.no_output(self.operation)?;
        let params = SearchParams {
            first_piece: rows.pieces.start as u32,
            first_history: rows.first_history as u32,
            ids_base: self.ids.base,
            features: self.tables.len() as u32,
            top_k: self.pieces.top_k as u32,
            first_whole: self.pieces.plan.plan.slots as u32,
            width4: width4(self.tables) as u32,
            check_ids: u32::from(rows.report.is_some()),
            scale_base: self.tables[0].scale.base,
            offset_base: self.tables[0].offset.base,
            factor: self.scales.1,
            unused1: 0,
            unused2: 0,
            unused3: 0,
            feature0: rows.shapes[0],
            feature1: rows.shapes[1],
            feature2: rows.shapes[2],
        };
        let mut bindings = vec![&self.pieces.plan.pieces, self.packed, self.ids];
        bindings.extend(&rows.data);
        bindings.extend(self.pieces.bindings());
        bindings.push(rows.report.unwrap_or(&no_report));
        let kernel = search_kernel(self.pieces.lists, rows.keys);
        gpu.dispatch(self.operation, &kernel, &params, &bindings, rows.pieces.len() as u64)
    }
}
