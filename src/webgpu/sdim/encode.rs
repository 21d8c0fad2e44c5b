//! Fills bucket tables, and changes them by behaviours.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::{check_encode, fit};
use crate::jagged::Jagged;
use crate::memory::ViewMut;
use crate::ops::{Change, Sdim, SdimEncodeInputs};
use crate::plan::{Cut, Pace};
use crate::webgpu::batch::{DevicePlan, WgpuJagged};
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{MOST_ITERATIONS, THREADS, groups_of};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::pace::PACE;
use crate::webgpu::params::{Params, params};
use crate::webgpu::sdim::signatures::{Codes, hash_buffers};
use crate::webgpu::sdim::tables::in_place;
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;

/// Bucket rows of 64 columns that fit the workgroup memory of sdim/encode.wgsl.
const ROWS_IN_WORKGROUP: usize = 48;
/// Behaviours whose sum is taken before it is added to the others, as in sdim/encode.wgsl.
const PART: usize = 256;
/// Bytes that partial tables may occupy: a small part of a GPU's memory.
pub(super) const PARTIAL_BYTES: usize = 64 << 20;

params! {
    /// Twin of the struct in shaders/sdim/encode.wgsl.
    struct SdimEncodeParams {
        first_piece: u32,
        first_history: u32,
        width: u32,
        hash_groups: u32,
        buckets: u32,
        group_tile: u32,
        rows_base: u32,
        codes_base: u32,
        table_base: u32,
        append: u32,
        skip: u32,
        most: u32,
        weights_base: u32,
        weighted: u32,
        subtract: u32,
    }
}

params! {
    /// Twin of the struct in shaders/sdim/clear_tables.wgsl.
    struct SdimClearTablesParams {
        threads: u32,
        size: u32,
        table_base: u32,
    }
}

params! {
    /// Twin of the struct in shaders/sdim/combine_tables.wgsl.
    struct SdimCombineTablesParams {
        threads: u32,
        size: u32,
        table_base: u32,
        append: u32,
    }
}

fn encode_kernel(in_memory: bool, rows: Format, bits: u32) -> Kernel {
    Kernel {
        name: "sdim/encode",
        params: &SdimEncodeParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/sdim/encode.wgsl")],
        constants: vec![("IN_MEMORY", u32::from(in_memory))],
        slots: vec![
            Slot::plain("pieces", "vec4<u32>"),
            Slot::read("rows", rows),
            Slot::words("codes", bits),
            Slot::plain("weights", "f32"),
            Slot::write("table", "f32"),
            Slot::write("partial", "f32"),
        ],
    }
}

fn clear_kernel() -> Kernel {
    Kernel {
        name: "sdim/clear_tables",
        params: &SdimClearTablesParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/sdim/clear_tables.wgsl")],
        constants: vec![],
        slots: vec![Slot::plain("tiles", "vec4<u32>"), Slot::write("table", "f32")],
    }
}

