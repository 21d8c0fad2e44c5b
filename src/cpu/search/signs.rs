//! Hamming distances of packed signs.

use std::ops::Range;

use crate::cpu::selection::{BLOCK, Scoring};
use crate::cpu::vector::{Integers, LANES, Lanes, Row, differing_bits};

/// Scores of packed signs.
pub(super) struct SignScores<'a> {
    pub(super) bits: usize,
    pub(super) queries: &'a [u32],
    pub(super) keys: &'a [u32],
}

/// Candidates of one user, and a block of the history.
pub(super) struct Block {
    /// For each group of sixteen candidates `[words]`, one lane per candidate.
    groups: Vec<Vec<Integers>>,
    /// `[BLOCK, words]`.
    words: Vec<i32>,
}

impl SignScores<'_> {
    fn words(&self) -> usize {
        self.bits.div_ceil(32)
    }

    /// The bits of the last word that count.
    fn mask(&self) -> u32 {
        u32::MAX >> (self.words() * 32 - self.bits)
    }
}

impl Scoring for SignScores<'_> {
    type Block = Block;

    #[inline(always)]
    fn start<L: Lanes>(&self, _: L, targets: Range<usize>) -> Block {
        let (words, mask) = (self.words(), self.mask());
        let group = |first: usize| {
            let mut group = vec![[0; LANES]; words];
            for (lane, m) in (first..targets.end.min(first + LANES)).enumerate() {
                let signs = &self.queries[m * words..(m + 1) * words];
                group.iter_mut().zip(signs).for_each(|(place, &word)| place[lane] = word.cast_signed());
                group[words - 1][lane] &= mask.cast_signed();
            }
            group
        };
        Block { groups: targets.clone().step_by(LANES).map(group).collect(), words: vec![0; BLOCK * words] }
    }

    #[inline(always)]
    fn read<L: Lanes>(&self, _: L, block: &mut Block, rows: Range<usize>, _next: Range<usize>) -> usize {
        let words = self.words();
        let keys = &self.keys[rows.start * words..rows.end * words];
        let out = &mut block.words[..keys.len()];
        out.copy_from_slice(bytemuck::cast_slice(keys));
        let mask = self.mask().cast_signed();
        out.iter_mut().skip(words - 1).step_by(words).for_each(|word| *word &= mask);
        rows.len()
    }

    #[inline(always)]
    fn scores<L: Lanes>(&self, l: L, block: &Block, group: usize, scores: &mut [Row]) {
        let bits = self.bits as i32;
        differing_bits(l, &block.words, &block.groups[group], bytemuck::cast_slice_mut(scores));
        for score in scores.as_flattened_mut() {
            *score = (bits - score.to_bits().cast_signed()) as f32;
        }
    }
}
