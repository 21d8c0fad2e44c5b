//! Rows of behaviours and candidates and the positions that are added to them, as kernels bind them.

use std::ops::Range;

use crate::element::Element;
use crate::error::Result;
use crate::gpu::fit;
use crate::jagged::Batch;
use crate::ops::{Tin, TinInputs};
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{MOST_STEPS_OF_ROW, THREADS, check_width, groups_of};
use crate::webgpu::memory::{Region, WgpuBuffer, WgpuMemory};
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;
use crate::webgpu::target_attention::added::{Added, Positions};

params! {
    /// Twin of the struct in shaders/tin/targets.wgsl.
    struct TinTargetsParams {
        threads: u32,
        width: u32,
        targets_base: u32,
        positions_base: u32,
        places_base: u32,
        has_places: u32,
        last_position: u32,
    }
}

params! {
    /// Twin of the struct in shaders/tin/multiply.wgsl.
    struct TinMultiplyParams {
        threads: u32,
        a_base: u32,
        b_base: u32,
        out_base: u32,
        multiplies: u32,
        adds: u32,
    }
}

fn targets_kernel(rows: Format) -> Kernel {
    Kernel {
        name: "tin/targets",
        params: &TinTargetsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/tin/targets.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::read("targets", rows),
            Slot::read("positions", rows),
            Slot::plain("places", "u32"),
            Slot::write("out", "f32"),
        ],
    }
}

fn multiply_kernel(a: Format, b: Format) -> Kernel {
    Kernel {
        name: "tin/multiply",
        params: &TinMultiplyParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/tin/multiply.wgsl")],
        constants: vec![],
        slots: vec![Slot::read("a", a), Slot::read("b", b), Slot::write("out", "f32")],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let each = |format: Format| {
        // The second factor is of the storage type of the first, or f32.
        let wide = Some(Format::f32(false)).filter(|&wide| wide != format);
        let factors = [Some(format), wide].into_iter().flatten();
        std::iter::once(targets_kernel(format)).chain(factors.map(move |b| multiply_kernel(format, b)))
    };
    Format::ALL.into_iter().filter(|format| !format.vectors).flat_map(each).collect()
}

/// Rows of candidates and behaviours, and of the positions that are added to them.
pub(super) struct Rows<'a, T: Element> {
    gpu: &'a Wgpu,
    operation: &'static str,
    pub(super) op: &'a Tin,
    targets: Binding,
    history: Region<'a, T>,
    positions: Binding,
    pub(super) history_positions: Option<Region<'a, u32>>,
    pub(super) target_positions: Option<Binding>,
    candidates: usize,
}

impl<'a, T: Element> Rows<'a, T> {
    /// Binds what does not depend on a span of the histories. Given positions outside the table are reported by the next wait.
    pub(super) fn new(
        gpu: &'a Wgpu,
        operation: &'static str,
        op: &'a Tin,
        batch: &Batch,
        inputs: &TinInputs<'a, WgpuMemory, T>,
    ) -> Result<Self> {
        let (candidates, behaviours) = (batch.targets().total(), batch.histories().total());
        check_width(operation, op.width, 4 * MOST_STEPS_OF_ROW)?;
        fit(operation, "targets", batch.targets().rows().saturating_mul(op.width))?;
        fit(operation, "positions", op.positions.saturating_mul(op.width))?;
        let [history_positions, target_positions] =
            [inputs.history_positions, inputs.target_positions].map(|given| given.map(Region::of));
        let given = [
            ("history_positions", history_positions, behaviours),
            ("target_positions", target_positions, candidates),
        ];
        for (argument, given, used) in given {
            if let Some(given) = given {
                gpu.check_words(operation, argument, given, used, &[op.positions])?;
            }
        }
        let bind_places =
            |places: Region<'_, u32>| gpu.bind(operation, "target_positions", &places.rows(0, candidates, 1));
        Ok(Self {
            gpu,
            operation,
            op,
            targets: gpu.bind(
                operation,
                "targets",
                &Region::of(inputs.targets).rows(0, candidates, op.width),
            )?,
            history: Region::of(inputs.history),
            positions: gpu.bind(operation, "positions", &Region::of(inputs.positions))?,
            history_positions,
            target_positions: target_positions.map(bind_places).transpose()?,
            candidates,
        })
    }

    /// The buffers that are read.
    pub(super) fn buffers(&self, inputs: &TinInputs<'a, WgpuMemory, T>) -> Vec<&'a wgpu::Buffer> {
        let rows = [inputs.targets, inputs.history, inputs.positions].map(|rows| Region::of(rows).buffer);
        let places = [inputs.history_positions, inputs.target_positions];
        rows.into_iter().chain(places.into_iter().flatten().map(|given| Region::of(given).buffer)).collect()
    }

    /// `ṽ`: `f32` rows of all candidates.
    pub(super) fn targets(&self) -> Result<Binding> {
        let Self { gpu, operation, op, .. } = *self;
        let length = self.candidates * op.width;
        let out = gpu.scratch(operation, length as u64)?;
        let nothing = gpu.nothing();
        let places = self.target_positions.as_ref();
        let params = TinTargetsParams {
            threads: length as u32,
            width: op.width as u32,
            targets_base: self.targets.base,
            positions_base: self.positions.base,
            places_base: places.map_or(0, |places| places.base),
            has_places: u32::from(places.is_some()),
            last_position: (op.positions - 1) as u32,
        };
        let bindings = [&self.targets, &self.positions, places.unwrap_or(&nothing), &out];
        let kernel = targets_kernel(Format::of::<T>(false));
        gpu.dispatch(operation, &kernel, &params, &bindings, groups_of(length))?;
        Ok(out)
    }

    /// Scratch memory that holds a row of each candidate.
    pub(super) fn region(&self, rows: &Binding) -> WgpuBuffer<f32> {
        WgpuBuffer::allocated(rows.buffer.clone(), self.candidates * self.op.width, &self.gpu.shared.owner)
    }

    /// The rows of a span of the histories, and the table of positions.
    pub(super) fn bind(&self, span: &Range<usize>) -> Result<[Binding; 2]> {
        let history = self.history.rows(span.start, span.len(), self.op.width);
        Ok([self.gpu.bind(self.operation, "history", &history)?, self.positions.clone()])
    }

    /// What is added to the rows of the histories.
    pub(super) fn added(&self) -> Added<'a> {
        Added::Positions(Positions { rows: self.op.positions, given: self.history_positions })
    }
}

/// A product of rows of candidates, number by number.
pub(super) struct Product<'a> {
    pub(super) first: &'a Binding,
    /// `None`: the first factor alone.
    pub(super) second: Option<&'a Binding>,
    pub(super) out: &'a Binding,
    /// Whether it is added to what the output holds.
    pub(super) adds: bool,
    pub(super) length: usize,
}

impl Product<'_> {
    /// Of factors that are stored as `A` and `B`.
    pub(super) fn run<A: Element, B: Element>(&self, gpu: &Wgpu, operation: &'static str) -> Result<()> {
        let nothing = gpu.nothing();
        let (first, second, out) = (self.first, self.second.unwrap_or(&nothing), self.out);
        let params = TinMultiplyParams {
            threads: self.length as u32,
            a_base: first.base,
            b_base: second.base,
            out_base: out.base,
            multiplies: u32::from(self.second.is_some()),
            adds: u32::from(self.adds),
        };
        let kernel = multiply_kernel(Format::of::<A>(false), Format::of::<B>(false));
        gpu.dispatch(operation, &kernel, &params, &[first, second, out], groups_of(self.length))
    }
}
