//! Runs of ids in order, and the heads of windows: what a run that leaves its first window adds up to in the windows after it.

use crate::error::Result;
use crate::gpu::{fit, head_levels};
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::lookup::sort::SortedBindings;
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Kernel, Slot};
use crate::webgpu::state::Wgpu;

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

/// Sources of kernels that go over runs, and of sums by windows.
pub(in crate::webgpu) const RUNS: &str = include_str!("../../../shaders/lookup/gradient_runs.wgsl");
pub(in crate::webgpu) const WINDOW_SUMS: &str = include_str!("../../../shaders/lookup/window_sums.wgsl");

fn heads_kernel() -> Kernel {
    Kernel {
        name: "lookup/gradient_heads",
        params: &GradientHeadsParams::BLOCK,
        threads: THREADS,
        sources: &[RUNS, include_str!("../../../shaders/lookup/gradient_heads.wgsl")],
        constants: vec![],
        slots: vec![Slot::plain("live", "u32"), Slot::plain("starts", "u32"), Slot::write("heads", "f32")],
    }
}

fn long_runs_kernel() -> Kernel {
    Kernel {
        name: "lookup/gradient_long_runs",
        params: &GradientLongRunsParams::BLOCK,
        threads: THREADS,
        sources: &[RUNS, include_str!("../../../shaders/lookup/gradient_long_runs.wgsl")],
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
    vec![heads_kernel(), long_runs_kernel()]
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

/// Words of the heads of so many positions.
fn words(places: usize, width: usize) -> usize {
    let nodes = head_levels(places).iter().fold(0, |nodes, level| level.nodes.saturating_add(nodes));
    nodes.saturating_mul(width)
}

/// Checks that the device counts and holds the heads of so many positions.
pub(in crate::webgpu) fn check_room(
    gpu: &Wgpu,
    operation: &'static str,
    places: usize,
    width: usize,
) -> Result<()> {
    // Kernels count up to the end of the last workgroup.
    fit(operation, "partial results", words(places, width).saturating_add(1 << 15))?;
    gpu.scratch_size(operation, words(places, width) as u64).map(|_| ())
}

/// The heads of sums of rows of `width` numbers by run.
pub(in crate::webgpu) struct Heads<'a> {
    operation: &'static str,
    runs: &'a Runs,
    width: usize,
    /// What the kernel of the windows writes first.
    pub(in crate::webgpu) binding: Binding,
}

impl<'a> Heads<'a> {
    pub(in crate::webgpu) fn new(
        gpu: &Wgpu,
        operation: &'static str,
        runs: &'a Runs,
        width: usize,
    ) -> Result<Self> {
        let binding = gpu.scratch(operation, words(runs.places, width) as u64)?;
        Ok(Self { operation, runs, width, binding })
    }

    /// Threads of the kernel of the windows, each of which takes four columns.
    pub(in crate::webgpu) fn window_threads(&self) -> usize {
        head_levels(self.runs.places)[0].nodes * self.width.div_ceil(4)
    }

    /// Adds the heads to the rows of all ids of the table if `dense`, or else of the ids in order.
    pub(in crate::webgpu) fn add_up(&self, gpu: &Wgpu, (out, dense): (&Binding, bool)) -> Result<()> {
        let Self { operation, width, .. } = *self;
        let SortedBindings { ids, starts, .. } = &self.runs.sorted;
        let (live, heads, levels) = (&self.runs.live, &self.binding, head_levels(self.runs.places));
        let windows = levels[0].nodes;
        for (level, next) in levels[1..].iter().enumerate() {
            let threads = next.nodes * width;
            let params = GradientHeadsParams {
                threads: threads as u32,
                starts_base: starts.base,
                width: width as u32,
                windows: windows as u32,
                level: level as u32,
            };
            gpu.dispatch(operation, &heads_kernel(), &params, &[live, starts, heads], groups_of(threads))?;
        }
        let threads = (windows - 1) * width;
        let params = GradientLongRunsParams {
            threads: threads as u32,
            ids_base: ids.base,
            starts_base: starts.base,
            out_base: out.base,
            width: width as u32,
            dense: u32::from(dense),
            windows: windows as u32,
        };
        let bindings = [live, ids, starts, heads, out];
        gpu.dispatch(operation, &long_runs_kernel(), &params, &bindings, groups_of(threads))
    }
}
