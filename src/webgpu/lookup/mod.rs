//! Look-ups: rows of tables by id, one dispatch per feature; sorted ids, gradients and optimisers in files of their own.

pub(in crate::webgpu) mod backward;
mod order;
pub(in crate::webgpu) mod runs;
pub(in crate::webgpu) mod sort;
pub(in crate::webgpu) mod table_gradient;
mod update;
mod weights;

use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::ops::{
    Bags, IdColumn, IdPolicy, Lookup, LookupGradOut, LookupGradients, LookupInputs, LookupOps, LookupOutputs,
    LookupSaved, Optimiser, OptimiserState, SortedIdsMut, SparseGradient, Table, TableMut, total_width,
};
use crate::webgpu::batch::{BagParts, WgpuJagged};
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::lookup::weights::BagIds;
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;
use crate::webgpu::sum_parts::{Mode, Rows};
use crate::webgpu::tables::{BoundTable, buffers_of, table_formats};

impl LookupOps for Wgpu {
    fn lookup_into(
        &self,
        op: &Lookup,
        bags: Bags<'_, WgpuJagged>,
        inputs: LookupInputs<'_, WgpuMemory>,
        outputs: LookupOutputs<'_, WgpuMemory>,
    ) -> Result<()> {
        self.call(|gpu| lookup(gpu, op, bags, &inputs, outputs))
    }

    fn sort_ids_into(
        &self,
        column: IdColumn<'_, WgpuMemory>,
        out: SortedIdsMut<'_, WgpuMemory>,
    ) -> Result<()> {
        self.call(|gpu| sort::sort_ids(gpu, &column, &out))
    }

    fn lookup_backward_into(
        &self,
        op: &Lookup,
        bags: Bags<'_, WgpuJagged>,
        inputs: LookupInputs<'_, WgpuMemory>,
        saved: LookupSaved<'_, WgpuMemory>,
        grad_out: LookupGradOut<'_, WgpuMemory>,
        grads: LookupGradients<'_, WgpuMemory>,
    ) -> Result<()> {
        self.call(|gpu| backward::backward(gpu, op, bags, &inputs, (&saved, &grad_out), &grads))
    }

    fn update_rows<T: Element>(
        &self,
        op: &Optimiser,
        table: TableMut<'_, WgpuMemory, T>,
        state: OptimiserState<'_, WgpuMemory>,
        gradient: SparseGradient<'_, WgpuMemory>,
    ) -> Result<()> {
        self.call(|gpu| update::update_rows(gpu, op, &table, &state, &gradient))
    }
}

const NAME: &str = "lookup";

/// Bytes that rows gathered for another kernel may occupy at a time.
pub(super) const GATHERED_BYTES: usize = 64 << 20;

params! {
    /// Twin of the struct in shaders/lookup/gather.wgsl.
    struct GatherParams {
        threads: u32,
        ids_base: u32,
        features: u32,
        feature: u32,
        table_rows: u32,
        width: u32,
        table_base: u32,
        scale_base: u32,
        offset_base: u32,
        out_base: u32,
        out_width: u32,
        first_column: u32,
        pooling: u32,
        store: u32,
        factor: f32,
        check_ids: u32,
        first_place: u32,
        weights_base: u32,
    }
}

const GATHER: [&str; 2] = [
    include_str!("../../../shaders/lookup/gather_alike.wgsl"),
    include_str!("../../../shaders/lookup/gather.wgsl"),
];
const GATHER_WEIGHTED: [&str; 2] = [include_str!("../../../shaders/lookup/gather_weighted.wgsl"), GATHER[1]];

