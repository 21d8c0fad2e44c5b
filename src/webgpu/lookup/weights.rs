//! Bags whose ids do not all count alike: means that leave ids outside their tables out, weights of ids, and their gradient.

use crate::error::Result;
use crate::gpu::fit;
use crate::ops::*;
use crate::webgpu::batch::WgpuJagged;
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::output::Output;
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;
use crate::webgpu::tables::{BoundTable, buffers_of, table_formats};

params! {
    /// Twin of the struct in shaders/lookup/count_ids.wgsl.
    struct CountIdsParams {
        rows: u32,
        bags: u32,
        ids_base: u32,
        features: u32,
        feature: u32,
        table_rows: u32,
    }
}

params! {
    /// Twin of the struct in shaders/lookup/counts_of_parts.wgsl.
    struct CountsOfPartsParams {
        parts: u32,
        bags: u32,
        out_base: u32,
    }
}

params! {
    /// Twin of the struct in shaders/lookup/weigh_ids.wgsl.
    struct WeighIdsParams {
        rows: u32,
        bags: u32,
        features: u32,
        feature: u32,
        weights_base: u32,
        mean: u32,
    }
}

params! {
    /// Twin of the struct in shaders/lookup/weight_gradient.wgsl.
    struct WeightGradientParams {
        rows: u32,
        ids_base: u32,
        features: u32,
        feature: u32,
        table_rows: u32,
        width: u32,
        table_base: u32,
        scale_base: u32,
        offset_base: u32,
        grad_base: u32,
        grad_width: u32,
        first_column: u32,
        out_base: u32,
        adds: u32,
    }
}

/// Threads per id of the gradient of weights.
const LANES: usize = 8;
const BAG_OF: &str = include_str!("../../../shaders/lookup/bag_of.wgsl");

