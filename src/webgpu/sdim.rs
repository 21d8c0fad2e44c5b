//! SDIM: hash, encode, query, and the table-free way.

use crate::element::{Element, Scalar, Signature};
use crate::error::Result;
use crate::gpu::fit;
use crate::memory::{View, ViewMut};
use crate::ops::{Hash, Sdim, SdimAttendInputs, SdimEncodeInputs, SdimOps, SdimQueryInputs};
use crate::plan::Cut;
use crate::webgpu::Wgpu;
use crate::webgpu::batch::{WgpuBatch, WgpuJagged};
use crate::webgpu::launch::{Binding, Params};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::output::Output;
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::target_attention::{PIECES, rows_per_binding, vectors};

impl SdimOps for Wgpu {
    fn sdim_signatures_into<T: Element, W: Signature>(
        &self,
        op: &Sdim,
        rows: View<'_, WgpuMemory, T>,
        rotations: View<'_, WgpuMemory, f32>,
        out: ViewMut<'_, WgpuMemory, W>,
    ) -> Result<()> {
        signatures(self, op, rows, rotations, out)
    }

    fn sdim_encode_into<T: Element>(
        &self,
        op: &Sdim,
        histories: &WgpuJagged,
        inputs: SdimEncodeInputs<'_, WgpuMemory, T>,
        table: ViewMut<'_, WgpuMemory, f32>,
    ) -> Result<()> {
        encode(self, "sdim_encode", op, histories, &inputs, table, false)
    }

    fn sdim_append<T: Element>(
        &self,
        op: &Sdim,
        new: &WgpuJagged,
        inputs: SdimEncodeInputs<'_, WgpuMemory, T>,
        table: ViewMut<'_, WgpuMemory, f32>,
    ) -> Result<()> {
        encode(self, "sdim_append", op, new, &inputs, table, true)
    }

    fn sdim_add_tables(
        &self,
        op: &Sdim,
        table: ViewMut<'_, WgpuMemory, f32>,
        other: View<'_, WgpuMemory, f32>,
    ) -> Result<()> {
        add_tables(self, op, table, other)
    }

    fn sdim_query_into<T: Element>(
        &self,
        op: &Sdim,
        targets: &WgpuJagged,
        inputs: SdimQueryInputs<'_, WgpuMemory, T>,
        out: ViewMut<'_, WgpuMemory, T>,
    ) -> Result<()> {
        query(self, "sdim_query", op, targets, &inputs, out)
    }

    fn sdim_attend_into<T: Element>(
        &self,
        op: &Sdim,
        batch: &WgpuBatch,
        inputs: SdimAttendInputs<'_, WgpuMemory, T>,
        out: ViewMut<'_, WgpuMemory, T>,
    ) -> Result<()> {
        attend(self, op, batch, &inputs, out)
    }
}

/// Bucket rows of 64 columns that fit the workgroup memory of sdim/encode.wgsl.
const ROWS_IN_WORKGROUP: usize = 48;
/// Bytes that partial tables may take: a small part of a GPU's memory.
const PARTIAL_BYTES: usize = 64 << 20;

fn hash_kernel(rows: Format) -> Kernel {
    Kernel {
        name: "sdim_hash",
        sources: &[include_str!("../../shaders/sdim/signatures.wgsl")],
        constants: vec![],
        slots: vec![Slot::read("rows", rows), Slot::plain("rotations", "f32"), Slot::write("out", "u32")],
    }
}

fn encode_kernel(in_memory: bool, rows: Format, bits: u32) -> Kernel {
    Kernel {
        name: "sdim_encode",
        sources: &[include_str!("../../shaders/sdim/encode.wgsl")],
        constants: vec![("IN_MEMORY", u32::from(in_memory))],
        slots: vec![
            Slot::plain("pieces", "vec4<u32>"),
            Slot::read("rows", rows),
            Slot::words("codes", bits),
            Slot::write("table", "f32"),
            Slot::write("partial", "f32"),
        ],
    }
}