fn gather_kernel(table: Format, int8: bool, weighted: bool) -> Kernel {
    let mut slots = vec![
        Slot::plain("ids", "u32"),
        Slot::plain("offsets", "u32"),
        Slot::read("table_data", table),
        Slot::plain("scale", "f32"),
        Slot::plain("offset", "f32"),
        Slot::write("out", "f32"),
        Slot::write("report", "atomic<u32>"),
    ];
    if weighted {
        slots.push(Slot::plain("weights", "f32"));
    }
    Kernel {
        name: "lookup/gather",
        params: &GatherParams::BLOCK,
        threads: THREADS,
        sources: if weighted { &GATHER_WEIGHTED } else { &GATHER },
        constants: vec![("INT8", u32::from(int8))],
        slots,
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let gathers = |weighted| table_formats().map(move |(format, int8)| gather_kernel(format, int8, weighted));
    let gathers = gathers(false).chain(gathers(true)).collect();
    let others = [backward::variants(), update::variants(), weights::variants()].concat();
    [gathers, sort::variants(), order::variants(), others].concat()
}

/// How rows become one row of the output; the offsets of the bags.
#[derive(Clone, Copy)]
pub(super) enum Pooling<'a> {
    Each,
    Sum(&'a Binding),
    Mean(&'a Binding),
    /// The sum with a weight `[N, F]` for each id.
    Weighted(&'a Binding, &'a Binding),
    /// The mean of the ids that count: `[F, rows]` numbers, of the whole bag where a row is a part of one.
    Counted(&'a Binding, &'a Binding),
}

/// Gathers `rows` rows of each feature's table, concatenated.
#[derive(Clone, Copy)]
pub(super) struct Gather<'a> {
    pub(super) operation: &'static str,
    pub(super) ids: &'a Binding,
    pub(super) features: usize,
    pub(super) rows: usize,
    pub(super) pooling: Pooling<'a>,
    /// The width of a row of the output.
    pub(super) width: usize,
    /// Multiply the output instead of overwriting it.
    pub(super) multiply: bool,
    /// Start each feature at a multiple of four columns.
    pub(super) padded: bool,
    /// Where ids outside their table are reported, and how many of the caller's ids come before these.
    pub(super) report: Option<(&'a Binding, usize)>,
}

impl Gather<'_> {
    /// Gathers all features, and adds up the parts of long bags.
    fn bags(
        &self,
        gpu: &Wgpu,
        tables: &[Table<'_, WgpuMemory>],
        parts: Option<&BagParts>,
        out: &Binding,
    ) -> Result<()> {
        let Some(parts) = parts else {
            return self.run(gpu, tables, &[], out);
        };
        fit(self.operation, "out", self.rows * self.width)?;
        let sums = gpu.scratch(self.operation, (parts.count * self.width) as u64)?;
        // Parts of a mean that are divided by the count of the whole bag.
        let halves = vec![0.5; tables.len()];
        let (mode, factors) = match self.pooling {
            Pooling::Mean(_) => (Mode::Mean(&parts.edges), &[][..]),
            Pooling::Counted(..) => (Mode::Halves, &halves[..]),
            _ => (Mode::Sum, &[][..]),
        };
        Gather { rows: parts.count, ..*self }.run(gpu, tables, factors, &sums)?;
        let Self { rows, width, .. } = *self;
        let rows = Rows { out, rows, width, out_width: width, first_column: 0 };
        rows.sum_parts(gpu, self.operation, &parts.ranges, &sums, mode)
    }

    /// Gathers all features. `factors` has one element per feature, or none for factors of 1.
    pub(super) fn run(
        &self,
        gpu: &Wgpu,
        tables: &[Table<'_, WgpuMemory>],
        factors: &[f32],
        out: &Binding,
    ) -> Result<()> {
        let mut first_column = 0;
        let no_report = gpu.no_output(self.operation)?;
        for (feature, table) in tables.iter().enumerate() {
            let bound = BoundTable::new(gpu, self.operation, table)?;
            let factor = factors.get(feature).copied().unwrap_or(1.0);
            self.feature(gpu, (&bound, factor), (feature, first_column), (out, &no_report))?;
            let columns = if self.padded { table.width.next_multiple_of(4) } else { table.width };
            first_column += columns as u32;
        }
        Ok(())
    }

    /// Gathers the only feature, from a table that is bound.
    pub(super) fn bound(&self, gpu: &Wgpu, table: &BoundTable, out: &Binding) -> Result<()> {
        self.feature(gpu, (table, 1.0), (0, 0), (out, &gpu.no_output(self.operation)?))
    }

    /// Gathers a feature, to columns of the output from the first on.
    fn feature(
        &self,
        gpu: &Wgpu,
        (bound, factor): (&BoundTable, f32),
        (feature, first_column): (usize, u32),
        (out, no_report): (&Binding, &Binding),
    ) -> Result<()> {
        let (report, first_place) = self.report.unwrap_or((no_report, 0));
        fit(self.operation, "ids", first_place + self.rows * self.features)?;
        fit(self.operation, "out", self.rows * self.width)?;
        let threads = self.rows * bound.width.div_ceil(4) as usize;
        let nothing = gpu.nothing();
        let (pooling, offsets, weights) = match self.pooling {
            Pooling::Each => (0, &nothing, None),
            Pooling::Sum(offsets) => (1, offsets, None),
            Pooling::Mean(offsets) => (2, offsets, None),
            Pooling::Weighted(offsets, weights) => (1, offsets, Some((weights, 0))),
            Pooling::Counted(offsets, counts) => (2, offsets, Some((counts, feature * self.rows))),
        };
        let params = GatherParams {
            threads: fit(self.operation, "out", threads)?,
            ids_base: self.ids.base,
            features: self.features as u32,
            feature: feature as u32,
            table_rows: bound.rows,
            width: bound.width,
            table_base: bound.data.base,
            scale_base: bound.scale.base,
            offset_base: bound.offset.base,
            out_base: out.base,
            out_width: self.width as u32,
            first_column,
            pooling,
            store: u32::from(self.multiply),
            factor,
            check_ids: u32::from(self.report.is_some()),
            first_place: first_place as u32,
            weights_base: weights.map_or(0, |(weights, first)| weights.base + first as u32),
        };
        let mut bindings = vec![self.ids, offsets, &bound.data, &bound.scale, &bound.offset, out, report];
        bindings.extend(weights.map(|(weights, _)| weights));
        let kernel = gather_kernel(bound.format, bound.int8, weights.is_some());
        gpu.dispatch(self.operation, &kernel, &params, &bindings, groups_of(threads))
    }
}

fn lookup(
    gpu: &Wgpu,
    op: &Lookup,
    bags: Bags<'_, WgpuJagged>,
    inputs: &LookupInputs<'_, WgpuMemory>,
    outputs: LookupOutputs<'_, WgpuMemory>,
) -> Result<()> {
    let rows = op.check(&bags, inputs)?;
    op.check_outputs(rows, inputs, &outputs)?;
    let features = inputs.tables.len();
    let ids = Region::of(inputs.ids);
    let (used, offsets) = match bags {
        Bags::Each => (rows, None),
        Bags::Sum(bags) | Bags::Mean(bags) => (bags.as_ref().total(), Some(bags.offsets(gpu, NAME, "bags")?)),
    };
    let mut read = buffers_of(inputs.tables);
    read.extend(buffers_of(inputs.second_tables));
    read.push(ids.buffer);
    let weights = inputs.weights.map(Region::of);
    read.extend(weights.map(|weights| weights.buffer));
    let width = total_width(inputs.tables);
    let out = gpu.output(NAME, "out", &outputs.out, rows * width, &read, &[])?;
    let second_width = total_width(inputs.second_tables);
    let second = match &outputs.second {
        Some(second) => Some(gpu.output(NAME, "second", second, rows * second_width, &read, &[&out])?),
        None => None,
    };
    let ids = gpu.bind(NAME, "ids", &ids.rows(0, used * features, 1))?;
    let weights =
        weights.map(|weights| gpu.bind(NAME, "weights", &weights.rows(0, used * features, 1))).transpose()?;
    let report = gpu.id_report(NAME, "ids", op.ids, inputs.tables)?;
    fit(NAME, "ids", used * features)?;
    let parts = match bags {
        Bags::Each => None,
        Bags::Sum(bags) | Bags::Mean(bags) => bags.parts(gpu, NAME)?,
    };
    let edges = parts.as_ref().map(|parts| &parts.edges).or(offsets.as_ref());
    let counts = match (&bags, &offsets, edges) {
        (Bags::Mean(bags), Some(offsets), Some(edges)) if op.ids == IdPolicy::Skip => {
            let ids = BagIds { ids: &ids, offsets, bags: bags.as_ref().users(), rows: used };
            let parts = parts.as_ref().map_or(rows, |parts| parts.count);
            Some(ids.counts(gpu, NAME, inputs.tables, (edges, parts))?)
        }
        _ => None,
    };
    let pooling = match (bags, edges, &weights, &counts) {
        (Bags::Sum(_), Some(edges), Some(weights), _) => Pooling::Weighted(edges, weights),
        (Bags::Sum(_), Some(edges), None, _) => Pooling::Sum(edges),
        (Bags::Mean(_), Some(edges), _, Some(counts)) => Pooling::Counted(edges, counts),
        (Bags::Mean(_), Some(edges), _, None) => Pooling::Mean(edges),
        _ => Pooling::Each,
    };
    let gather = Gather {
        operation: NAME,
        ids: &ids,
        features,
        rows,
        pooling,
        width,
        multiply: false,
        padded: false,
        report: report.as_ref().map(|report| (&report.binding, 0)),
    };
    gather.bags(gpu, inputs.tables, parts.as_ref(), &out.binding)?;
    gpu.finish(out)?;
    if let Some(second) = second {
        let gather = Gather { width: second_width, report: None, ..gather };
        gather.bags(gpu, inputs.second_tables, parts.as_ref(), &second.binding)?;
        gpu.finish(second)?;
    }
    match report {
        Some(report) => gpu.fetch_word(&ids, 32, report),
        None => Ok(()),
    }
}
