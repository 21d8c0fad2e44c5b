//! Axes of candidates at right angles, and the gradients of those that were given: `kernels/interest_channels/axes.cu`.

use std::ops::Range;

use crate::cuda::batch::CudaBatch;
use crate::cuda::call::Call;
use crate::cuda::interest_channels::{WORD, row_sizes};
use crate::cuda::kernel::{ByType, Kernel};
use crate::cuda::twin::twins;
use crate::element::{DType, Element};
use crate::error::Result;
use crate::gpu::Bound;
use crate::ops::{DependentAxes, InterestChannels};

const FILE: &str = "interest_channels_axes";
const THREADS: u32 = 128;
/// Candidates of a block: one per warp.
const CANDIDATES: usize = THREADS as usize / 32;
/// Bytes of a number of the wide forms.
const WIDE: usize = size_of::<f64>();

const AXES: ByType = ByType([
    Kernel::new(FILE, "channels_axes_f32", THREADS, 45),
    Kernel::new(FILE, "channels_axes_f16", THREADS, 45),
    Kernel::new(FILE, "channels_axes_bf16", THREADS, 45),
]);
const GRADIENTS: ByType = ByType([
    Kernel::new(FILE, "channels_axes_gradients_f32", THREADS, 51),
    Kernel::new(FILE, "channels_axes_gradients_f16", THREADS, 51),
    Kernel::new(FILE, "channels_axes_gradients_bf16", THREADS, 51),
]);

twins! {
    /// `kernels/interest_channels/axes.cu`
    pub(in crate::cuda) struct ChannelsAxesParams {
        matrices: u64,
        wide: u64,
        axes: u64,
        triangle: u64,
        states: u64,
        dependent: u64,
        candidates: u64,
        first_candidate: u64,
        channels: u32,
        width: u32,
    }

    /// `kernels/interest_channels/axes.cu`
    pub(in crate::cuda) struct ChannelsAxesGradientParams {
        matrices: u64,
        wide: u64,
        triangle: u64,
        states: u64,
        grads: u64,
        work: u64,
        out: u64,
        candidates: u64,
        channels: u32,
        width: u32,
        is_wide: u32,
        unused: u32,
    }
}

/// The axes of some candidates, in scratch memory.
pub(super) struct Axes(ChannelsAxesParams);

/// The record of axes that depend on those before them; 0 where they are zero channels.
pub(super) fn dependent_record(call: &Call<'_>, op: &InterestChannels, batch: &CudaBatch) -> Result<u64> {
    let axes = batch.as_ref().targets().total().saturating_mul(op.channels);
    match op.dependent {
        DependentAxes::Error => call.record("axes", axes, Bound::Axes(op.channels)),
        DependentAxes::Zero => Ok(0),
    }
}

/// Bytes of scratch memory for the axes of a candidate.
pub(super) fn axes_bytes(op: &InterestChannels) -> usize {
    op.channels.saturating_mul(op.width.saturating_mul(WIDE + WORD).saturating_add(WORD))
}

impl Axes {
    /// Puts the axes of candidates at right angles. `matrices`: those of all candidates.
    pub(super) fn new<T: Element>(
        call: &mut Call<'_>,
        op: &InterestChannels,
        (matrices, targets): (u64, Range<usize>),
        dependent: u64,
        wants_triangle: bool,
    ) -> Result<Self> {
        let [width, channels] = row_sizes(call.operation, op)?;
        let rows = targets.len().saturating_mul(op.channels);
        let numbers = rows.saturating_mul(op.width);
        let triangle = rows.saturating_mul(op.channels).saturating_mul(WIDE);
        let params = ChannelsAxesParams {
            matrices: matrices + (targets.start * op.channels * op.width * size_of::<T>()) as u64,
            wide: call.scratch(numbers.saturating_mul(WIDE))?,
            axes: call.scratch(numbers.saturating_mul(WORD))?,
            triangle: if wants_triangle { call.scratch(triangle)? } else { 0 },
            states: call.scratch(rows.saturating_mul(WORD))?,
            dependent,
            candidates: targets.len() as u64,
            first_candidate: targets.start as u64,
            channels,
            width,
        };
        call.launch(&AXES.of::<T>().blocks(targets.len().div_ceil(CANDIDATES)), &params)?;
        Ok(Self(params))
    }

    /// `O`, in `f32`.
    pub(super) fn rows(&self) -> u64 {
        self.0.axes
    }

    /// The state of each axis.
    pub(super) fn states(&self) -> u64 {
        self.0.states
    }

    /// Writes the gradients of the axes that were given, stored as `G`, from those of `O`.
    pub(super) fn gradients<T: Element, G: Element>(
        &self,
        call: &mut Call<'_>,
        grads: u64,
        out: u64,
    ) -> Result<()> {
        let ChannelsAxesParams { matrices, wide, triangle, states, candidates, channels, width, .. } = self.0;
        let rows = (candidates as usize).saturating_mul(channels as usize + 1);
        let params = ChannelsAxesGradientParams {
            matrices,
            wide,
            triangle,
            states,
            grads,
            work: call.scratch(rows.saturating_mul(width as usize).saturating_mul(WIDE))?,
            out,
            candidates,
            channels,
            width,
            is_wide: u32::from(G::DTYPE == DType::F32),
            unused: 0,
        };
        call.launch(&GRADIENTS.of::<T>().blocks((candidates as usize).div_ceil(CANDIDATES)), &params)
    }
}

/// All kernels of this file.
#[cfg(test)]
pub(super) fn table() -> Vec<Kernel> {
    [AXES.0, GRADIENTS.0].concat()
}
