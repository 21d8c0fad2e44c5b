//! Sums over pairs: the gradients of the network's weights and vectors.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::DinPart;
use crate::memory::ViewMut;
use crate::ops::DinPooling;
use crate::webgpu::binding::Binding;
use crate::webgpu::din::backward::job::{Job, PARTS, ROWS_PER_SUM};
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::memory::WgpuMemory;
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Kernel, Slot};

params! {
    /// Twin of the struct in shaders/din/backward_outer.wgsl.
    struct DinBackwardOuterParams {
        pieces: u32,
        first_piece: u32,
        items: u32,
        per_split: u32,
        unit_groups: u32,
        input_groups: u32,
        units4: u32,
        inputs4: u32,
        tile: u32,
        grads: u32,
        inputs: u32,
        candidate: u32,
        products: u32,
        queries: u32,
        first_state: u32,
        softmax: u32,
        wants_targets: u32,
    }
}

params! {
    /// Twin of the struct in shaders/din/backward_sums.wgsl.
    struct DinBackwardSumsParams {
        threads: u32,
        rows: u32,
        width4: u32,
        first: u32,
        adds: u32,
    }
}

params! {
    /// Twin of the struct in shaders/din/backward_write.wgsl.
    struct DinBackwardWriteParams {
        threads: u32,
        mode: u32,
        width: u32,
        stride: u32,
        first: u32,
        matrix: u32,
        count: u32,
        out_base: u32,
    }
}

fn outer_kernel(first: u32) -> Kernel {
    Kernel {
        name: "din/backward_outer",
        params: &DinBackwardOuterParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../../shaders/din/backward_outer.wgsl"), PARTS],
        constants: vec![("FIRST", first)],
        slots: vec![
            Slot::plain("pieces", "vec4<u32>"),
            Slot::plain("candidates", "f32"),
            Slot::plain("network", "f32"),
            Slot::plain("work", "vec4<f32>"),
            Slot::plain("states", "vec4<f32>"),
            Slot::write("parts", "f32"),
            Slot::write("target_parts", "f32"),
        ],
    }
}

fn sums_kernel() -> Kernel {
    Kernel {
        name: "din/backward_sums",
        params: &DinBackwardSumsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../../shaders/din/backward_sums.wgsl")],
        constants: vec![],
        slots: vec![Slot::plain("parts", "vec4<f32>"), Slot::write("sums", "vec4<f32>")],
    }
}

fn write_kernel() -> Kernel {
    Kernel {
        name: "din/backward_write",
        params: &DinBackwardWriteParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../../shaders/din/backward_write.wgsl")],
        constants: vec![],
        slots: vec![Slot::plain("sums", "f32"), Slot::write("out", "f32")],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    vec![outer_kernel(0), outer_kernel(1), sums_kernel(), write_kernel()]
}

/// How sums are written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Write {
    /// Rows of so many numbers, from rows of so many.
    Rows { width: usize, stride: usize },
    /// The weight of the first layer, `[h, 4·width]`, from three matrices of so many numbers in rows of so many.
    First { width: usize, stride: usize, matrix: usize },
    /// The sum of so many numbers.
    One(usize),
}