fn count_kernel() -> Kernel {
    Kernel {
        name: "lookup/count_ids",
        params: &CountIdsParams::BLOCK,
        threads: THREADS,
        sources: &[BAG_OF, include_str!("../../../shaders/lookup/count_ids.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("ids", "u32"),
            Slot::plain("offsets", "u32"),
            Slot::write("counts", "atomic<u32>"),
        ],
    }
}

fn parts_kernel() -> Kernel {
    Kernel {
        name: "lookup/counts_of_parts",
        params: &CountsOfPartsParams::BLOCK,
        threads: THREADS,
        sources: &[BAG_OF, include_str!("../../../shaders/lookup/counts_of_parts.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("offsets", "u32"),
            Slot::plain("edges", "u32"),
            Slot::plain("counts", "u32"),
            Slot::write("out", "f32"),
        ],
    }
}

fn weigh_kernel() -> Kernel {
    Kernel {
        name: "lookup/weigh_ids",
        params: &WeighIdsParams::BLOCK,
        threads: THREADS,
        sources: &[BAG_OF, include_str!("../../../shaders/lookup/weigh_ids.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("offsets", "u32"),
            Slot::plain("weights", "f32"),
            Slot::write("out", "vec2<u32>"),
        ],
    }
}

fn gradient_kernel(table: Format, int8: bool, grad: Format) -> Kernel {
    Kernel {
        name: "lookup/weight_gradient",
        params: &WeightGradientParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../shaders/lookup/weight_gradient.wgsl")],
        constants: vec![("INT8", u32::from(int8))],
        slots: vec![
            Slot::plain("ids", "u32"),
            Slot::plain("bags", "vec2<u32>"),
            Slot::read("table_data", table),
            Slot::plain("scale", "f32"),
            Slot::plain("offset", "f32"),
            Slot::read("grad", grad),
            Slot::write("out", "f32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let gradients = table_formats().flat_map(|(table, int8)| {
        [true, false].map(|vectors| gradient_kernel(table, int8, Format::f32(vectors)))
    });
    gradients.chain([count_kernel(), parts_kernel(), weigh_kernel()]).collect()
}

/// The ids `[rows, F]` of bags.
#[derive(Clone, Copy)]
pub(super) struct BagIds<'a> {
    pub(super) ids: &'a Binding,
    pub(super) offsets: &'a Binding,
    pub(super) bags: usize,
    pub(super) rows: usize,
}

impl BagIds<'_> {
    /// `[F, parts]`: how many ids of the bag of each part, whose places in the ids begin at `edges`, are inside their table, at least 1.
    pub(super) fn counts(
        &self,
        gpu: &Wgpu,
        operation: &'static str,
        tables: &[Table<'_, WgpuMemory>],
        (edges, parts): (&Binding, usize),
    ) -> Result<Binding> {
        let Self { ids, offsets, bags, rows } = *self;
        let out = gpu.scratch(operation, parts.saturating_mul(tables.len()) as u64)?;
        let counts = gpu.scratch(operation, bags as u64)?;
        for (feature, table) in tables.iter().enumerate() {
            gpu.clear(operation, &counts, bags);
            let params = CountIdsParams {
                rows: fit(operation, "ids", rows)?,
                bags: fit(operation, "bags", bags)?,
                ids_base: ids.base,
                features: tables.len() as u32,
                feature: feature as u32,
                table_rows: fit(operation, "tables", table.rows)?,
            };
            gpu.dispatch(operation, &count_kernel(), &params, &[ids, offsets, &counts], groups_of(rows))?;
            let params = CountsOfPartsParams {
                parts: parts as u32,
                bags: bags as u32,
                out_base: out.base + (feature * parts) as u32,
            };
            let bindings = [offsets, edges, &counts, &out];
            gpu.dispatch(operation, &parts_kernel(), &params, &bindings, groups_of(parts))?;
        }
        Ok(out)
    }
}

/// The weights of ids in a backward pass: the caller's, or what means without ids outside their tables give them.
pub(super) struct IdWeights {
    operation: &'static str,
    offsets: Binding,
    ids: Binding,
    bags: usize,
    rows: usize,
    features: usize,
    /// `[rows, F]`, or `[F, bags]` counts.
    weights: Binding,
    mean: bool,
    /// Per row its bag and the weight of one of its ids.
    pub(super) out: Binding,
}

impl IdWeights {
    /// `None` where all ids of a bag have one weight.
    pub(super) fn new(
        gpu: &Wgpu,
        operation: &'static str,
        op: &Lookup,
        bags: &Bags<'_, WgpuJagged>,
        inputs: &LookupInputs<'_, WgpuMemory>,
        ids: &Binding,
    ) -> Result<Option<Self>> {
        let features = inputs.tables.len();
        let (bags, weights) = match (bags, inputs.weights) {
            (Bags::Sum(bags), Some(weights)) => (*bags, Some(Region::of(weights))),
            (Bags::Mean(bags), None) if op.ids == IdPolicy::Skip => (*bags, None),
            _ => return Ok(None),
        };
        let (rows, offsets) = (bags.as_ref().total(), bags.offsets(gpu, operation, "bags")?);
        let bags = bags.as_ref().users();
        let (weights, mean) = match weights {
            Some(weights) => (gpu.bind(operation, "weights", &weights.rows(0, rows * features, 1))?, false),
            None => {
                let ids = BagIds { ids, offsets: &offsets, bags, rows };
                (ids.counts(gpu, operation, inputs.tables, (&offsets, bags))?, true)
            }
        };
        let (out, ids) = (gpu.scratch(operation, 2 * rows as u64)?, ids.clone());
        Ok(Some(Self { operation, offsets, ids, bags, rows, features, weights, mean, out }))
    }

    /// Writes the bag of each row and the weight of its id of a feature.
    pub(super) fn weigh(&self, gpu: &Wgpu, feature: usize) -> Result<()> {
        let first = if self.mean { feature * self.bags } else { 0 };
        let params = WeighIdsParams {
            rows: self.rows as u32,
            bags: fit(self.operation, "bags", self.bags)?,
            features: self.features as u32,
            feature: feature as u32,
            weights_base: self.weights.base + first as u32,
            mean: u32::from(self.mean),
        };
        let bindings = [&self.offsets, &self.weights, &self.out];
        gpu.dispatch(self.operation, &weigh_kernel(), &params, &bindings, groups_of(self.rows))
    }

    /// Where the gradient of the weights goes.
    pub(super) fn output(
        gpu: &Wgpu,
        operation: &'static str,
        inputs: &LookupInputs<'_, WgpuMemory>,
        used: usize,
        grads: &LookupGradients<'_, WgpuMemory>,
        read: &[&wgpu::Buffer],
    ) -> Result<Option<Output>> {
        let Some(grad) = &grads.weights else { return Ok(None) };
        let mut read = read.to_vec();
        read.extend([inputs.tables, inputs.second_tables].into_iter().flat_map(buffers_of));
        let length = used * inputs.tables.len();
        gpu.output(operation, "grads.weights", grad, length, &read, &[]).map(Some)
    }

    /// Writes the gradient of the weights, from those of the output and of the second one.
    pub(super) fn gradient(
        &self,
        gpu: &Wgpu,
        inputs: &LookupInputs<'_, WgpuMemory>,
        (grad, second): (&Binding, Option<&Binding>),
        out: Output,
    ) -> Result<()> {
        self.weigh(gpu, 0)?;
        self.gradient_through(gpu, inputs.tables, grad, &out.binding, false)?;
        if let Some(grad) = second {
            self.gradient_through(gpu, inputs.second_tables, grad, &out.binding, true)?;
        }
        gpu.finish(out)
    }

    /// Writes, or adds, what comes through the rows of some tables.
    fn gradient_through(
        &self,
        gpu: &Wgpu,
        tables: &[Table<'_, WgpuMemory>],
        grad: &Binding,
        out: &Binding,
        adds: bool,
    ) -> Result<()> {
        let (operation, grad_width) = (self.operation, total_width(tables));
        let mut first_column = 0;
        for (feature, table) in tables.iter().enumerate() {
            let bound = BoundTable::new(gpu, operation, table)?;
            let whole = [grad_width, first_column, table.width].iter().all(|width| width.is_multiple_of(4));
            let params = WeightGradientParams {
                rows: self.rows as u32,
                ids_base: self.ids.base,
                features: self.features as u32,
                feature: feature as u32,
                table_rows: bound.rows,
                width: bound.width,
                table_base: bound.data.base,
                scale_base: bound.scale.base,
                offset_base: bound.offset.base,
                grad_base: grad.base,
                grad_width: fit(operation, "grad_out", grad_width)?,
                first_column: first_column as u32,
                out_base: out.base,
                adds: u32::from(adds),
            };
            first_column += table.width;
            let format = Format::f32(whole && grad.base.is_multiple_of(4));
            let kernel = gradient_kernel(bound.format, bound.int8, format);
            let bindings = [&self.ids, &self.out, &bound.data, &bound.scale, &bound.offset, grad, out];
            let groups = groups_of(self.rows * LANES);
            gpu.dispatch(operation, &kernel, &params, &bindings, groups)?;
        }
        Ok(())
    }
}
