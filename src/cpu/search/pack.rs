//! Packed signs of rotated rows.

use crate::cpu::threads::for_each;
use crate::cpu::vector::{Instructions, Kernel, LANES, Lanes, Row, WideRows, product};
use crate::ops::Signs;

/// The number of rows that a thread packs at a time.
const ROWS: usize = 256;

/// The number of rows whose projections are computed together.
const BLOCK: usize = 32;

/// Writes the packed signs of all rows.
pub(super) fn pack(
    instructions: Instructions,
    op: &Signs,
    rows: WideRows<'_>,
    rotations: &[f32],
    out: &mut [u32],
) {
    let columns = columns(op, rotations);
    let parts = out.chunks_mut(ROWS * op.words()).enumerate();
    for_each(parts.collect(), |(part, out): (usize, &mut [u32])| {
        instructions.run(Pack { op, rows, columns: &columns, first: part * ROWS, out });
    });
}

/// `[⌈bits/LANES⌉, d]`: of each group of rotations, one lane per rotation.
fn columns(op: &Signs, rotations: &[f32]) -> Vec<Row> {
    let mut columns = vec![[0.0; LANES]; op.bits.div_ceil(LANES) * op.width];
    for (j, rotations) in rotations.chunks_exact(op.bits).enumerate() {
        for (i, &number) in rotations.iter().enumerate() {
            columns[i / LANES * op.width + j][i % LANES] = number;
        }
    }
    columns
}

/// Packs some rows, from the `first` on.
struct Pack<'a> {
    op: &'a Signs,
    rows: WideRows<'a>,
    columns: &'a [Row],
    first: usize,
    out: &'a mut [u32],
}

impl Kernel for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let (width, words) = (self.op.width, self.op.words());
        let mut scratch = Vec::new();
        let mut row = self.first;
        for out in self.out.chunks_mut(BLOCK * words) {
            let count = out.len() / words;
            let rows = self.rows.widen(l, row * width..(row + count) * width, &mut scratch);
            row += count;
            out.fill(0);
            for (part, columns) in self.columns.chunks_exact(width).enumerate() {
                product(l, rows, width, count, columns, |i, projections| {
                    let mut lanes = [0.0; LANES];
                    l.store(&mut lanes, projections);
                    // Lanes without a rotation hold 0, or NaN of rows that are not finite: no bits.
                    out[i * words + part / 2] |= positive(&lanes) << (part % 2 * LANES);
                });
            }
        }
    }
}

/// A bit for each lane that is above 0.
#[inline(always)]
fn positive(lanes: &Row) -> u32 {
    let mut bits = 0;
    for (lane, &number) in lanes.iter().enumerate() {
        bits |= u32::from(number > 0.0) << lane;
    }
    bits
}
