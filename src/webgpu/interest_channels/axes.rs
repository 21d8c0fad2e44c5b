//! Axes at right angles, and the gradients of those that they were before.

use std::ops::Range;

use crate::element::Element;
use crate::error::{Error, Result};
use crate::gpu::{Bound, fit};
use crate::ops::{DependentAxes, InterestChannels};
use crate::webgpu::binding::Binding;
use crate::webgpu::launch::{MOST_ITERATIONS, THREADS, groups_of};
use crate::webgpu::memory::Region;
use crate::webgpu::params::{Params, params};
use crate::webgpu::search::pack::POWERS;
use crate::webgpu::selected::inputs::REDUCE;
use crate::webgpu::shader::{Format, Kernel, Slot};
use crate::webgpu::state::Wgpu;

/// The widest rows, and the most numbers of a candidate's axes, that the loops of a thread go over.
const MOST_WIDTH: usize = 1 << 14;
const MOST_NUMBERS: usize = 3 << 16;

pub(super) const STATES: &str = include_str!("../../../shaders/interest_channels/states.wgsl");

params! {
    /// Twin of the struct in shaders/interest_channels/axes.wgsl.
    struct ChannelAxesParams {
        first_axis: u32,
        end_axis: u32,
        channels: u32,
        width: u32,
        matrices_base: u32,
        reports: u32,
    }
}

params! {
    /// Twin of the struct in shaders/interest_channels/pack_axes.wgsl.
    struct ChannelPackParams {
        threads: u32,
        channels: u32,
        width: u32,
        blocks: u32,
        tile_rows: u32,
    }
}

params! {
    /// Twin of the struct in shaders/interest_channels/backward_axes.wgsl.
    struct ChannelAxesBackwardParams {
        first_axis: u32,
        end_axis: u32,
        channels: u32,
        width: u32,
        first_candidate: u32,
        matrices_base: u32,
        out_base: u32,
    }
}

