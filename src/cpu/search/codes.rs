//! Dot products and cosines of 8-bit codes, in integers: products of pairs of codes are added up exactly.

use std::ops::Range;

use crate::cpu::selection::{BLOCK, Scoring};
use crate::cpu::vector::{ByteProducts, Integers, LANES, Lanes, Row, pair_products};
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
    /// `[⌈a/2⌉]` pairs of codes, or `[⌈a/4⌉]` of four, one lane per candidate.
    codes: Vec<Integers>,
    /// What sums start with, where codes are multiplied four at a time.
    corrections: Integers,
    /// What a candidate's products are multiplied with.
    factors: Row,
}

/// Candidates of one user, and scratch for a block of the history.
pub(super) struct Block {
    groups: Vec<Group>,
    /// Multiplies codes four at a time, where the processor can; otherwise they are multiplied in pairs.
    bytes: Option<ByteProducts>,
    /// `[BLOCK, ⌈a/2⌉]` pairs of codes, or `[BLOCK, ⌈a/4⌉]` of four codes.
    rows: Vec<i32>,
    /// The squares of their lengths.
    squares: [i32; BLOCK],
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
fn length_squared(codes: &[i8]) -> i32 {
    codes.iter().map(|&code| i32::from(i16::from(code) * i16::from(code))).sum()
}

/// The factor that makes products cosines, on one side. Codes have a length of at least 1, or are zeros.
fn inverse_length(square: i32) -> f32 {
    (1.0 / f64::from(square.max(1)).sqrt()) as f32
}

impl Block {
    /// The number of words of a row.
    fn words(&self, width: usize) -> usize {
        width.div_ceil(if self.bytes.is_some() { 4 } else { 2 })
    }

    /// Reads the codes of rows, and the squares of their lengths.
    #[inline(always)]
    fn read_codes(&mut self, codes: &[i8], width: usize) {
        if let Some(bytes) = self.bytes {
            return bytes.read(codes, width, &mut self.rows, &mut self.squares);
        }
        let rows = self.rows.chunks_exact_mut(width.div_ceil(2)).zip(&mut self.squares);
        for (codes, (out, square)) in codes.chunks_exact(width).zip(rows) {
            *square = length_squared(codes);
            // Of an odd width the last pair's second code stays 0.
            let out: &mut [i16] = bytemuck::cast_slice_mut(out);
            out.iter_mut().zip(codes).for_each(|(out, &code)| *out = code.into());
        }
    }

    /// Moves the first `count` rows together where some between them are zeros; returns how many are not, whose factors are then set.
    #[inline(always)]
    fn leave_out_zeros(&mut self, count: usize, words: usize) -> usize {
        for (factor, &square) in self.factors.iter_mut().zip(&self.squares[..count]) {
            *factor = inverse_length(square);
        }
        let mut kept = 0;
        for place in 0..count {
            if self.squares[place] == 0 {
                continue;
            }
            if kept != place {
                self.rows.copy_within(place * words..(place + 1) * words, kept * words);
                self.factors[kept] = self.factors[place];
            }
            self.places[kept] = place;
            kept += 1;
        }
        kept
    }
}

/// The codes of candidates in lanes.
fn group(queries: &[i8], width: usize, score: SearchScore, bytes: Option<ByteProducts>) -> Group {
    let words = width.div_ceil(if bytes.is_some() { 4 } else { 2 });
    let mut group = Group { codes: vec![[0; LANES]; words], corrections: [0; LANES], factors: [0.0; LANES] };
    for (lane, codes) in queries.chunks_exact(width).enumerate() {
        if let Some(bytes) = bytes {
            for (place, codes) in group.codes.iter_mut().zip(codes.chunks(4)) {
                let mut four = [0; 4];
                four[..codes.len()].copy_from_slice(codes);
                place[lane] = bytemuck::cast(four);
            }
            group.corrections[lane] = bytes.correction(codes);
        } else {
            for (place, codes) in group.codes.iter_mut().zip(codes.chunks(2)) {
                place[lane] = pair(codes[0], codes.get(1).copied().unwrap_or(0));
            }
        }
        group.factors[lane] = match score {
            SearchScore::Dot { scale } => scale,
            _ => inverse_length(length_squared(codes)),
        };
    }
    group
}

impl Scoring for CodeScores<'_> {
    type Block = Block;

    #[inline(always)]
    fn start<L: Lanes>(&self, l: L, targets: Range<usize>) -> Block {
        let (width, score, bytes) = (self.op.width, self.op.score, ByteProducts::of(l));
        let queries = &self.queries[targets.start * width..targets.end * width];
        let mut block = Block {
            groups: queries
                .chunks(LANES * width)
                .map(|queries| group(queries, width, score, bytes))
                .collect(),
            bytes,
            rows: Vec::new(),
            squares: [0; BLOCK],
            places: std::array::from_fn(|i| i),
            factors: [1.0; BLOCK],
            bias: [0.0; BLOCK],
        };
        block.rows = vec![0; BLOCK * block.words(width)];
        block
    }

    #[inline(always)]
    fn read<L: Lanes>(&self, _: L, block: &mut Block, rows: Range<usize>, _next: Range<usize>) -> usize {
        let width = self.op.width;
        block.read_codes(&self.keys[rows.start * width..rows.end * width], width);
        if self.op.score == SearchScore::Cosine {
            return block.leave_out_zeros(rows.len(), block.words(width));
        }
        if let Some(bias) = self.bias {
            block.bias[..rows.len()].copy_from_slice(&bias[rows.clone()]);
        }
        rows.len()
    }

    #[inline(always)]
    fn place(block: &Block, index: usize) -> usize {
        block.places[index]
    }

    #[inline(always)]
    fn scores<L: Lanes>(&self, l: L, block: &Block, group: usize, scores: &mut [Row]) {
        let Group { codes, corrections, factors } = &block.groups[group];
        let sums = bytemuck::cast_slice_mut(scores);
        match block.bytes {
            Some(bytes) => bytes.products(&block.rows, codes, corrections, sums),
            None => pair_products(l, &block.rows, codes, sums),
        }
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
