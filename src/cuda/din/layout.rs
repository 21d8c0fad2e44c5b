//! Where the kernels of DIN's backward pass keep what, in float4s. Units and the numbers of rows are padded to 16.

use crate::cuda::din::{FRAGMENT, SHARED, WARP, parts};
use crate::element::Element;
use crate::gpu::{DinLayout, DinLimits};
use crate::ops::Din;

/// Behaviours of a block, and what units and the numbers of rows are padded to.
pub(super) const TILE: usize = 16;
/// Parts of inputs of later layers, of gradients and of differences of weights: `BackwardParts` in `kernels/din/backward.cuh`.
const PARTS: usize = 3;
/// Numbers that the blocks of a part keep, at most: 16 MiB.
const BLOCK_NUMBERS: usize = 1 << 22;

/// Of a hidden layer: its vectors and the fragments of its weight in the network, numbers before the activation in scratch memory,
/// their gradients and the layer's inputs in a tile.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LayerPlaces {
    pub(super) vectors: usize,
    pub(super) forward: usize,
    pub(super) back: usize,
    pub(super) before: usize,
    pub(super) grads: usize,
    pub(super) inputs: usize,
}

/// The sizes of the network, of a tile, of its scratch memory and of a block, and the places in them: see `kernels/din/backward.cuh`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Places {
    pub(super) layers: [LayerPlaces; Din::MAX_HIDDEN],
    pub(super) first_weights: usize,
    pub(super) difference: usize,
    pub(super) difference_back: usize,
    pub(super) output_bias: usize,
    pub(super) network: usize,
    pub(super) tile: usize,
    pub(super) inputs: usize,
    pub(super) others: usize,
    pub(super) scratch: usize,
    pub(super) block_parts: usize,
    pub(super) block_turned: usize,
    pub(super) block_terms: usize,
    pub(super) block: usize,
    /// Bytes of shared memory of a tile.
    pub(super) shared: usize,
    /// Whether scratch memory is shared memory.
    pub(super) fits: bool,
}

/// Takes the next of `next` float4s.
fn take(next: &mut usize, float4s: usize) -> usize {
    let first = *next;
    *next = next.saturating_add(float4s);
    first
}

impl Places {
    pub(super) fn new<T: Element>(layout: &DinLayout) -> Self {
        let ([weight, ..], input, difference) = (parts::<T>(), PARTS, PARTS);
        let product = if weight == 1 { 2 } else { 3 };
        let (width, units) = (layout.width4 / 4, layout.units4.map(|units4| units4 / 4));
        // Fragments of so many times 16 units.
        let fragments = |units: usize, parts: usize| units.saturating_mul(parts * WARP);
        let mut places = Self::default();
        let first = width.saturating_mul(units[0]);
        places.first_weights = take(&mut places.network, first.saturating_mul(12 * TILE));
        places.difference = take(&mut places.network, fragments(first, difference));
        places.difference_back = take(&mut places.network, fragments(first, difference));
        take(&mut places.tile, fragments(units[0], input));
        let mut inputs = width;
        for (i, &units) in units.iter().enumerate().take(layout.units.len()) {
            let layer = &mut places.layers[i];
            layer.vectors = take(&mut places.network, 5 * layout.units4[i]);
            layer.forward = take(&mut places.network, fragments(inputs.saturating_mul(units), weight));
            layer.back = take(&mut places.network, fragments(inputs.saturating_mul(units), weight));
            layer.before = take(&mut places.scratch, fragments(units, 2));
            layer.grads = take(&mut places.tile, fragments(units, input));
            layer.inputs = take(&mut places.tile, if i > 0 { fragments(inputs, input) } else { 0 });
            inputs = units;
        }
        places.output_bias = take(&mut places.network, 1);
        let inputs = fragments(width, product).max(fragments(units[1], input));
        places.inputs = take(&mut places.scratch, inputs);
        let others = if layout.units.len() > 1 { units[0].max(units[2]) } else { 0 };
        places.others = take(&mut places.scratch, fragments(others, input));
        take(&mut places.block, fragments(width, 2));
        places.block_parts = take(&mut places.block, fragments(width, weight));
        places.block_turned = take(&mut places.block, fragments(width, weight));
        places.block_terms = take(&mut places.block, fragments(units[0], 2));
        let (turned, scratch) = (input * FRAGMENT, places.scratch.saturating_mul(16));
        places.fits = turned.saturating_add(scratch) <= SHARED;
        places.shared = if places.fits { turned + scratch } else { turned };
        places
    }

    /// Limits of parts.
    pub(super) fn limits(&self, layout: &DinLayout) -> DinLimits {
        let tile = self.tile.saturating_add(self.device_scratch());
        let blocks = (BLOCK_NUMBERS / 4 / self.block).max(1);
        DinLimits { rows: TILE * blocks, ..layout.limits(tile) }
    }

    /// Scratch memory of a tile in device memory.
    pub(super) fn device_scratch(&self) -> usize {
        if self.fits { 0 } else { self.scratch }
    }
}
