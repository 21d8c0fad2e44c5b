//! Gradients of look-ups: the passes of a sort, the windows of sums, what is checked on the device, and the numbers of a step.

use crate::gpu::bound::Bound;
use crate::ops::{Optimiser, OptimiserMethod};

/// Positions of a window, and the heads of a level of which one of the next is the sum: `kernels/lookup/backward.cu`,
/// `shaders/lookup/gradient_windows.wgsl`.
pub(crate) const WINDOW: usize = 32;

/// The passes of a radix sort of keys from 0 to the number of rows of a table, which stands for all ids outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SortPlan {
    pub(crate) passes: u32,
    /// Bits of the digit of a pass: the fewest that suffice.
    #[cfg(feature = "cuda")]
    pub(crate) digit_bits: u32,
    /// Blocks of keys.
    pub(crate) blocks: usize,
}

impl SortPlan {
    /// Of `length` ids in a table of so many rows, by digits of at most `most_bits`, in blocks of `block` keys.
    pub(crate) fn new(length: usize, rows: usize, most_bits: u32, block: usize) -> Self {
        let largest = u32::try_from(rows).unwrap_or(u32::MAX);
        let bits = u32::BITS - largest.leading_zeros();
        let passes = bits.div_ceil(most_bits);
        Self {
            passes,
            #[cfg(feature = "cuda")]
            digit_bits: bits.div_ceil(passes.max(1)),
            blocks: length.div_ceil(block),
        }
    }
}

/// A level of heads: sums of the runs that go on into a node of so many positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadLevel {
    /// Its first head among those of all levels.
    pub(crate) first: usize,
    pub(crate) nodes: usize,
}

/// The levels of heads over so many positions. The last has no more nodes than a window has positions.
pub(crate) fn head_levels(positions: usize) -> Vec<HeadLevel> {
    let mut levels = vec![HeadLevel { first: 0, nodes: positions.div_ceil(WINDOW).max(1) }];
    while let Some(&HeadLevel { first, nodes }) = levels.last().filter(|level| level.nodes > WINDOW) {
        levels.push(HeadLevel { first: first + nodes, nodes: nodes.div_ceil(WINDOW) });
    }
    levels
}

/// What a sparse gradient that comes from the caller is checked for.
pub(crate) fn gradient_checks(capacity: usize, rows: usize) -> [(&'static str, Bound); 3] {
    [
        ("gradient.count", below(capacity.saturating_add(1))),
        ("gradient.ids", below(rows)),
        ("gradient.ids", Bound::Ascending),
    ]
}

/// What ids in order that come from the caller are checked for: room for `capacity` ids and `places` positions below `positions`.
pub(crate) fn sorted_checks(
    capacity: usize,
    rows: usize,
    places: usize,
    positions: usize,
) -> [(&'static str, Bound); 6] {
    [
        ("sorted.count", below(capacity.saturating_add(1))),
        ("sorted.ids", below(rows)),
        ("sorted.ids", Bound::Ascending),
        ("sorted.starts", Bound::Ascending),
        ("sorted.starts", below(places.saturating_add(1))),
        ("sorted.positions", below(positions)),
    ]
}

fn below(bound: usize) -> Bound {
    Bound::Columns(vec![bound as u64])
}

/// A step of an optimiser as kernels take it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Step {
    /// SGD, row-wise Adagrad, Adagrad, Adam.
    pub(crate) method: u32,
    pub(crate) rate: f32,
    /// What remains of a weight.
    pub(crate) kept: f32,
    pub(crate) eps: f32,
    pub(crate) betas: [f32; 2],
    /// How much of a number goes into each moment.
    pub(crate) new: [f32; 2],
    /// The factors that correct the bias of the moments.
    pub(crate) corrections: [f32; 2],
}

impl Step {
    pub(crate) const ROW_WISE_ADAGRAD: u32 = 1;

    pub(crate) fn of(op: &Optimiser) -> Self {
        // In f64: differences of numbers that may be close to each other.
        let kept = (1.0 - f64::from(op.rate) * f64::from(op.weight_decay)) as f32;
        let (rate, zeros, ones) = (op.rate, [0.0; 2], [1.0; 2]);
        let plain =
            |method, eps| Self { method, rate, kept, eps, betas: zeros, new: zeros, corrections: ones };
        match op.method {
            OptimiserMethod::Sgd => plain(0, 0.0),
            OptimiserMethod::RowWiseAdagrad { eps } => plain(Self::ROW_WISE_ADAGRAD, eps),
            OptimiserMethod::Adagrad { eps } => plain(2, eps),
            OptimiserMethod::Adam { beta1, beta2, eps, step } => {
                let betas = [beta1, beta2];
                let correction = |beta: f32| (1.0 / (1.0 - f64::from(beta).powf(step as f64))) as f32;
                let new = betas.map(|beta| (1.0 - f64::from(beta)) as f32);
                Self { betas, new, corrections: betas.map(correction), ..plain(3, eps) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "cuda")]
    #[test]
    fn digits_have_as_few_bits_as_suffice() {
        let bits = |rows| SortPlan::new(5, rows, 8, 2).digit_bits;
        assert_eq!([0, 1, 255, 256, 65_536, 1_000_000].map(bits), [0, 1, 8, 5, 6, 7]);
    }

    #[test]
    fn passes_cover_the_key_of_ids_outside() {
        let passes = |rows, bits| SortPlan::new(5, rows, bits, 2).passes;
        assert_eq!([0, 1, 255, 256, 65_535, 65_536].map(|rows| passes(rows, 8)), [0, 1, 1, 2, 2, 3]);
        assert_eq!([15, 16, usize::MAX].map(|rows| passes(rows, 4)), [1, 2, 8]);
        assert_eq!(SortPlan::new(5, 1, 8, 2).blocks, 3);
    }

    #[test]
    fn levels_end_at_a_window() {
        let nodes = |positions| head_levels(positions).iter().map(|level| level.nodes).collect::<Vec<_>>();
        assert_eq!(nodes(0), [1]);
        assert_eq!(nodes(1024), [32]);
        assert_eq!(nodes(1025), [33, 2]);
        assert_eq!(nodes(u32::MAX as usize).len(), 6);
        let firsts: Vec<usize> = head_levels(100_000).iter().map(|level| level.first).collect();
        assert_eq!(firsts, [0, 3125, 3223]);
    }
}
