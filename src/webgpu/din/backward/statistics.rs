//! Statistics of a layer's numbers before its activation.

use crate::element::Element;
use crate::error::Result;
use crate::gpu::din_moments::{self, Moments, Place};
use crate::gpu::{CHAIN, DinLayout, DinPart, DinWanted, check_units};
use crate::ops::{Din, DinInputs, DinStatistics};
use crate::webgpu::batch::WgpuBatch;
use crate::webgpu::binding::Binding;
use crate::webgpu::din::backward::checks::{check_inputs, check_loops};
use crate::webgpu::din::backward::job::{Job, ROWS_PER_SUM, limits_of};
use crate::webgpu::din::backward::network::lay_out;
use crate::webgpu::din::backward::pairs::Mode;
use crate::webgpu::din::backward::sums::Write;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::params::{Params, params};
use crate::webgpu::shader::{Kernel, Slot};
use crate::webgpu::state::Wgpu;

const NAME: &str = "din_statistics";

params! {
    /// Twin of the struct in shaders/din/backward_moments.wgsl.
    struct DinMomentsParams {
        threads: u32,
        rows: u32,
        units4: u32,
        stride: u32,
        entry: u32,
        before: f32,
    }
}

fn moments_kernel() -> Kernel {
    Kernel {
        name: "din/backward_moments",
        params: &DinMomentsParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../../../shaders/din/backward_moments.wgsl")],
        constants: vec![],
        slots: vec![Slot::plain("parts", "vec4<f32>"), Slot::write("moments", "vec4<f32>")],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    vec![moments_kernel()]
}

pub(in crate::webgpu::din) fn statistics<T: Element>(
    gpu: &Wgpu,
    op: &Din,
    batch: &WgpuBatch,
    inputs: &DinInputs<'_, WgpuMemory, T>,
    layer: usize,
    out: DinStatistics<'_, WgpuMemory>,
) -> Result<()> {
    op.check_statistics(batch.as_ref(), inputs, layer, &out)?;
    let units = check_units(NAME, inputs)?;
    check_loops(NAME, op.width, &units)?;
    batch.check_owner(gpu, NAME)?;
    check_inputs(gpu, NAME, inputs)?;
    gpu.check_device(NAME, "mean", &Region::of_mut(&out.mean))?;
    gpu.check_device(NAME, "centred_squares", &Region::of_mut(&out.centred_squares))?;
    // Later layers are not computed.
    let mut layout = DinLayout::new(op.width, &units, 4);
    let units4 = layout.units4[layer];
    layout.tile_sums = 2 * units4 + 1;
    layout.sums = [0; Din::MAX_HIDDEN];
    let lists = batch.din_parts(gpu, NAME, &limits_of(&layout))?;
    let network = lay_out(gpu, NAME, &layout, inputs)?;
    let job =
        Job::new(gpu, NAME, (op, &layout, &lists), (inputs, None), (DinWanted::none(units.len()), network))?;
    let parts: Vec<&DinPart> = lists.parts.parts.iter().filter(|part| part.tiles > 0).collect();
    let entry = 4 * (2 * units4 + 1);
    let kept = (0..din_moments::levels(parts.len())).map(|_| gpu.scratch(NAME, (CHAIN * entry) as u64));
    let kept = kept.collect::<Result<Vec<_>>>()?;
    let place = |place| match place {
        Place::Total => (&job.totals, 0),
        Place::Kept { level, entry } => (&kept[level], entry),
    };
    let (mut parts, mut pairs) = (parts.into_iter(), 0.0);
    for merge in din_moments::merges(parts.len()) {
        match merge {
            Moments::Part { is_first, to } => {
                let Some(part) = parts.next() else { break };
                job.candidates(part)?;
                job.pairs(part, Mode::Statistics(layer))?;
                pairs = if is_first { 0.0 } else { pairs };
                job.moments(part.tiles, units4, place(to), pairs)?;
                pairs += lists.parts.pairs(part);
            }
            Moments::Level { level, rows, to } => job.merge(units4, (&kept[level], rows), place(to), 0.0)?,
        }
    }
    let row = Write::Rows { width: units[layer], stride: 4 * units4 };
    job.write("mean", &out.mean, 0, row)?;
    job.write("centred_squares", &out.centred_squares, 4 * units4, row)
}

impl<T: Element> Job<'_, T> {
    /// Merges the statistics of so many tiles with those of `pairs` pairs in an entry of a buffer.
    fn moments(&self, tiles: usize, units4: usize, to: (&Binding, usize), pairs: f64) -> Result<()> {
        if tiles <= ROWS_PER_SUM {
            return self.merge(units4, (&self.tile_sums, tiles), to, pairs);
        }
        self.merge(units4, (&self.tile_sums, tiles), (&self.between, 0), 0.0)?;
        self.merge(units4, (&self.between, tiles.div_ceil(ROWS_PER_SUM)), to, pairs)
    }

    /// Merges the first entries of a buffer.
    fn merge(
        &self,
        units4: usize,
        (from, rows): (&Binding, usize),
        (to, entry): (&Binding, usize),
        pairs: f64,
    ) -> Result<()> {
        let threads = rows.div_ceil(ROWS_PER_SUM) * units4;
        let params = DinMomentsParams {
            threads: threads as u32,
            rows: rows as u32,
            units4: units4 as u32,
            stride: 2 * units4 as u32 + 1,
            entry: entry as u32,
            before: pairs as f32,
        };
        self.gpu.dispatch(self.operation, &moments_kernel(), &params, &[from, to], groups_of(threads))
    }
}
