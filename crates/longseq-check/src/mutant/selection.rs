//! Wrong selections.

use longseq::EMPTY_SLOT;

use super::{Fault, Mutant};

impl Mutant {
    /// Changes the selection of the first candidates, as the fault has it.
    pub(super) fn spoil_selection(
        &self,
        top_k: usize,
        candidates: usize,
        (positions, scores, counts): (&mut [u32], &mut [f32], &mut [u32]),
    ) {
        for (m, count) in counts[..candidates].iter_mut().enumerate() {
            let slots = m * top_k..m * top_k + *count as usize;
            if self.is(Fault::KeepsOneLess) && *count as usize == top_k {
                *count -= 1;
                positions[slots.end - 1] = EMPTY_SLOT;
                scores[slots.end - 1] = f32::NEG_INFINITY;
            }
            if let Fault::KeepsAtMost(most) = self.0 {
                let slots = m * top_k + (most as usize).min(top_k)..(m + 1) * top_k;
                *count = (*count).min(most);
                positions[slots.clone()].fill(EMPTY_SLOT);
                scores[slots].fill(f32::NEG_INFINITY);
            }
            if self.is(Fault::TiesReversed) {
                let scores = &scores[slots.clone()];
                let mut start = 0;
                for group in scores.chunk_by(|a, b| a == b) {
                    positions[slots.clone()][start..start + group.len()].reverse();
                    start += group.len();
                }
            }
        }
    }
}
