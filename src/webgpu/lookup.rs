//! Look-ups: rows of tables by id, one feature a dispatch.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::{fit, id_bound};
use crate::jagged::Batch;
use crate::ops::*;
use crate::webgpu::Wgpu;
use crate::webgpu::batch::WgpuJagged;
use crate::webgpu::faults::Report;
use crate::webgpu::launch::{Binding, Params};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::target_attention::vectors;

impl LookupOps for Wgpu {
    fn lookup_into(
        &self,
        op: &Lookup,
        bags: Bags<'_, WgpuJagged>,
        inputs: LookupInputs<'_, WgpuMemory>,
        outputs: LookupOutputs<'_, WgpuMemory>,
    ) -> Result<()> {
        lookup(self, op, bags, &inputs, outputs)
    }
}

const NAME: &str = "lookup";

/// Bytes that rows gathered for another kernel may take at a time.
pub(super) const GATHERED_BYTES: usize = 64 << 20;

fn gather_kernel(table: Format, int8: bool) -> Kernel {
    Kernel {
        name: "gather",
        sources: &[include_str!("../../shaders/lookup/gather.wgsl")],
        constants: vec![("INT8", u32::from(int8))],
        slots: vec![
            Slot::plain("ids", "u32"),
            Slot::plain("offsets", "u32"),
            Slot::read("table_data", table),
            Slot::plain("scale", "f32"),
            Slot::plain("offset", "f32"),
            Slot::write("out", "f32"),
            Slot::write("report", "atomic<u32>"),
        ],
    }
}

/// The ways a table is stored: its format, and whether rows have a scale and an offset.
pub(super) fn stores() -> impl Iterator<Item = (Format, bool)> {
    let int8 = [Format::int8(true), Format::int8(false)].map(|format| (format, true));
    Format::ALL.map(|format| (format, false)).into_iter().chain(int8)
}

pub(super) fn variants() -> Vec<Kernel> {
    stores().map(|(format, int8)| gather_kernel(format, int8)).collect()
}

/// A table as the kernels bind it.
pub(super) struct Bound {
    pub(super) data: Binding,
    pub(super) scale: Binding,
    pub(super) offset: Binding,
    pub(super) format: Format,
    pub(super) int8: bool,
    pub(super) rows: u32,
    pub(super) width: u32,
}

impl Bound {
    /// `[table_rows, width, table_base, scale_base, offset_base]` of the kernels' parameters.
    pub(super) fn params(&self) -> [u32; 5] {
        [self.rows, self.width, self.data.base, self.scale.base, self.offset.base]
    }
}

pub(super) fn bind(gpu: &Wgpu, operation: &'static str, table: &Table<'_, WgpuMemory>) -> Result<Bound> {
    let plain = |data: Binding, format: Format| -> Result<_> {
        Ok((data, gpu.nothing(), gpu.nothing(), format, false))
    };
    fn floats<T: Element>(binding: &Binding, width: usize) -> Format {
        vectors::<T>(binding, width)
    }
    let width = table.width;
    let (data, scale, offset, format, int8) = match &table.data {
        TableData::F32(view) => {
            let data = gpu.bind(operation, "tables", &Region::of(*view))?;
            let format = floats::<f32>(&data, width);
            plain(data, format)?
        }
        TableData::F16(view) => {
            let data = gpu.bind(operation, "tables", &Region::of(*view))?;
            let format = floats::<half::f16>(&data, width);
            plain(data, format)?
        }
        TableData::Bf16(view) => {
            let data = gpu.bind(operation, "tables", &Region::of(*view))?;
            let format = floats::<half::bf16>(&data, width);
            plain(data, format)?
        }
        TableData::Int8 { codes, scale, offset } => {
            let data = gpu.bind(operation, "tables", &Region::of(*codes))?;
            let by_four = data.base.is_multiple_of(4) && width.is_multiple_of(4);
            let scale = gpu.bind(operation, "tables", &Region::of(*scale))?;
            let offset = gpu.bind(operation, "tables", &Region::of(*offset))?;
            (data, scale, offset, Format::int8(by_four), true)
        }
    };
    let rows = fit(operation, "tables", table.rows)?;
    fit(operation, "tables", table.rows * width)?;
    Ok(Bound { data, scale, offset, format, int8, rows, width: width as u32 })
}

