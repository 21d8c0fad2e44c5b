//! The gradients of behaviours: gathered from those of their buckets, or from those that candidates have for shared ones.

use std::ops::Range;

use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::memory::ViewMut;
use crate::ops::Sdim;
use crate::webgpu::batch::WgpuJagged;
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::memory::WgpuMemory;
use crate::webgpu::params::{Params, params};
use crate::webgpu::sdim::signatures::Codes;
use crate::webgpu::shader::{Kernel, Slot};
use crate::webgpu::state::Wgpu;

/// Signatures that one dispatch of sdim/match.wgsl compares with a behaviour's: each may match, and the iterations of a thread
/// are limited. Whole blocks of 2048.
const MOST: usize = 26 * 2048;

params! {
    /// Twin of the struct in shaders/sdim/gather.wgsl.
    struct SdimGatherParams {
        threads: u32,
        first_row: u32,
        users: u32,
        width: u32,
        hash_groups: u32,
        buckets: u32,
        grads_base: u32,
        codes_base: u32,
        out_base: u32,
        weights_base: u32,
        weighted: u32,
    }
}

params! {
    /// Twin of the struct in shaders/sdim/match.wgsl.
    struct SdimMatchParams {
        first_row: u32,
        users: u32,
        width: u32,
        hash_groups: u32,
        codes_base: u32,
        target_codes_base: u32,
        out_base: u32,
        skip: u32,
        most: u32,
    }
}

fn gather_kernel(bits: u32) -> Kernel {
    Kernel {
        name: "sdim/gather",
        params: &SdimGatherParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/sdim/gather.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("offsets", "u32"),
            Slot::plain("grads", "f32"),
            Slot::words("codes", bits),
            Slot::plain("weights", "f32"),
            Slot::write("out", "f32"),
        ],
    }
}

fn match_kernel(bits: u32, target_bits: u32) -> Kernel {
    Kernel {
        name: "sdim/match",
        params: &SdimMatchParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/sdim/match.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("offsets", "u32"),
            Slot::plain("target_offsets", "u32"),
            Slot::words("codes", bits),
            Slot::words("target_codes", target_bits),
            Slot::plain("grads", "f32"),
            Slot::write("out", "f32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let matches = |bits| [8, 16, 32].map(|target_bits| match_kernel(bits, target_bits));
    [8, 16, 32].into_iter().flat_map(|bits| [gather_kernel(bits)].into_iter().chain(matches(bits))).collect()
}

/// Consecutive rows of histories.
struct Run {
    rows: Range<usize>,
    users: Range<usize>,
    /// Where each of the users' rows begin, and where the last end.
    offsets: Binding,
    /// Whether these are all users.
    is_all: bool,
}

/// The offsets of one user's rows.
fn list(gpu: &Wgpu, operation: &'static str, rows: &Range<usize>) -> Result<Binding> {
    gpu.list(operation, &[fit(operation, "rows", rows.start)?, fit(operation, "rows", rows.end)?])
}

/// The behaviours whose gradients are written.
pub(super) struct Behaviours<'a> {
    pub(super) gpu: &'a Wgpu,
    pub(super) operation: &'static str,
    pub(super) op: &'a Sdim,
    pub(super) histories: &'a WgpuJagged,
    pub(super) codes: &'a Codes,
    pub(super) weights: Option<&'a Binding>,
    /// What the caller's buffers are read of while gradients are written.
    pub(super) read: &'a [&'a wgpu::Buffer],
}

