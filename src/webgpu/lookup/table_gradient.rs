//! The sums of rows of `grad_out` by id that are the gradient of one table.

use crate::error::Result;
use crate::gpu::{fit, head_levels};
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{THREADS, groups_of};
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

params! {
    /// Twin of the struct in shaders/lookup/gradient_heads.wgsl.
    struct GradientHeadsParams {
        threads: u32,
        starts_base: u32,
        width: u32,
        windows: u32,
        level: u32,
    }
}

params! {
    /// Twin of the struct in shaders/lookup/gradient_long_runs.wgsl.
    struct GradientLongRunsParams {
        threads: u32,
        ids_base: u32,
        starts_base: u32,
        out_base: u32,
        width: u32,
        dense: u32,
        windows: u32,
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
        sources: &[
            include_str!("../../../shaders/lookup/gradient_runs.wgsl"),
            include_str!("../../../shaders/lookup/gradient_windows.wgsl"),
        ],
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

fn heads_kernel() -> Kernel {
    Kernel {
        name: "lookup/gradient_heads",
        params: &GradientHeadsParams::BLOCK,
        threads: THREADS,
        sources: &[
            include_str!("../../../shaders/lookup/gradient_runs.wgsl"),
            include_str!("../../../shaders/lookup/gradient_heads.wgsl"),
        ],
        constants: vec![],
        slots: vec![Slot::plain("live", "u32"), Slot::plain("starts", "u32"), Slot::write("heads", "f32")],
    }
}

fn long_runs_kernel() -> Kernel {
    Kernel {
        name: "lookup/gradient_long_runs",
        params: &GradientLongRunsParams::BLOCK,
        threads: THREADS,
        sources: &[
            include_str!("../../../shaders/lookup/gradient_runs.wgsl"),
            include_str!("../../../shaders/lookup/gradient_long_runs.wgsl"),
        ],
        constants: vec![],
        slots: vec![
            Slot::plain("live", "u32"),
            Slot::plain("ids", "u32"),
            Slot::plain("starts", "u32"),
            Slot::plain("heads", "f32"),
            Slot::write("out", "f32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let windows = [true, false].map(|vectors| windows_kernel(Format::f32(vectors)));
    let others = [ids_kernel(), heads_kernel(), long_runs_kernel()];
    windows.into_iter().chain(others).collect()
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

/// Ids in order that kernels read.
#[derive(Debug, Clone)]
pub(in crate::webgpu) struct Runs {
    pub(in crate::webgpu) sorted: SortedBindings,
    /// How many ids count.
    pub(in crate::webgpu) live: Binding,
    /// The most ids and positions that there may be.
    pub(in crate::webgpu) ids: usize,
    pub(in crate::webgpu) places: usize,
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

    /// Words of the partial results for so many positions.
    fn head_words(&self, places: usize) -> usize {
        head_levels(places)
            .iter()
            .fold(0, |nodes, level| level.nodes.saturating_add(nodes))
            .saturating_mul(self.width)
    }

    /// Checks that the device counts and holds what [`run`](Self::run) needs for so many positions.
    pub(in crate::webgpu) fn check_room(&self, gpu: &Wgpu, places: usize) -> Result<()> {
        // Kernels count up to the end of the last workgroup.
        fit(self.operation, "sorted", places.saturating_add(1 << 15))?;
        fit(self.operation, "grad_out", (self.grad.size / 4) as usize)?;
        let words = if self.length > 0 { self.head_words(places) } else { 0 };
        fit(self.operation, "partial results", words.saturating_add(1 << 15))?;
        gpu.scratch_size(self.operation, words as u64).map(|_| ())
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
        let levels = head_levels(runs.places);
        let heads = gpu.scratch(operation, self.head_words(runs.places) as u64)?;
        let whole = [grad_width, first_column, width].iter().all(|columns| columns.is_multiple_of(4));
        let kernel = windows_kernel(Format::f32(whole && grad.base.is_multiple_of(4)));
        let nothing = gpu.nothing();
        let bindings = [live, ids, starts, positions, bags.unwrap_or(&nothing), grad, out, &heads];
        let (windows, dense) = (levels[0].nodes, u32::from(dense));
        let threads = windows * width.div_ceil(4);
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
            dense,
            has_bags: u32::from(bags.is_some()),
        };
        gpu.dispatch(operation, &kernel, &params, &bindings, groups_of(threads))?;
        for (level, next) in levels[1..].iter().enumerate() {
            let threads = next.nodes * width;
            let params = GradientHeadsParams {
                threads: threads as u32,
                starts_base: starts.base,
                width: width as u32,
                windows: windows as u32,
                level: level as u32,
            };
            gpu.dispatch(operation, &heads_kernel(), &params, &[live, starts, &heads], groups_of(threads))?;
        }
        let threads = (windows - 1) * width;
        let params = GradientLongRunsParams {
            threads: threads as u32,
            ids_base: ids.base,
            starts_base: starts.base,
            out_base: out.base,
            width: width as u32,
            dense,
            windows: windows as u32,
        };
        let bindings = [live, ids, starts, &heads, out];
        gpu.dispatch(operation, &long_runs_kernel(), &params, &bindings, groups_of(threads))
    }
}