fn merge_kernel() -> Kernel {
    Kernel {
        name: "sdim_merge",
        sources: &[include_str!("../../shaders/sdim/combine_tables.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("merges", "vec4<u32>"),
            Slot::plain("partial", "f32"),
            Slot::write("table", "f32"),
        ],
    }
}

fn add_kernel() -> Kernel {
    Kernel {
        name: "sdim_add",
        sources: &[include_str!("../../shaders/sdim/add_tables.wgsl")],
        constants: vec![],
        slots: vec![Slot::plain("other", "f32"), Slot::write("table", "f32")],
    }
}

fn query_kernel(summed: bool, bits: u32) -> Kernel {
    Kernel {
        name: "sdim_query",
        sources: &[include_str!("../../shaders/sdim/query.wgsl")],
        constants: vec![("SUMMED", u32::from(summed))],
        slots: vec![
            Slot::plain("offsets", "u32"),
            Slot::plain("table", "f32"),
            Slot::words("codes", bits),
            Slot::write("out", "f32"),
        ],
    }
}

fn attend_kernel(rows: Format, bits: u32, target_bits: u32) -> Kernel {
    Kernel {
        name: "sdim_attend",
        sources: &[include_str!("../../shaders/sdim/attend.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("pieces", "vec4<u32>"),
            Slot::read("rows", rows),
            Slot::words("codes", bits),
            Slot::words("target_codes", target_bits),
            Slot::write("out", "f32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let mut kernels = vec![merge_kernel(), add_kernel(), query_kernel(true, 32)];
    kernels.extend(Format::ALL.map(hash_kernel));
    for bits in [8, 16, 32] {
        kernels.push(query_kernel(false, bits));
        for rows in Format::ALL.into_iter().filter(|format| !format.vectors) {
            kernels.extend([false, true].map(|in_memory| encode_kernel(in_memory, rows, bits)));
            kernels.extend([8, 16, 32].map(|target_bits| attend_kernel(rows, bits, target_bits)));
        }
    }
    kernels
}

/// Signatures on the device, and the bits of each.
struct Codes {
    binding: Binding,
    bits: u32,
}

pub(super) fn signatures<T: Element, W: Signature>(
    gpu: &Wgpu,
    op: &Sdim,
    rows: View<'_, WgpuMemory, T>,
    rotations: View<'_, WgpuMemory, f32>,
    out: ViewMut<'_, WgpuMemory, W>,
) -> Result<()> {
    const NAME: &str = "sdim_signatures";
    let count = op.check_signatures(rows.len(), rotations.len())?;
    op.check_signatures_output::<W>(count, out.len())?;
    let (rows, rotations) = (Region::of(rows), Region::of(rotations));
    let out = gpu.output(NAME, "out", &out, count * op.groups, &[rows.buffer, rotations.buffer])?;
    hash(gpu, NAME, op, count, rows, rotations, &out.binding)?;
    gpu.finish(out)
}

fn hash<T: Element>(
    gpu: &Wgpu,
    operation: &'static str,
    op: &Sdim,
    count: usize,
    rows: Region<'_, T>,
    rotations: Region<'_, f32>,
    out: &Binding,
) -> Result<()> {
    let rotations = gpu.bind(operation, "rotations", &rotations)?;
    let window = rows_per_binding::<T>(gpu, op.width);
    for first in (0..count).step_by(window.max(1)) {
        let part = window.min(count - first);
        let rows = gpu.bind(operation, "rows", &rows.rows(first, part, op.width))?;
        let threads = fit(operation, "out", part * op.groups)?;
        let params = Params::default()
            .u32s(&[threads, op.width as u32, op.groups as u32, op.bits as u32])
            .u32s(&[rows.base, rotations.base, out.base + (first * op.groups) as u32]);
        let kernel = hash_kernel(vectors::<T>(&rows, op.width));
        gpu.dispatch(&kernel, params, &[&rows, &rotations, out], u64::from(threads).div_ceil(64))?;
    }
    Ok(())
}

/// The signatures of the first `count` rows: computed, or given and then checked.
fn codes<T: Element>(
    gpu: &Wgpu,
    operation: &'static str,
    op: &Sdim,
    count: usize,
    rows: Option<View<'_, WgpuMemory, T>>,
    given: &Hash<'_, WgpuMemory>,
) -> Result<Codes> {
    fn bind<W: Scalar>(
        gpu: &Wgpu,
        operation: &'static str,
        op: &Sdim,
        count: usize,
        words: View<'_, WgpuMemory, W>,
    ) -> Result<Codes> {
        let words = Region::of(words);
        let used = count * op.groups;
        gpu.check_words(operation, "signatures", words, used, &[op.buckets()])?;
        let binding = gpu.bind(operation, "signatures", &words.rows(0, used, 1))?;
        Ok(Codes { binding, bits: 8 * size_of::<W>() as u32 })
    }
    match (given, rows) {
        (Hash::Signatures8(words), _) => bind(gpu, operation, op, count, *words),
        (Hash::Signatures16(words), _) => bind(gpu, operation, op, count, *words),
        (Hash::Rotations(rotations), rows) => {
            let binding = gpu.scratch(operation, (count * op.groups) as u64)?;
            if let Some(rows) = rows {
                let (rows, rotations) = (Region::of(rows), Region::of(*rotations));
                hash(gpu, operation, op, count, rows, rotations, &binding)?;
            }
            Ok(Codes { binding, bits: 32 })
        }
    }
}

pub(super) fn encode<T: Element>(
    gpu: &Wgpu,
    operation: &'static str,
    op: &Sdim,
    histories: &WgpuJagged,
    inputs: &SdimEncodeInputs<'_, WgpuMemory, T>,
    table: ViewMut<'_, WgpuMemory, f32>,
    append: bool,
) -> Result<()> {
    let jagged = histories.as_ref();
    op.check_encode(operation, jagged, inputs)?;
    op.check_table(operation, jagged.users(), table.len())?;
    if jagged.users() == 0 {
        return Ok(());
    }
    let rows = Region::of(inputs.history);
    let size = op.groups * op.buckets() * op.width;
    let in_memory = op.buckets() > ROWS_IN_WORKGROUP;
    let window = rows_per_binding::<T>(gpu, op.width);
    let cut = Cut {
        rows_per_target: 1,
        tile_rows: 1,
        // Every part has a table of its own: it should be longer than what merging it costs.
        step: op.buckets().div_ceil(2).clamp(64, window.max(64)),
        wanted: PIECES.min(PARTIAL_BYTES / (size * 4)).max(1),
        longest: window,
    };
    let plan = histories.per_user.plan(gpu, operation, &cut)?;
    let codes = codes(gpu, operation, op, jagged.total(), Some(inputs.history), &inputs.hash)?;
    let read = [rows.buffer, hash_buffer(&inputs.hash)];
    let table = in_place(gpu, operation, &table, size * jagged.users(), &read, append)?;
    fit(operation, "table", size * jagged.users())?;
    let partial = gpu.scratch(operation, (plan.plan.slots * size) as u64)?;
    if in_memory && !append {
        gpu.clear(operation, &table.binding, size * jagged.users())?;
    }
    let group_tile = if in_memory { 1 } else { (ROWS_IN_WORKGROUP / op.buckets()).min(op.groups) };
    let groups_a_piece = op.width.div_ceil(64) * op.groups.div_ceil(group_tile);
    let kernel = encode_kernel(in_memory, Format::of::<T>(false), codes.bits);
    for (pieces, span) in plan.plan.windows(window) {
        let rows = gpu.bind(operation, "rows", &rows.rows(span.start, span.len(), op.width))?;
        let codes_base = codes.binding.base + (span.start * op.groups) as u32;
        let params = Params::default()
            .u32s(&[pieces.start as u32, span.start as u32, op.width as u32, op.groups as u32])
            .u32s(&[op.buckets() as u32, group_tile as u32, rows.base, codes_base])
            .u32s(&[table.binding.base, u32::from(append)]);
        let bindings = [&plan.pieces, &rows, &codes.binding, &table.binding, &partial];
        gpu.dispatch(&kernel, params, &bindings, (pieces.len() * groups_a_piece) as u64)?;
    }
    let threads = fit(operation, "table", plan.merge_count * size)?;
    let params = Params::default().u32s(&[threads, size as u32, table.binding.base, u32::from(append)]);
    let bindings = [&plan.merges, &partial, &table.binding];
    gpu.dispatch(&merge_kernel(), params, &bindings, u64::from(threads).div_ceil(64))?;
    gpu.finish(table)
}

/// A table that is read and written: where it shares its buffer with an input, a copy of it is, and goes back.
fn in_place(
    gpu: &Wgpu,
    operation: &'static str,
    table: &ViewMut<'_, WgpuMemory, f32>,
    length: usize,
    inputs: &[&wgpu::Buffer],
    read: bool,
) -> Result<Output> {
    let output = gpu.output(operation, "table", table, length, inputs)?;
    if read {
        gpu.fetch(&output)?;
    }
    Ok(output)
}

pub(super) fn add_tables(
    gpu: &Wgpu,
    op: &Sdim,
    table: ViewMut<'_, WgpuMemory, f32>,
    other: View<'_, WgpuMemory, f32>,
) -> Result<()> {
    const NAME: &str = "sdim_add_tables";
    let length = op.check_add(table.len(), other.len())?;
    let other = Region::of(other);
    let table = in_place(gpu, NAME, &table, length, &[other.buffer], true)?;
    let other = gpu.bind(NAME, "other", &other)?;
    let threads = fit(NAME, "table", length)?;
    let params = Params::default().u32s(&[threads, table.binding.base, other.base]);
    gpu.dispatch(&add_kernel(), params, &[&other, &table.binding], u64::from(threads).div_ceil(64))?;
    gpu.finish(table)
}

pub(super) fn query<T: Element>(
    gpu: &Wgpu,
    operation: &'static str,
    op: &Sdim,
    targets: &WgpuJagged,
    inputs: &SdimQueryInputs<'_, WgpuMemory, T>,
    out: ViewMut<'_, WgpuMemory, T>,
) -> Result<()> {
    let jagged = targets.as_ref();
    op.check_query(jagged, inputs)?;
    op.check_output(operation, jagged, out.len())?;
    let count = jagged.total();
    let table = Region::of(inputs.table);
    let read = [table.buffer, hash_buffer(&inputs.hash)];
    let out = gpu.output(operation, "out", &out, count * op.width, &read)?;
    let table = gpu.bind(operation, "table", &table)?;
    let codes = codes(gpu, operation, op, count, inputs.targets, &inputs.hash)?;
    let offsets = targets.offsets(gpu, operation)?;
    let params = Params::default()
        .u32s(&[op.width as u32, op.groups as u32, op.buckets() as u32, jagged.users() as u32])
        .u32s(&[table.base, codes.binding.base, out.binding.base, u32::from(op.normalise), 0]);
    let bindings = [&offsets, &table, &codes.binding, &out.binding];
    gpu.dispatch(&query_kernel(false, codes.bits), params, &bindings, count as u64)?;
    gpu.finish(out)
}

fn hash_buffer<'a>(hash: &Hash<'a, WgpuMemory>) -> &'a wgpu::Buffer {
    match hash {
        Hash::Rotations(view) => Region::of(*view).buffer,
        Hash::Signatures8(view) => Region::of(*view).buffer,
        Hash::Signatures16(view) => Region::of(*view).buffer,
    }
}

pub(super) fn attend<T: Element>(
    gpu: &Wgpu,
    op: &Sdim,
    batch: &WgpuBatch,
    inputs: &SdimAttendInputs<'_, WgpuMemory, T>,
    out: ViewMut<'_, WgpuMemory, T>,
) -> Result<()> {
    const NAME: &str = "sdim_attend";
    let (histories, targets) = (batch.as_ref().histories(), batch.as_ref().targets());
    op.check_attend(batch.as_ref(), inputs)?;
    op.check_output(NAME, targets, out.len())?;
    let count = targets.total();
    if count == 0 {
        return Ok(());
    }
    // Where the tables are small beside the histories, making them costs less than matching every behaviour with
    // every candidate.
    let table_length = op.table_length(targets.users())?;
    if op.buckets() * targets.users() <= histories.total() && table_length <= PARTIAL_BYTES / 4 {
        let mut table = gpu.zeroed::<f32>(NAME, table_length)?;
        let [histories, targets] = batch.sides()?;
        encode(gpu, NAME, op, histories, &inputs.encode(), ViewMut::new(&mut table), false)?;
        let inputs =
            SdimQueryInputs { table: View::new(&table), targets: inputs.targets, hash: inputs.target_hash };
        return query(gpu, NAME, op, targets, &inputs, out);
    }
    let rows = Region::of(inputs.history);
    let window = rows_per_binding::<T>(gpu, op.width);
    let size = op.groups * op.width;
    let wanted = PIECES.min(PARTIAL_BYTES / (size * 4)).max(1);
    let cut = Cut { rows_per_target: 1, tile_rows: 1, step: 64, wanted, longest: window };
    let plan = batch.plan(gpu, NAME, &cut)?;
    let out = gpu.output(NAME, "out", &out, count * op.width, &[])?;
    let total = histories.total();
    let history = codes(gpu, NAME, op, total, Some(inputs.history), &inputs.history_hash)?;
    let wished = codes(gpu, NAME, op, count, inputs.targets, &inputs.target_hash)?;
    let sums_length = (plan.plan.slots + plan.plan.tiles.len()) * size;
    fit(NAME, "sums of the candidates", sums_length)?;
    let sums = gpu.scratch(NAME, sums_length as u64)?;
    let groups_a_piece = op.width.div_ceil(64) * op.groups.div_ceil(32);
    let kernel = attend_kernel(Format::of::<T>(false), history.bits, wished.bits);
    let first_whole = plan.plan.slots as u32;
    for (pieces, span) in plan.plan.windows(window) {
        let rows = gpu.bind(NAME, "rows", &rows.rows(span.start, span.len(), op.width))?;
        let codes_base = history.binding.base + (span.start * op.groups) as u32;
        let params = Params::default()
            .u32s(&[pieces.start as u32, span.start as u32, op.width as u32, op.groups as u32])
            .u32s(&[rows.base, codes_base, wished.binding.base, first_whole]);
        let bindings = [&plan.pieces, &rows, &history.binding, &wished.binding, &sums];
        gpu.dispatch(&kernel, params, &bindings, (pieces.len() * groups_a_piece) as u64)?;
    }
    let params = Params::default()
        .u32s(&[op.width as u32, op.groups as u32, op.buckets() as u32, targets.users() as u32])
        .u32s(&[0, 0, out.binding.base, u32::from(op.normalise), first_whole]);
    let nothing = gpu.nothing();
    let bindings = [&plan.tiles, &sums, &nothing, &out.binding];
    gpu.dispatch(&query_kernel(true, 32), params, &bindings, plan.plan.tiles.len() as u64)?;
    gpu.finish(out)
}