impl Behaviours<'_> {
    /// Adds up the gradients of the buckets of each behaviour, from those of whole tables, times its weight if it has one.
    pub(super) fn gather<G: Element>(
        &self,
        grads: &Binding,
        grad_history: &mut ViewMut<'_, WgpuMemory, G>,
    ) -> Result<()> {
        let Self { gpu, operation, op, codes, weights, .. } = *self;
        let nothing = gpu.nothing();
        let bound_weights = weights.unwrap_or(&nothing);
        let table = op.groups * op.buckets() * op.width;
        self.write(grad_history, |run, first, rows, out| {
            let params = SdimGatherParams {
                threads: fit(operation, "grad_history", rows * op.width)?,
                first_row: first as u32,
                users: run.users.len() as u32,
                width: op.width as u32,
                hash_groups: op.groups as u32,
                buckets: op.buckets() as u32,
                grads_base: grads.base + (run.users.start * table) as u32,
                codes_base: codes.binding.base,
                out_base: out.base,
                weights_base: bound_weights.base,
                weighted: u32::from(weights.is_some()),
            };
            let bindings = [&run.offsets, grads, &codes.binding, bound_weights, out];
            let groups = groups_of(rows * op.width);
            gpu.dispatch(operation, &gather_kernel(codes.bits), &params, &bindings, groups)
        })
    }

    /// Adds up the gradients `[candidates, G, d]` of the candidates that share a bucket with each behaviour.
    pub(super) fn add_matches<G: Element>(
        &self,
        (targets, target_codes): (&WgpuJagged, &Codes),
        grads: &Binding,
        grad_history: &mut ViewMut<'_, WgpuMemory, G>,
    ) -> Result<()> {
        let Self { gpu, operation, op, codes, .. } = *self;
        let kernel = match_kernel(codes.bits, target_codes.bits);
        let longest = targets.as_ref().max_length() * op.groups;
        self.write(grad_history, |run, first, rows, out| {
            let target_offsets = match run.is_all {
                true => targets.offsets(gpu, operation, "targets")?,
                false => list(gpu, operation, &targets.as_ref().range(run.users.start))?,
            };
            for skip in (0..longest.max(1)).step_by(MOST) {
                let params = SdimMatchParams {
                    first_row: first as u32,
                    users: run.users.len() as u32,
                    width: op.width as u32,
                    hash_groups: op.groups as u32,
                    codes_base: codes.binding.base,
                    target_codes_base: target_codes.binding.base,
                    out_base: out.base,
                    skip: skip as u32,
                    most: MOST as u32,
                };
                let bindings =
                    [&run.offsets, &target_offsets, &codes.binding, &target_codes.binding, grads, out];
                let groups = (rows * op.width.div_ceil(64)) as u64;
                gpu.dispatch(operation, &kernel, &params, &bindings, groups)?;
            }
            Ok(())
        })
    }

    /// Calls `pass(run, first, rows, out)` for as many rows at a time as the device binds.
    fn write<G: Element>(
        &self,
        grad_history: &mut ViewMut<'_, WgpuMemory, G>,
        pass: impl Fn(&Run, usize, usize, &Binding) -> Result<()>,
    ) -> Result<()> {
        let (gpu, width) = (self.gpu, self.op.width);
        // Where not even one row fits a binding, the binding of one is the error.
        let window = gpu.rows_per_binding::<f32>(width).max(1);
        for run in self.runs()? {
            for first in run.rows.clone().step_by(window) {
                let rows = window.min(run.rows.end - first);
                let view = grad_history.reborrow().slice(first * width, rows * width)?;
                let out = gpu.output(self.operation, "grad_history", &view, rows * width, self.read, &[])?;
                pass(&run, first, rows, &out.binding)?;
                gpu.finish(out)?;
            }
        }
        Ok(())
    }

    /// All rows, whose users kernels find by offsets; of sub-ranges those of each user.
    fn runs(&self) -> Result<Vec<Run>> {
        let Self { gpu, operation, histories, .. } = *self;
        let jagged = histories.as_ref();
        if jagged.offsets().is_some() {
            let offsets = histories.offsets(gpu, operation, "histories")?;
            return Ok(vec![Run {
                rows: 0..jagged.total(),
                users: 0..jagged.users(),
                offsets,
                is_all: true,
            }]);
        }
        let own = jagged.ranges().enumerate().filter(|(_, rows)| !rows.is_empty());
        own.map(|(user, rows)| {
            let offsets = list(gpu, operation, &rows)?;
            Ok(Run { rows, users: user..user + 1, offsets, is_all: false })
        })
        .collect()
    }
}
