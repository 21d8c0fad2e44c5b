//! The gradient of the table of positions: sums of rows' gradients by position, as those of look-ups by id.

use std::ops::Range;

use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::memory::ViewMut;
use crate::ops::Tin;
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::lookup::backward::sorted_runs;
use crate::webgpu::lookup::sort::{IdList, Sort};
use crate::webgpu::lookup::table_gradient::Job;
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Kernel, Slot};
use crate::webgpu::state::Wgpu;
use crate::webgpu::tin::rows::Product;

params! {
    /// Twin of the struct in shaders/tin/count_positions.wgsl.
    struct TinCountPositionsParams {
        threads: u32,
        first_row: u32,
        bags: u32,
        last_position: u32,
    }
}

fn count_kernel() -> Kernel {
    Kernel {
        name: "tin/count_positions",
        params: &TinCountPositionsParams::BLOCK,
        threads: THREADS,
        sources: &[
            include_str!("../../../shaders/lookup/bag_of.wgsl"),
            include_str!("../../../shaders/tin/count_positions.wgsl"),
        ],
        constants: vec![],
        slots: vec![Slot::plain("offsets", "u32"), Slot::write("out", "u32")],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    vec![count_kernel()]
}

/// The positions of behaviours.
pub(super) enum HistoryPositions<'a> {
    Given(Region<'a, u32>),
    /// Counted from the newest; edges between which the histories are, and the number of what is between them.
    Counted(Binding, usize),
}

/// The sums by position so far.
pub(super) struct PositionSums<'a> {
    gpu: &'a Wgpu,
    operation: &'static str,
    op: &'a Tin,
    history: HistoryPositions<'a>,
    job: Job,
    is_empty: bool,
}

impl<'a> PositionSums<'a> {
    /// Zeros in `out`. No kernel that writes it also reads one of `read`.
    pub(super) fn new<G: Element>(
        gpu: &'a Wgpu,
        operation: &'static str,
        op: &'a Tin,
        history: HistoryPositions<'a>,
        out: &ViewMut<'_, WgpuMemory, G>,
        read: &[&wgpu::Buffer],
    ) -> Result<Self> {
        let length = op.positions * op.width;
        let rows = gpu.output(operation, "grads.positions", out, length, read, &[])?;
        gpu.clear(operation, &rows.binding, length);
        let job = Job {
            operation,
            grad: gpu.nothing(),
            grad_width: op.width,
            first_column: 0,
            width: op.width,
            length,
            rows,
            sparse: None,
        };
        Ok(Self { gpu, operation, op, history, job, is_empty: true })
    }

    /// Adds the gradients of the rows of a span of the histories.
    pub(super) fn add_behaviours(&mut self, span: &Range<usize>, grads: &Binding) -> Result<()> {
        let Self { gpu, operation, op, .. } = *self;
        let places = match &self.history {
            HistoryPositions::Given(given) => {
                gpu.bind(operation, "history_positions", &given.rows(span.start, span.len(), 1))?
            }
            HistoryPositions::Counted(offsets, users) => {
                let out = gpu.scratch(operation, span.len() as u64)?;
                let params = TinCountPositionsParams {
                    threads: span.len() as u32,
                    first_row: span.start as u32,
                    bags: fit(operation, "batch", *users)?,
                    last_position: (op.positions - 1) as u32,
                };
                gpu.dispatch(operation, &count_kernel(), &params, &[offsets, &out], groups_of(span.len()))?;
                out
            }
        };
        self.add(&places, span.len(), grads)
    }

    /// Adds the gradients of the rows of all candidates, whose positions are 0 where they are not given.
    pub(super) fn add_candidates(
        &mut self,
        places: Option<&Binding>,
        count: usize,
        grads: &Binding,
    ) -> Result<()> {
        let gpu = self.gpu;
        gpu.part(|| match places {
            Some(places) => self.add(places, count, grads),
            None => self.add(&gpu.scratch(self.operation, count as u64)?, count, grads),
        })
    }

    /// Adds `count` rows at their places.
    fn add(&mut self, places: &Binding, count: usize, grads: &Binding) -> Result<()> {
        let Self { gpu, operation, op, .. } = *self;
        if count == 0 {
            return Ok(());
        }
        self.job.grad = grads.clone();
        self.job.check_room(gpu, count)?;
        let sort = Sort::new(gpu, operation, count, op.positions)?;
        sort.load(&IdList { ids: places, features: 1, feature: 0, first: 0, length: count, report: None })?;
        let runs = sorted_runs(&sort, [count, op.positions])?;
        let (job, out) = (&self.job, &self.job.rows.binding);
        if self.is_empty {
            job.sums(gpu, &runs, None, (out, true))?;
        } else {
            let part = gpu.scratch(operation, job.length as u64)?;
            job.sums(gpu, &runs, None, (&part, true))?;
            let length = job.length;
            Product { first: &part, second: None, out, adds: true, length }
                .run::<f32, f32>(gpu, operation)?;
        }
        self.is_empty = false;
        Ok(())
    }

    pub(super) fn finish(self) -> Result<()> {
        self.job.finish(self.gpu)
    }
}
