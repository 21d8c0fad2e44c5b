//! What pieces cost on a device of which WebGPU says nothing.

use crate::plan::Pace;

/// In clock cycles of a GPU, for steps of 64 behaviours or as much work. WebGPU does not say how many workgroups run at a time:
/// on large GPUs several hundred, and more than that make a small one no slower. Combining is a dispatch of its own.
pub(in crate::webgpu) const PACE: Pace = Pace {
    resident: 512,
    step: 6000,
    row: 0,
    piece: 3000,
    combine: 8000,
    slot: 100,
    fewest_steps: 1,
    shrinks: false,
};