fn combine_kernel() -> Kernel {
    Kernel {
        name: "sdim/combine_tables",
        params: &SdimCombineTablesParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/sdim/combine_tables.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("split_tiles", "vec4<u32>"),
            Slot::plain("partial", "f32"),
            Slot::write("table", "f32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let mut kernels = vec![clear_kernel(), combine_kernel()];
    for bits in [8, 16, 32] {
        for rows in Format::ALL.into_iter().filter(|format| !format.vectors) {
            kernels.extend([false, true].map(|in_memory| encode_kernel(in_memory, rows, bits)));
        }
    }
    kernels
}

pub(super) fn encode<T: Element>(
    gpu: &Wgpu,
    (operation, change): (&'static str, Change),
    op: &Sdim,
    histories: &WgpuJagged,
    inputs: &SdimEncodeInputs<'_, WgpuMemory, T>,
    table: ViewMut<'_, WgpuMemory, f32>,
) -> Result<()> {
    let jagged = histories.as_ref();
    if check_encode(operation, op, jagged, inputs, table.len())? == 0 {
        return Ok(());
    }
    histories.check_owner(gpu, operation, "histories")?;
    let rows = Region::of(inputs.history);
    let weights = inputs.weights.map(Region::of);
    let mut read = vec![rows.buffer];
    read.extend(hash_buffers(&inputs.hash));
    read.extend(weights.map(|weights| weights.buffer));
    let size = op.groups * op.buckets() * op.width;
    // Tables in other slots stay as they are.
    let keeps = change.appends() || jagged.slots().is_some();
    let mut table = in_place(gpu, operation, &table, size * jagged.slot_count(), &read, keeps)?;
    if let Some(slots) = jagged.slots() {
        table.uses_parts(slots, 4 * size as u64, change.appends());
    }
    let codes =
        Codes::new(gpu, operation, op, jagged.total(), ("history", Some(inputs.history)), &inputs.hash)?;
    add_up(gpu, operation, op, histories, ("history", rows, weights), &codes, (&table.binding, change))?;
    gpu.finish(table)
}

/// Adds up the rows of each bucket, times their weights if they have any, into tables: over what they hold, to it, or from it.
pub(super) fn add_up<T: Element>(
    gpu: &Wgpu,
    operation: &'static str,
    op: &Sdim,
    histories: &WgpuJagged,
    rows: WeightedRows<'_, T>,
    codes: &Codes,
    (table, change): (&Binding, Change),
) -> Result<()> {
    let size = op.groups * op.buckets() * op.width;
    let window = gpu.rows_per_binding::<T>(op.width);
    let cut = Cut {
        rows_per_target: 1,
        tile_rows: 1,
        // Every piece has a table of its own: it should be longer than the cost of combining it.
        step: op.buckets().div_ceil(2).clamp(64, window.max(64)),
        longest: window,
        pace: Pace { fewest_steps: 4, ..PACE.within(PACE.resident, PARTIAL_BYTES / (size * 4)) },
    };
    let plan = histories.per_user.plan(gpu, operation, &cut)?;
    fit(operation, "table", size * histories.as_ref().slot_count())?;
    let partial = gpu.scratch(operation, (plan.plan.slots * size) as u64)?;
    let sums = Sums { plan: &plan, window, table, partial: &partial, change };
    if op.buckets() > ROWS_IN_WORKGROUP && !change.appends() {
        clear(gpu, operation, histories.as_ref(), &sums, size)?;
    }
    add_rows(gpu, operation, op, rows, codes, &sums)?;
    let params = SdimCombineTablesParams {
        threads: fit(operation, "table", plan.split_count * size)?,
        size: size as u32,
        table_base: table.base,
        append: u32::from(change.appends()),
    };
    let bindings = [&plan.split_tiles, &partial, table];
    gpu.dispatch(operation, &combine_kernel(), &params, &bindings, groups_of(plan.split_count * size))
}

/// What the call names the rows, the rows, and their weights if they have any.
pub(super) type WeightedRows<'a, T> = (&'static str, Region<'a, T>, Option<Region<'a, f32>>);

/// Where bucket sums are written.
struct Sums<'a> {
    plan: &'a DevicePlan,
    /// Rows of the histories that are bound at a time.
    window: usize,
    table: &'a Binding,
    partial: &'a Binding,
    change: Change,
}

/// Writes zeros to the tables of the histories, of `size` numbers each.
fn clear(
    gpu: &Wgpu,
    operation: &'static str,
    histories: &Jagged,
    sums: &Sums<'_>,
    size: usize,
) -> Result<()> {
    let Sums { plan, table, .. } = *sums;
    let length = size * histories.users();
    if histories.slots().is_none() {
        gpu.clear(operation, table, length);
        return Ok(());
    }
    let params = SdimClearTablesParams {
        threads: fit(operation, "table", length)?,
        size: size as u32,
        table_base: table.base,
    };
    gpu.dispatch(operation, &clear_kernel(), &params, &[&plan.tiles, table], groups_of(length))
}

/// Adds the rows of the histories to their buckets, in the table or in the partial tables.
fn add_rows<T: Element>(
    gpu: &Wgpu,
    operation: &'static str,
    op: &Sdim,
    (name, rows, weights): WeightedRows<'_, T>,
    codes: &Codes,
    sums: &Sums<'_>,
) -> Result<()> {
    let Sums { plan, window, table, partial, change } = *sums;
    let in_memory = op.buckets() > ROWS_IN_WORKGROUP;
    let group_tile = if in_memory { 1 } else { (ROWS_IN_WORKGROUP / op.buckets()).min(op.groups) };
    let groups_per_piece = op.width.div_ceil(64) * op.groups.div_ceil(group_tile);
    // Behaviours of a piece that one dispatch adds, in whole parts.
    let most = MOST_ITERATIONS / (group_tile + 2) / PART * PART;
    let kernel = encode_kernel(in_memory, Format::of::<T>(false), codes.bits);
    let nothing = gpu.nothing();
    for (pieces, span) in plan.plan.windows(window) {
        let rows = gpu.bind(operation, name, &rows.rows(span.start, span.len(), op.width))?;
        let weights = weights.map(|weights| weights.rows(span.start, span.len(), 1));
        let weights = weights.map(|weights| gpu.bind(operation, "weights", &weights)).transpose()?;
        let bound_weights = weights.as_ref().unwrap_or(&nothing);
        let params = SdimEncodeParams {
            first_piece: pieces.start as u32,
            first_history: span.start as u32,
            width: op.width as u32,
            hash_groups: op.groups as u32,
            buckets: op.buckets() as u32,
            group_tile: group_tile as u32,
            rows_base: rows.base,
            codes_base: codes.binding.base + (span.start * op.groups) as u32,
            table_base: table.base,
            append: u32::from(change.appends()),
            skip: 0,
            most: most as u32,
            weights_base: bound_weights.base,
            weighted: u32::from(weights.is_some()),
            subtract: u32::from(change.subtracts()),
        };
        let bindings = [&plan.pieces, &rows, &codes.binding, bound_weights, table, partial];
        let groups = (pieces.len() * groups_per_piece) as u64;
        let longest = plan.plan.pieces[pieces].iter().map(|piece| piece.history.len()).max().unwrap_or(0);
        for skip in (0..longest.max(1)).step_by(most) {
            let params = SdimEncodeParams { skip: skip as u32, ..params };
            gpu.dispatch(operation, &kernel, &params, &bindings, groups)?;
        }
    }
    Ok(())
}
