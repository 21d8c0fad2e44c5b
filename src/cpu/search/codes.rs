//! Dot products and cosines of 8-bit codes, in integers: products of pairs of codes are added up exactly.

use std::ops::Range;

use crate::cpu::selection::{BLOCK, Scoring};
use crate::cpu::vector::{Integers, LANES, Lanes, Row, pair_products};
use crate::ops::{Search, SearchScore};

/// The widest rows whose products an `i32` adds up: `2¹⁴` each.
pub(super) const MAX_WIDTH: usize = 1 << 16;

/// Scores of codes.
pub(super) struct CodeScores<'a> {
    pub(super) op: &'a Search,
    pub(super) queries: &'a [i8],
    pub(super) keys: &'a [i8],
    pub(super) bias: Option<&'a [f32]>,
}

/// Up to sixteen candidates.
struct Group {
    /// `[⌈a/2⌉]` pairs of codes, one lane per candidate.
    pairs: Vec<Integers>,
    /// What a candidate's products are multiplied with.
    factors: Row,
}

/// Candidates of one user, and scratch for a block of the history.
pub(super) struct Block {
    groups: Vec<Group>,
    /// `[BLOCK, ⌈a/2⌉]` pairs of codes.
    pairs: Vec<i32>,
    /// The places of those rows in the block, in order.
    places: [usize; BLOCK],
    /// What a behaviour's products are multiplied with, and what is added.
    factors: [f32; BLOCK],
    bias: [f32; BLOCK],
}

/// A pair of codes, 16 bits each, in the order of memory.
fn pair(first: i8, second: i8) -> i32 {
    bytemuck::cast([i16::from(first), i16::from(second)])
}

/// The square of the length of a row, exactly.
#[inline(always)]
fn square(codes: &[i8]) -> i32 {
    codes.iter().map(|&code| i32::from(i16::from(code) * i16::from(code))).sum()
}

/// The factor that makes products cosines, on one side. Codes have a length of at least 1, or are zeros.
fn inverse_length(square: i32) -> f32 {
    (1.0 / f64::from(square.max(1)).sqrt()) as f32
}

impl Scoring for CodeScores<'_> {
    type Block = Block;

    #[inline(always)]
    fn start<L: Lanes>(&self, _: L, targets: Range<usize>) -> Block {
        let (width, pairs) = (self.op.width, self.op.width.div_ceil(2));
        let group = |first: usize| {
            let mut group = Group { pairs: vec![[0; LANES]; pairs], factors: [0.0; LANES] };
            for (lane, m) in (first..targets.end.min(first + LANES)).enumerate() {
                let codes = &self.queries[m * width..(m + 1) * width];
                for (place, codes) in group.pairs.iter_mut().zip(codes.chunks(2)) {
                    place[lane] = pair(codes[0], codes.get(1).copied().unwrap_or(0));
                }
                group.factors[lane] = match self.op.score {
                    SearchScore::Dot { scale } => scale,
                    _ => inverse_length(square(codes)),
                };
            }
            group
        };
        Block {
            groups: targets.clone().step_by(LANES).map(group).collect(),
            pairs: vec![0; BLOCK * pairs],
            places: std::array::from_fn(|i| i),
            factors: [1.0; BLOCK],
            bias: [0.0; BLOCK],
        }
    }

    #[inline(always)]
    fn read<L: Lanes>(&self, _: L, block: &mut Block, rows: Range<usize>, _next: Range<usize>) -> usize {
        let (width, pairs) = (self.op.width, self.op.width.div_ceil(2));
        let is_cosine = self.op.score == SearchScore::Cosine;
        let mut count = 0;
        for (place, row) in rows.enumerate() {
            let codes = &self.keys[row * width..(row + 1) * width];
            if is_cosine {
                let square = square(codes);
                if square == 0 {
                    continue;
                }
                block.factors[count] = inverse_length(square);
                block.places[count] = place;
            } else if let Some(bias) = self.bias {
                block.bias[count] = bias[row];
            }
            // Of an odd width the last pair's second code stays 0.
            let out: &mut [i16] =
                bytemuck::cast_slice_mut(&mut block.pairs[count * pairs..(count + 1) * pairs]);
            out.iter_mut().zip(codes).for_each(|(out, &code)| *out = code.into());
            count += 1;
        }
        count
    }

    #[inline(always)]
    fn place(block: &Block, index: usize) -> usize {
        block.places[index]
    }

    #[inline(always)]
    fn scores<L: Lanes>(&self, l: L, block: &Block, group: usize, scores: &mut [Row]) {
        let Group { pairs, factors } = &block.groups[group];
        pair_products(l, &block.pairs, pairs, bytemuck::cast_slice_mut(scores));
        for (i, score) in scores.iter_mut().enumerate() {
            let mut row = [0.0; LANES];
            for (number, score) in row.iter_mut().zip(&*score) {
                *number = score.to_bits().cast_signed() as f32;
            }
            let scaled = l.mul(l.load(&row), l.splat(block.factors[i]));
            l.store(score, l.mul_add(scaled, l.load(factors), l.splat(block.bias[i])));
        }
    }
}
