//! Attention over the buckets: through tables if they are small, otherwise without.

use std::sync::Arc;

use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::memory::{View, ViewMut};
use crate::ops::{Change, Hash, Sdim, SdimAttendInputs, SdimQueryInputs};
use crate::plan::{Cut, Pace, Plan, Tile};
use crate::webgpu::batch::{DevicePlan, WgpuBatch};
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::THREADS;
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::pace::PACE;
use crate::webgpu::params::{Params, params};
use crate::webgpu::sdim::encode::{PARTIAL_BYTES, encode};
use crate::webgpu::sdim::loops::check_read;
use crate::webgpu::sdim::query::{query, query_sums};
use crate::webgpu::sdim::signatures::Codes;
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;
use crate::webgpu::sum_parts::{Mode, Rows};

const NAME: &str = "sdim_attend";

/// Behaviours of a piece that one dispatch adds: each may match all groups, and the iterations of a thread are limited.
const MOST: usize = 1024;

params! {
    /// Twin of the struct in shaders/sdim/attend.wgsl.
    struct SdimAttendParams {
        first_piece: u32,
        first_history: u32,
        width: u32,
        hash_groups: u32,
        rows_base: u32,
        codes_base: u32,
        target_codes_base: u32,
        first_whole: u32,
        skip: u32,
        most: u32,
    }
}

