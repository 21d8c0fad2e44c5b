//! The sums of rows of `grad_out` by id that are the gradient of one table.

use crate::error::Result;
use crate::gpu::fit;
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::lookup::runs::{self, Heads, RUNS, Runs, WINDOW_SUMS};
use crate::webgpu::lookup::sort::{SortedBindings, written};
use crate::webgpu::output::Output;
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;

params! {
    /// Twin of the struct in shaders/lookup/gradient_ids.wgsl.
    struct GradientIdsParams {
        ids_base: u32,
        out_ids_base: u32,
        out_count_base: u32,
    }
}

params! {
    /// Twin of the struct in shaders/lookup/gradient_windows.wgsl.
    struct GradientWindowsParams {
        threads: u32,
        ids_base: u32,
        starts_base: u32,
        positions_base: u32,
        grad_base: u32,
        out_base: u32,
        grad_width: u32,
        first_column: u32,
        width: u32,
        dense: u32,
        has_bags: u32,
    }
}

fn ids_kernel() -> Kernel {
    Kernel {
        name: "lookup/gradient_ids",
        params: &GradientIdsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/lookup/gradient_ids.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("live", "u32"),
            Slot::plain("ids", "u32"),
            Slot::write("out_ids", "u32"),
            Slot::write("out_count", "u32"),
        ],
    }
}

fn windows_kernel(grad: Format) -> Kernel {
    Kernel {
        name: "lookup/gradient_windows",
        params: &GradientWindowsParams::BLOCK,
        threads: THREADS,
        sources: &[RUNS, include_str!("../../../shaders/lookup/gradient_windows.wgsl"), WINDOW_SUMS],
        constants: vec![],
        slots: vec![
            Slot::plain("live", "u32"),
            Slot::plain("ids", "u32"),
            Slot::plain("starts", "u32"),
            Slot::plain("positions", "u32"),
            Slot::plain("bags", "vec2<u32>"),
            Slot::read("grad", grad),
            Slot::write("out", "f32"),
            Slot::write("heads", "f32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let windows = [true, false].map(|vectors| windows_kernel(Format::f32(vectors)));
    windows.into_iter().chain([ids_kernel()]).chain(runs::variants()).collect()
}

/// Where the gradient of a table goes, and what it is a sum of.
pub(in crate::webgpu) struct Job {
    pub(in crate::webgpu) operation: &'static str,
    pub(in crate::webgpu) grad: Binding,
    pub(in crate::webgpu) grad_width: usize,
    pub(in crate::webgpu) first_column: usize,
    pub(in crate::webgpu) width: usize,
    /// Numbers of the rows.
    pub(in crate::webgpu) length: usize,
    pub(in crate::webgpu) rows: Output,
    /// Ids and count of a sparse gradient, and its capacity; `None` of a dense one.
    pub(in crate::webgpu) sparse: Option<(Output, Output, usize)>,
}

impl Job {
    /// Sums the rows of the gradient that comes in by id.
    pub(super) fn run(self, gpu: &Wgpu, runs: &Runs, bags: Option<&Binding>) -> Result<()> {
        self.begin(gpu, runs)?;
        self.sums(gpu, runs, bags, (&self.rows.binding, self.sparse.is_none()))?;
        self.finish(gpu)
    }

    /// Writes the ids of a sparse gradient, or clears a dense one.
    pub(in crate::webgpu) fn begin(&self, gpu: &Wgpu, runs: &Runs) -> Result<()> {
        let operation = self.operation;
        let (ids, live) = (&runs.sorted.ids, &runs.live);
        gpu.fetch(&self.rows);
        if let Some((out_ids, out_count, capacity)) = &self.sparse {
            gpu.fetch(out_ids);
            let out_ids = written(gpu, operation, out_ids, *capacity)?;
            let out_count = &out_count.binding;
            let params = GradientIdsParams {
                ids_base: ids.base,
                out_ids_base: out_ids.base,
                out_count_base: out_count.base,
            };
            let groups = groups_of(runs.ids).max(1);
            gpu.dispatch(operation, &ids_kernel(), &params, &[live, ids, &out_ids, out_count], groups)?;
        } else if self.length > 0 {
            gpu.clear(operation, &self.rows.binding, self.length);
        }
        Ok(())
    }

    /// Ends the outputs.
    pub(in crate::webgpu) fn finish(self, gpu: &Wgpu) -> Result<()> {
        gpu.finish(self.rows)?;
        if let Some((ids, count, _)) = self.sparse {
            gpu.finish(ids)?;
            gpu.finish(count)?;
        }
        Ok(())
    }

    /// Checks that the device counts and holds what [`run`](Self::run) needs for so many positions.
    pub(in crate::webgpu) fn check_room(&self, gpu: &Wgpu, places: usize) -> Result<()> {
        // Kernels count up to the end of the last workgroup.
        fit(self.operation, "sorted", places.saturating_add(1 << 15))?;
        fit(self.operation, "grad_out", (self.grad.size / 4) as usize)?;
        if self.length == 0 { Ok(()) } else { runs::check_room(gpu, self.operation, places, self.width) }
    }

    /// Sums by id, to rows of all ids of the table if `dense`, or else of the ids in order.
    pub(in crate::webgpu) fn sums(
        &self,
        gpu: &Wgpu,
        runs: &Runs,
        bags: Option<&Binding>,
        (out, dense): (&Binding, bool),
    ) -> Result<()> {
        if self.length == 0 {
            return Ok(());
        }
        let SortedBindings { ids, starts, positions, .. } = &runs.sorted;
        let live = &runs.live;
        let Self { operation, ref grad, grad_width, first_column, width, .. } = *self;
        let heads = Heads::new(gpu, operation, runs, width)?;
        let whole = [grad_width, first_column, width].iter().all(|columns| columns.is_multiple_of(4));
        let kernel = windows_kernel(Format::f32(whole && grad.base.is_multiple_of(4)));
        let nothing = gpu.nothing();
        let bindings = [live, ids, starts, positions, bags.unwrap_or(&nothing), grad, out, &heads.binding];
        let threads = heads.window_threads();
        let params = GradientWindowsParams {
            threads: threads as u32,
            ids_base: ids.base,
            starts_base: starts.base,
            positions_base: positions.base,
            grad_base: grad.base,
            out_base: out.base,
            grad_width: grad_width as u32,
            first_column: first_column as u32,
            width: width as u32,
            dense: u32::from(dense),
            has_bags: u32::from(bags.is_some()),
        };
        gpu.dispatch(operation, &kernel, &params, &bindings, groups_of(threads))?;
        heads.add_up(gpu, (out, dense))
    }
}