fn axes_kernel(matrices: Format) -> Kernel {
    Kernel {
        name: "interest_channels/axes",
        params: &ChannelAxesParams::BLOCK,
        threads: THREADS,
        sources: &[POWERS, REDUCE, STATES, include_str!("../../../shaders/interest_channels/axes.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::read("matrices", matrices),
            Slot::write("axes", "f32"),
            Slot::write("triangle", "f32"),
            Slot::write("states", "vec2<u32>"),
            Slot::write("report", "atomic<u32>"),
        ],
    }
}

fn pack_kernel(axes: Format) -> Kernel {
    Kernel {
        name: "interest_channels/pack_axes",
        params: &ChannelPackParams::BLOCK,
        threads: THREADS,
        sources: &[STATES, include_str!("../../../shaders/interest_channels/pack_axes.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::read("axes", axes),
            Slot::plain("states", "vec2<u32>"),
            Slot::write("packed", "vec4<f32>"),
        ],
    }
}

fn backward_kernel(matrices: Format) -> Kernel {
    Kernel {
        name: "interest_channels/backward_axes",
        params: &ChannelAxesBackwardParams::BLOCK,
        threads: THREADS,
        sources: &[REDUCE, STATES, include_str!("../../../shaders/interest_channels/backward_axes.wgsl")],
        constants: vec![],
        slots: vec![
            Slot::plain("axes", "f32"),
            Slot::plain("states", "vec2<u32>"),
            Slot::read("matrices", matrices),
            Slot::write("triangle", "f32"),
            Slot::write("grads", "f32"),
            Slot::write("out", "f32"),
        ],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    let stored = Format::ALL.into_iter().filter(|format| !format.vectors);
    let each = stored.flat_map(|format| [axes_kernel(format), backward_kernel(format)]);
    each.chain([true, false].map(|vectors| pack_kernel(Format::f32(vectors)))).collect()
}

/// Iterations of a thread for axis `i`: its columns, sums of all threads, and twice the products with the axes before it and what lies along
/// them. The gradients take fewer.
fn iterations(width: usize, i: usize) -> usize {
    let (columns, rows) = (width.div_ceil(64), i.div_ceil(64));
    5 * columns + 256 + 2 * (rows * (width + width.div_ceil(1024) + 2) + columns * (i + 1))
}

/// The axes that a dispatch takes at a time.
fn cuts(op: &InterestChannels) -> Vec<Range<usize>> {
    let most = MOST_ITERATIONS - (op.channels * op.width).div_ceil(64);
    let (mut cuts, mut first, mut used) = (Vec::new(), 0, 0);
    for i in 0..op.channels {
        let own = iterations(op.width, i);
        if used + own > most && i > first {
            cuts.push(first..i);
            (first, used) = (i, 0);
        }
        used += own;
    }
    cuts.push(first..op.channels);
    cuts
}

/// Fails for axes that are too many or too wide for the loops of a thread.
fn check_size(operation: &'static str, op: &InterestChannels) -> Result<()> {
    let numbers = op.channels.saturating_mul(op.width);
    for (argument, needed, limit) in [("width", op.width, MOST_WIDTH), ("axes", numbers, MOST_NUMBERS)] {
        if needed > limit {
            return Err(Error::Limit { operation, argument, needed: needed as u64, limit: limit as u64 });
        }
    }
    Ok(())
}

/// The axes of all candidates.
pub(super) struct Axes<'a> {
    gpu: &'a Wgpu,
    operation: &'static str,
    op: &'a InterestChannels,
    candidates: usize,
    /// As they were given.
    matrices: Binding,
    /// `O`: `[M, c, d]`.
    pub(super) rows: Binding,
    /// `R`: `[M, c, c]`.
    triangle: Binding,
    /// `[M, c]`: whether there is such a channel.
    pub(super) states: Binding,
}

impl<'a> Axes<'a> {
    /// Puts them at right angles. Where they must not depend on each other, the next wait reports that they do.
    ///
    /// # Errors
    /// [`Error::Limit`] for axes that are too many or too wide.
    pub(super) fn new<T: Element>(
        gpu: &'a Wgpu,
        operation: &'static str,
        op: &'a InterestChannels,
        matrices: Region<'_, T>,
        candidates: usize,
    ) -> Result<Self> {
        check_size(operation, op)?;
        let (channels, width) = (op.channels, op.width);
        let lists = candidates * channels;
        fit(operation, "axes", lists.saturating_mul(width))?;
        let axes = Self {
            gpu,
            operation,
            op,
            candidates,
            matrices: gpu.bind(operation, "axes", &matrices.rows(0, lists, width))?,
            rows: gpu.scratch(operation, (lists * width) as u64)?,
            triangle: gpu.scratch(operation, (lists * channels) as u64)?,
            states: gpu.scratch(operation, 2 * lists as u64)?,
        };
        let report = match op.dependent {
            DependentAxes::Error => Some(gpu.report(operation, "axes", Bound::Axes(channels))?),
            DependentAxes::Zero => None,
        };
        let no_report = gpu.no_output(operation)?;
        let kernel = axes_kernel(Format::of::<T>(false));
        for cut in cuts(op) {
            let params = ChannelAxesParams {
                first_axis: cut.start as u32,
                end_axis: cut.end as u32,
                channels: channels as u32,
                width: width as u32,
                matrices_base: axes.matrices.base,
                reports: u32::from(report.is_some()),
            };
            let report = report.as_ref().map_or(&no_report, |report| &report.binding);
            let bindings = [&axes.matrices, &axes.rows, &axes.triangle, &axes.states, report];
            gpu.dispatch(operation, &kernel, &params, &bindings, candidates as u64)?;
        }
        report.into_iter().for_each(|report| gpu.send(report));
        Ok(axes)
    }

    /// Packs them for the search: so many rows to a tile, and as many tiles to a candidate as its axes fill.
    pub(super) fn pack(&self, tile_rows: usize) -> Result<Binding> {
        let Self { gpu, operation, op, .. } = *self;
        let blocks = op.channels.div_ceil(tile_rows);
        let threads = self.candidates * blocks * tile_rows * (op.width.div_ceil(4) + 1);
        let packed = gpu.scratch(operation, threads as u64 * 4)?;
        let params = ChannelPackParams {
            threads: fit(operation, "axes", threads)?,
            channels: op.channels as u32,
            width: op.width as u32,
            blocks: blocks as u32,
            tile_rows: tile_rows as u32,
        };
        let kernel = pack_kernel(self.rows.format_of_rows::<f32>(op.width));
        let bindings = [&self.rows, &self.states, &packed];
        gpu.dispatch(operation, &kernel, &params, &bindings, groups_of(threads))?;
        Ok(packed)
    }

    /// Writes the gradients of the axes of some candidates as they were given, from those of axes at right angles, which are overwritten.
    pub(super) fn backward<T: Element>(
        &self,
        candidates: &Range<usize>,
        grads: &Binding,
        out: &Binding,
    ) -> Result<()> {
        let Self { gpu, operation, op, .. } = *self;
        let kernel = backward_kernel(Format::of::<T>(false));
        let numbers = op.channels * op.width;
        for cut in cuts(op).into_iter().rev() {
            let params = ChannelAxesBackwardParams {
                first_axis: cut.start as u32,
                end_axis: cut.end as u32,
                channels: op.channels as u32,
                width: op.width as u32,
                first_candidate: candidates.start as u32,
                matrices_base: self.matrices.base + (candidates.start * numbers) as u32,
                out_base: out.base,
            };
            let bindings = [&self.rows, &self.states, &self.matrices, &self.triangle, grads, out];
            gpu.dispatch(operation, &kernel, &params, &bindings, candidates.len() as u64)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_have_every_axis_once_and_loops_that_are_short() {
        for (width, channels) in
            [(1, 1), (4, 4), (64, 64), (443, 443), (MOST_WIDTH, 12), (300, 300), (1 << 11, 96)]
        {
            let op = InterestChannels::new(width).with_channels(channels);
            assert!(check_size("", &op).is_ok(), "{op:?}");
            let cuts = cuts(&op);
            assert_eq!((cuts[0].start, cuts[cuts.len() - 1].end), (0, channels));
            assert!(cuts.is_sorted_by(|a, b| a.end == b.start));
            for cut in cuts {
                let used: usize = cut.map(|i| iterations(width, i)).sum();
                assert!(used + (channels * width).div_ceil(64) <= MOST_ITERATIONS, "{op:?}");
            }
        }
        assert!(check_size("", &InterestChannels::new(512).with_channels(512)).is_err());
        assert!(check_size("", &InterestChannels::new(MOST_WIDTH + 1).with_channels(1)).is_err());
    }
}