fn attend_kernel(rows: Format, bits: u32, target_bits: u32) -> Kernel {
    Kernel {
        name: "sdim/attend",
        params: &SdimAttendParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/sdim/attend.wgsl")],
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
    let mut kernels = Vec::new();
    for bits in [8, 16, 32] {
        for rows in Format::ALL.into_iter().filter(|format| !format.vectors) {
            kernels.extend([8, 16, 32].map(|target_bits| attend_kernel(rows, bits, target_bits)));
        }
    }
    kernels
}

pub(super) fn attend<T: Element>(
    gpu: &Wgpu,
    op: &Sdim,
    batch: &WgpuBatch,
    inputs: &SdimAttendInputs<'_, WgpuMemory, T>,
    out: ViewMut<'_, WgpuMemory, T>,
) -> Result<()> {
    let (histories, targets) = (batch.as_ref().histories(), batch.as_ref().targets());
    op.check_attend(NAME, batch.as_ref(), inputs)?;
    op.check_output(NAME, targets, out.len())?;
    check_read(NAME, op)?;
    let count = targets.total();
    batch.check_owner(gpu, NAME)?;
    if count == 0 {
        // Nobody reads the signatures of the behaviours; wrong ones are an error all the same.
        if !matches!(inputs.history_hash, Hash::Rotations(_)) {
            Codes::new(
                gpu,
                NAME,
                op,
                histories.total(),
                ("history", Some(inputs.history)),
                &inputs.history_hash,
            )?;
        }
        return Ok(());
    }
    // If the tables are small compared with the histories, filling them costs less than comparing every behaviour with every
    // candidate.
    let table_length = op.table_length(targets.users())?;
    if op.buckets() * targets.users() <= histories.total_length() && table_length <= PARTIAL_BYTES / 4 {
        let mut table = gpu.zeroed::<f32>(NAME, table_length)?;
        let [histories, targets] = batch.sides()?;
        encode(gpu, (NAME, Change::Encode), op, histories, &inputs.encode(), ViewMut::new(&mut table))?;
        let mut wanted = SdimQueryInputs::new(View::new(&table), inputs.target_hash);
        wanted.targets = inputs.targets;
        return query(gpu, NAME, op, targets, &wanted, out);
    }
    let out = gpu.output(NAME, "out", &out, count * op.width, &[], &[])?;
    let (behaviours, history) = (histories.total(), inputs.history);
    let codes = Codes::new(gpu, NAME, op, behaviours, ("history", Some(history)), &inputs.history_hash)?;
    let target_codes = Codes::new(gpu, NAME, op, count, ("targets", inputs.targets), &inputs.target_hash)?;
    let sums = sum_buckets(gpu, NAME, op, batch, Region::of(history), [&codes, &target_codes])?;
    query_sums(gpu, NAME, op, &sums.plan, targets.users(), &sums.binding, &out.binding)?;
    gpu.finish(out)
}

/// The bucket sums that candidates read, `[candidates, G, d]`, and the plan by which they were added up.
pub(super) struct BucketSums {
    pub(super) plan: Arc<DevicePlan>,
    pub(super) binding: Binding,
}

/// How the histories are cut for [`sum_buckets`], and the numbers of its partial and whole sums, which share a binding.
///
/// # Errors
/// [`Limit`](crate::Error::Limit) if no binding holds them.
fn sums_plan<T: Element>(
    gpu: &Wgpu,
    operation: &'static str,
    op: &Sdim,
    batch: &WgpuBatch,
) -> Result<(Arc<DevicePlan>, u64)> {
    let size = op.groups * op.width;
    // A cut has at most so many partial sums, and one more for each candidate; where one piece runs at a time, none.
    let candidates = batch.as_ref().targets().total();
    let room = gpu.largest_scratch() / (size as u64 * 4);
    let room = (room as usize).saturating_sub(candidates.saturating_mul(2));
    let pace = Pace { combine: 0, ..PACE.within(PACE.resident, room.min(PARTIAL_BYTES / (size * 4))) };
    let longest = gpu.rows_per_binding::<T>(op.width);
    let cut = Cut { rows_per_target: 1, tile_rows: 1, step: 64, longest, pace };
    let plan = batch.plan(gpu, operation, &cut)?;
    let length = (plan.plan.slots + plan.plan.tiles.len()).saturating_mul(size);
    let length = fit(operation, "sums of the candidates", length)?.into();
    gpu.scratch_size(operation, length)?;
    Ok((plan, length))
}

/// Adds up the rows of the buckets that candidates read, by the signatures of behaviours and of candidates.
pub(super) fn sum_buckets<T: Element>(
    gpu: &Wgpu,
    operation: &'static str,
    op: &Sdim,
    batch: &WgpuBatch,
    rows: Region<'_, T>,
    [codes, target_codes]: [&Codes; 2],
) -> Result<BucketSums> {
    let window = gpu.rows_per_binding::<T>(op.width);
    let (plan, length) = sums_plan::<T>(gpu, operation, op, batch)?;
    let sums = gpu.scratch(operation, length)?;
    let groups_per_piece = op.width.div_ceil(64) * op.groups.div_ceil(32);
    let kernel = attend_kernel(Format::of::<T>(false), codes.bits, target_codes.bits);
    for (pieces, span) in plan.plan.windows(window) {
        let rows = gpu.bind(operation, "history", &rows.rows(span.start, span.len(), op.width))?;
        let params = SdimAttendParams {
            first_piece: pieces.start as u32,
            first_history: span.start as u32,
            width: op.width as u32,
            hash_groups: op.groups as u32,
            rows_base: rows.base,
            codes_base: codes.binding.base + (span.start * op.groups) as u32,
            target_codes_base: target_codes.binding.base,
            first_whole: plan.plan.slots as u32,
            skip: 0,
            most: MOST as u32,
        };
        let bindings = [&plan.pieces, &rows, &codes.binding, &target_codes.binding, &sums];
        let groups = (pieces.len() * groups_per_piece) as u64;
        let longest = plan.plan.pieces[pieces].iter().map(|piece| piece.history.len()).max().unwrap_or(0);
        for skip in (0..longest.max(1)).step_by(MOST) {
            let params = SdimAttendParams { skip: skip as u32, ..params };
            gpu.dispatch(operation, &kernel, &params, &bindings, groups)?;
        }
    }
    let binding = add_pieces(gpu, operation, op, &plan.plan, &sums)?;
    Ok(BucketSums { plan, binding })
}

/// The bucket sums of each candidate, of all its pieces. There is one tile per candidate.
fn add_pieces(
    gpu: &Wgpu,
    operation: &'static str,
    op: &Sdim,
    plan: &Plan,
    sums: &Binding,
) -> Result<Binding> {
    if plan.slots == 0 {
        return Ok(sums.clone());
    }
    let range = |(index, tile): (usize, &Tile)| match tile.slots {
        0 => [plan.slots + index, plan.slots + index + 1],
        slots => [tile.first_slot, tile.first_slot + slots],
    };
    let ranges: Vec<u32> = plan.tiles.iter().enumerate().flat_map(range).map(|part| part as u32).collect();
    let (rows, width) = (plan.tiles.len(), op.groups * op.width);
    let out = gpu.scratch(operation, (rows * width) as u64)?;
    let all = Rows { out: &out, rows, width, out_width: width, first_column: 0 };
    all.sum_parts(gpu, operation, &gpu.list(operation, &ranges)?, sums, Mode::Sum)?;
    Ok(out)
}
