//! Dot products and cosines of rows, in `f32`.

use std::ops::Range;

use crate::cpu::selection::{BLOCK, Queries, Scoring};
use crate::cpu::vector::{Lanes, Row, WideRows};
use crate::host::Host;
use crate::ops::{Search, SearchRows, SearchScore};

/// Rows that are read as `f32`.
pub(super) enum Numbers<'a> {
    Wide(WideRows<'a>),
    Codes(&'a [i8]),
    Int8 { codes: &'a [i8], scale: &'a [f32], offset: &'a [f32] },
}

impl<'a> Numbers<'a> {
    /// Rows of numbers; signs and keys, which are none, read as no rows.
    pub(super) fn of(rows: &SearchRows<'a, Host>) -> Self {
        match *rows {
            SearchRows::F32(rows) => Self::Wide(WideRows::new(rows.as_slice())),
            SearchRows::F16(rows) => Self::Wide(WideRows::new(rows.as_slice())),
            SearchRows::Bf16(rows) => Self::Wide(WideRows::new(rows.as_slice())),
            SearchRows::Codes(codes) => Self::Codes(codes.as_slice()),
            SearchRows::Int8 { codes, scale, offset } => {
                Self::Int8 { codes: codes.as_slice(), scale: scale.as_slice(), offset: offset.as_slice() }
            }
            SearchRows::Signs(_) | SearchRows::Keys(_) => Self::Codes(&[]),
        }
    }

    /// Reads a row.
    #[inline(always)]
    fn read<L: Lanes>(&self, l: L, row: usize, out: &mut [f32]) {
        let range = row * out.len()..(row + 1) * out.len();
        match self {
            Self::Wide(rows) => rows.widen_to(l, range, out),
            Self::Codes(codes) => {
                out.iter_mut().zip(&codes[range]).for_each(|(out, &code)| *out = f32::from(code));
            }
            Self::Int8 { codes, scale, offset } => {
                let (scale, offset) = (scale[row], offset[row]);
                let numbers = codes[range].iter().map(|&code| scale * f32::from(code) + offset);
                out.iter_mut().zip(numbers).for_each(|(out, number)| *out = number);
            }
        }
    }

    /// Some rows in place, where they are `f32`.
    #[inline(always)]
    fn in_place(&self, rows: Range<usize>, width: usize) -> Option<&'a [f32]> {
        match self {
            Self::Wide(WideRows::F32(numbers)) => Some(&numbers[rows.start * width..rows.end * width]),
            _ => None,
        }
    }
}

/// Scores of rows.
pub(super) struct RowScores<'a> {
    pub(super) op: &'a Search,
    pub(super) queries: Numbers<'a>,
    pub(super) keys: Numbers<'a>,
    pub(super) bias: Option<&'a [f32]>,
}

/// Candidates of one user, and scratch for a block of the history.
pub(super) struct Block<'a> {
    queries: Queries,
    in_place: Option<&'a [f32]>,
    /// Read, and for a cosine divided by their lengths.
    rows: Vec<f32>,
    /// The places of those rows in the block, in order.
    places: [usize; BLOCK],
    bias: [f32; BLOCK],
}

impl<'a> Scoring for RowScores<'a> {
    type Block = Block<'a>;

    #[inline(always)]
    fn start<L: Lanes>(&self, l: L, targets: Range<usize>) -> Block<'a> {
        let width = self.op.width;
        let queries = Queries::new(targets, width, |m, query| {
            self.queries.read(l, m, query);
            if self.op.score == SearchScore::Cosine {
                normalise(l, query);
            }
        });
        // Rows of f32 are read in place, unless they are normalised.
        let is_copied = self.op.score == SearchScore::Cosine || self.keys.in_place(0..0, width).is_none();
        let rows = vec![0.0; if is_copied { BLOCK * width } else { 0 }];
        Block { queries, in_place: None, rows, places: std::array::from_fn(|i| i), bias: [0.0; BLOCK] }
    }

    #[inline(always)]
    fn read<L: Lanes>(&self, l: L, block: &mut Block<'a>, rows: Range<usize>, _next: Range<usize>) -> usize {
        let width = self.op.width;
        if self.op.score == SearchScore::Cosine {
            let mut count = 0;
            for (place, row) in rows.enumerate() {
                let out = &mut block.rows[count * width..(count + 1) * width];
                self.keys.read(l, row, out);
                // A row of zeros is overwritten by the next one.
                if normalise(l, out) {
                    block.places[count] = place;
                    count += 1;
                }
            }
            return count;
        }
        if let Some(bias) = self.bias {
            block.bias[..rows.len()].copy_from_slice(&bias[rows.clone()]);
        }
        block.in_place = self.keys.in_place(rows.clone(), width);
        if block.in_place.is_none() {
            for (row, out) in rows.clone().zip(block.rows.chunks_exact_mut(width)) {
                self.keys.read(l, row, out);
            }
        }
        rows.len()
    }

    #[inline(always)]
    fn place(block: &Block<'a>, index: usize) -> usize {
        block.places[index]
    }

    #[inline(always)]
    fn scores<L: Lanes>(&self, l: L, block: &Block<'a>, group: usize, scores: &mut [Row]) {
        block.queries.products(l, group, block.in_place.unwrap_or(&block.rows), scores);
        if let SearchScore::Dot { scale } = self.op.score {
            let scale = l.splat(scale);
            for (scores, &bias) in scores.iter_mut().zip(&block.bias) {
                let scaled = l.mul_add(l.load(scores), scale, l.splat(bias));
                l.store(scores, scaled);
            }
        }
    }
}

/// Divides a row by its length, or by [`Search::MIN_NORM`] if that is more; returns whether there is a number other than 0. A row
/// with a number that is not finite becomes NaN. Takes the lanes so that it is compiled with their instructions.
#[inline(always)]
fn normalise<L: Lanes>(_: L, row: &mut [f32]) -> bool {
    /// Factors within a power of two of these are rounded to `f32` without loss.
    const MODERATE: std::ops::Range<f64> = 1e-30..1e30;
    // The square of an f32 is neither 0 nor infinite in f64, and a sum of any number of them is finite.
    let (chunks, tail) = row.as_chunks::<8>();
    let mut squares = [0.0f64; 8];
    for chunk in chunks {
        for (sum, &x) in squares.iter_mut().zip(chunk) {
            *sum += f64::from(x) * f64::from(x);
        }
    }
    let tail: f64 = tail.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let square = squares.iter().sum::<f64>() + tail;
    if !square.is_finite() {
        row.fill(f32::NAN);
        return true;
    }
    let factor = 1.0 / square.sqrt().max(Search::MIN_NORM.into());
    if MODERATE.contains(&factor) {
        row.iter_mut().for_each(|x| *x *= factor as f32);
    } else {
        row.iter_mut().for_each(|x| *x = (f64::from(*x) * factor) as f32);
    }
    square != 0.0
}