/// How rows become a row of output.
#[derive(Clone, Copy)]
pub(super) enum Pooling<'a> {
    Each,
    Sum(&'a Binding),
    Mean(&'a Binding),
}

/// Gathers `rows` rows of one feature's table into the columns from `first_column` on.
pub(super) struct Gather<'a> {
    pub(super) operation: &'static str,
    pub(super) ids: &'a Binding,
    pub(super) features: usize,
    pub(super) rows: usize,
    pub(super) pooling: Pooling<'a>,
    /// What the output is `[rows, width]` of.
    pub(super) width: usize,
    /// Multiply what is there instead of overwriting it.
    pub(super) multiply: bool,
    /// Begin each feature at a multiple of four columns.
    pub(super) padded: bool,
    /// Where to note ids outside their table, and how many ids of the caller's stand before these.
    pub(super) report: Option<(&'a Binding, usize)>,
}

impl Gather<'_> {
    /// All features side by side; `factors` one a feature.
    pub(super) fn run(
        &self,
        gpu: &Wgpu,
        tables: &[Table<'_, WgpuMemory>],
        factors: &[f32],
        out: &Binding,
    ) -> Result<()> {
        let mut first_column = 0;
        let no_report = gpu.no_output(self.operation)?;
        let (report, first_place) = self.report.unwrap_or((&no_report, 0));
        fit(self.operation, "ids", first_place + self.rows * self.features)?;
        for (feature, table) in tables.iter().enumerate() {
            let bound = bind(gpu, self.operation, table)?;
            let threads = fit(self.operation, "out", self.rows * table.width.div_ceil(4))?;
            fit(self.operation, "out", self.rows * self.width)?;
            let nothing = gpu.nothing();
            let (pooling, offsets) = match self.pooling {
                Pooling::Each => (0, &nothing),
                Pooling::Sum(offsets) => (1, offsets),
                Pooling::Mean(offsets) => (2, offsets),
            };
            let params = Params::default()
                .u32s(&[threads, self.ids.base, self.features as u32, feature as u32])
                .u32s(&bound.params())
                .u32s(&[out.base, self.width as u32, first_column, pooling, u32::from(self.multiply)])
                .f32s(&[factors.get(feature).copied().unwrap_or(1.0)])
                .u32s(&[u32::from(self.report.is_some()), first_place as u32]);
            let bindings = [self.ids, offsets, &bound.data, &bound.scale, &bound.offset, out, report];
            let kernel = gather_kernel(bound.format, bound.int8);
            gpu.dispatch(&kernel, params, &bindings, u64::from(threads).div_ceil(64))?;
            let columns = if self.padded { table.width.next_multiple_of(4) } else { table.width };
            first_column += columns as u32;
        }
        Ok(())
    }
}

/// The buffers of some tables.
pub(super) fn buffers<'a>(tables: &[Table<'a, WgpuMemory>]) -> Vec<&'a wgpu::Buffer> {
    let of = |table: &Table<'a, WgpuMemory>| match &table.data {
        TableData::F32(view) => vec![Region::of(*view).buffer],
        TableData::F16(view) => vec![Region::of(*view).buffer],
        TableData::Bf16(view) => vec![Region::of(*view).buffer],
        TableData::Int8 { codes, scale, offset } => {
            vec![Region::of(*codes).buffer, Region::of(*scale).buffer, Region::of(*offset).buffer]
        }
    };
    tables.iter().flat_map(of).collect()
}

/// Where the kernels that read these ids note one outside its table, where the policy asks for that.
pub(super) fn id_report(
    gpu: &Wgpu,
    operation: &'static str,
    argument: &'static str,
    policy: IdPolicy,
    tables: &[Table<'_, WgpuMemory>],
) -> Result<Option<Report>> {
    id_bound(policy, tables).map(|bound| gpu.report(operation, argument, bound)).transpose()
}

/// The same for the behaviours of a batch: they are read where their user has candidates. If some have none, the check
/// is made by itself, for all.
pub(super) fn history_report(
    gpu: &Wgpu,
    operation: &'static str,
    policy: IdPolicy,
    batch: &Batch,
    ids: Region<'_, u32>,
    tables: &[Table<'_, WgpuMemory>],
) -> Result<Option<Report>> {
    if batch.requests().all(|(history, targets)| history.is_empty() || !targets.is_empty()) {
        return id_report(gpu, operation, "history_ids", policy, tables);
    }
    check_ids(gpu, operation, "history_ids", policy, ids, batch.histories().total(), tables)?;
    Ok(None)
}

/// The same check by itself, of ids that no kernel reads.
pub(super) fn check_ids(
    gpu: &Wgpu,
    operation: &'static str,
    argument: &'static str,
    policy: IdPolicy,
    ids: Region<'_, u32>,
    rows: usize,
    tables: &[Table<'_, WgpuMemory>],
) -> Result<()> {
    if policy == IdPolicy::Zero {
        return Ok(());
    }
    let limits: Vec<usize> = tables.iter().map(|table| table.rows).collect();
    gpu.check_words(operation, argument, ids, rows * tables.len(), &limits)
}

pub(super) fn lookup(
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
        Bags::Sum(bags) | Bags::Mean(bags) => (bags.as_ref().total(), Some(bags.offsets(gpu, NAME)?)),
    };
    let mut read = buffers(inputs.tables);
    read.extend(buffers(inputs.second_tables));
    read.push(ids.buffer);
    let width = total_width(inputs.tables);
    let out = gpu.output(NAME, "out", &outputs.out, rows * width, &read)?;
    let second_width = total_width(inputs.second_tables);
    let second = match &outputs.second {
        Some(second) => Some(gpu.output(NAME, "second", second, rows * second_width, &read)?),
        None => None,
    };
    let ids = gpu.bind(NAME, "ids", &ids.rows(0, used * features, 1))?;
    let report = id_report(gpu, NAME, "ids", op.ids, inputs.tables)?;
    let pooling = match (bags, &offsets) {
        (Bags::Sum(_), Some(offsets)) => Pooling::Sum(offsets),
        (Bags::Mean(_), Some(offsets)) => Pooling::Mean(offsets),
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
    gather.run(gpu, inputs.tables, &[], &out.binding)?;
    gpu.finish(out)?;
    if let Some(second) = second {
        let gather = Gather { width: second_width, report: None, ..gather };
        gather.run(gpu, inputs.second_tables, &[], &second.binding)?;
        gpu.finish(second)?;
    }
    match report {
        Some(report) => gpu.fetch_word(&ids, 32, report),
        None => Ok(()),
    }
}