impl<T: Element> Job<'_, T> {
    /// Adds the gradient of a layer's weight over a part to the sums of all, and leaves the parts of the candidates' gradients.
    pub(super) fn weight(&self, part: &DinPart, layer: usize) -> Result<()> {
        let Self { gpu, operation, layout, .. } = *self;
        let items = if layer == 0 { part.runs } else { part.tiles };
        let (splits, per_split) = layout.splits(layer, part);
        let [unit_groups, input_groups] = layout.outer_groups(layer);
        let matrix = 16 * layout.width4 * layout.units4[0];
        let params = DinBackwardOuterParams {
            pieces: part.pieces.len() as u32,
            first_piece: part.pieces.start as u32,
            items: items as u32,
            per_split: per_split as u32,
            unit_groups: unit_groups as u32,
            input_groups: input_groups as u32,
            units4: layout.units4[layer] as u32,
            inputs4: layout.inputs4(layer) as u32,
            tile: layout.tile as u32,
            grads: layout.before[layer] as u32,
            // Those of the first layer are the behaviours, which come first.
            inputs: if layer == 0 { 0 } else { layout.after[layer - 1] as u32 },
            candidate: 4 * layout.candidate as u32,
            products: (4 * layout.weights[0] + 4 * matrix) as u32,
            queries: (4 * layout.weights[0] + 5 * matrix) as u32,
            first_state: part.targets.start as u32,
            softmax: u32::from(self.op.pooling == DinPooling::Softmax),
            wants_targets: u32::from(layer == 0 && self.wanted.targets),
        };
        let bindings = [
            &self.pieces,
            &self.candidates,
            &self.network,
            &self.work,
            &self.states,
            &self.weight_parts,
            &self.target_parts,
        ];
        let groups = splits * unit_groups * input_groups;
        gpu.dispatch(operation, &outer_kernel(u32::from(layer == 0)), &params, &bindings, groups as u64)?;
        if !self.wanted.weights[layer] {
            return Ok(());
        }
        let (width4, first) = (layout.weight_numbers(layer) / 4, layout.first_weight(layer) / 4);
        self.add_up(&self.weight_parts, splits, width4, first)
    }

    /// Adds the sums of the tiles of a part to those of all.
    pub(super) fn vectors(&self, part: &DinPart) -> Result<()> {
        self.add_up(&self.tile_sums, part.tiles, self.layout.tile_sums, 0)
    }

    /// Adds rows of `width4` vec4s to the sums of all from `first` on.
    fn add_up(&self, parts: &Binding, rows: usize, width4: usize, first: usize) -> Result<()> {
        let run = |from: &Binding, rows: usize, to: &Binding, (first, adds): (usize, bool)| {
            let threads = rows.div_ceil(ROWS_PER_SUM) * width4;
            let params = DinBackwardSumsParams {
                threads: threads as u32,
                rows: rows as u32,
                width4: width4 as u32,
                first: first as u32,
                adds: adds.into(),
            };
            self.gpu.dispatch(self.operation, &sums_kernel(), &params, &[from, to], groups_of(threads))
        };
        if rows <= ROWS_PER_SUM {
            return run(parts, rows, &self.recent, (first, true));
        }
        run(parts, rows, &self.between, (0, false))?;
        run(&self.between, rows.div_ceil(ROWS_PER_SUM), &self.recent, (first, true))
    }

    /// Adds the recent sums to those of all.
    pub(super) fn take_recent(&self) -> Result<()> {
        let numbers = self.layout.total_numbers();
        let width4 = (numbers / 4) as u32;
        let params = DinBackwardSumsParams { threads: width4, rows: 1, width4, first: 0, adds: 1 };
        let bindings = [&self.recent, &self.totals];
        self.gpu.dispatch(self.operation, &sums_kernel(), &params, &bindings, groups_of(numbers / 4))?;
        self.gpu.clear(self.operation, &self.recent, numbers);
        Ok(())
    }

    /// Writes a gradient, or statistics, from the sums at `first`.
    pub(super) fn write<G: Element>(
        &self,
        argument: &'static str,
        out: &ViewMut<'_, WgpuMemory, G>,
        first: usize,
        how: Write,
    ) -> Result<()> {
        let output = self.gpu.output(self.operation, argument, out, out.len(), &[], &[])?;
        let (mode, width, stride, matrix, count) = match how {
            Write::Rows { width, stride } => (0, width, stride, 0, 0),
            Write::First { width, stride, matrix } => (1, 4 * width, stride, matrix, 0),
            Write::One(count) => (2, 1, 1, 0, count),
        };
        let params = DinBackwardWriteParams {
            threads: out.len() as u32,
            mode,
            width: width as u32,
            stride: stride as u32,
            first: first as u32,
            matrix: matrix as u32,
            count: count as u32,
            out_base: output.binding.base,
        };
        let bindings = [&self.totals, &output.binding];
        self.gpu.dispatch(self.operation, &write_kernel(), &params, &bindings, groups_of(out.len()))?;
        self.gpu.finish(output)
    }
}
