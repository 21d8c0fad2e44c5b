//! The products of `product.rs` for few query rows, which would leave most lanes empty there. Here lanes run along the
//! rows in memory, whose widths must be multiples of [`LANES`].

use std::array;

use super::lanes::{LANES, Lanes, Row};

/// The largest number of query rows that counts as few.
pub(in crate::cpu) const FEW: usize = 4;

/// For each of the `count` rows of `rows`, `stride` apart, calls `each` with its index and its dot products with the
/// first `used` of the queries `[FEW, d]`.
#[inline(always)]
pub(in crate::cpu) fn product_of_few<L: Lanes>(
    l: L,
    rows: &[f32],
    stride: usize,
    count: usize,
    (queries, used): (&[Row], usize),
    mut each: impl FnMut(usize, [f32; FEW]),
) {
    match used {
        1 => dots::<L, 1>(l, rows, stride, count, queries, &mut each),
        2 => dots::<L, 2>(l, rows, stride, count, queries, &mut each),
        3 => dots::<L, 3>(l, rows, stride, count, queries, &mut each),
        _ => dots::<L, FEW>(l, rows, stride, count, queries, &mut each),
    }
}

#[inline(always)]
fn dots<L: Lanes, const R: usize>(
    l: L,
    rows: &[f32],
    stride: usize,
    count: usize,
    queries: &[Row],
    each: &mut impl FnMut(usize, [f32; FEW]),
) {
    let width = queries.len() / FEW;
    let query: [&[Row]; R] = array::from_fn(|i| &queries[i * width..][..width]);
    for (index, row) in rows.chunks(stride).take(count).enumerate() {
        let row = &row.as_chunks::<LANES>().0[..width];
        let mut sums = [l.splat(0.0); R];
        for (j, row) in row.iter().enumerate() {
            let row = l.load(row);
            for i in 0..R {
                sums[i] = l.mul_add(row, l.load(&query[i][j]), sums[i]);
            }
        }
        let mut dots = [0.0; FEW];
        for i in 0..R {
            dots[i] = l.sum(sums[i]);
        }
        each(index, dots);
    }
}

/// For each vector of [`LANES`] columns, calls `each` with its first column, the lane of `weights`, and
/// `Σ_i rows[i] · weights[i][lane]` over its columns.
#[inline(always)]
pub(in crate::cpu) fn weighted_sum_of_few<L: Lanes>(
    l: L,
    rows: &[f32],
    stride: usize,
    width: usize,
    (weights, used): (&[Row], usize),
    mut each: impl FnMut(usize, usize, &Row),
) {
    let mut first = 0;
    while first < width {
        let vectors = if width - first >= 4 * LANES && L::REGISTERS == 1 { 4 } else { 1 };
        match (vectors, used) {
            (4, 1) => sums::<L, 4, 1>(l, rows, stride, first, weights, &mut each),
            (4, 2) => sums::<L, 4, 2>(l, rows, stride, first, weights, &mut each),
            (4, _) => sums::<L, 4, FEW>(l, rows, stride, first, weights, &mut each),
            (_, 1) => sums::<L, 1, 1>(l, rows, stride, first, weights, &mut each),
            (_, 2) => sums::<L, 1, 2>(l, rows, stride, first, weights, &mut each),
            _ => sums::<L, 1, FEW>(l, rows, stride, first, weights, &mut each),
        }
        first += vectors * LANES;
    }
}

#[expect(
    clippy::needless_range_loop,
    reason = "loops of constant length keep the sums in registers; iterators do not"
)]
#[inline(always)]
fn sums<L: Lanes, const V: usize, const R: usize>(
    l: L,
    rows: &[f32],
    stride: usize,
    first: usize,
    weights: &[Row],
    each: &mut impl FnMut(usize, usize, &Row),
) {
    let mut sums = [[l.splat(0.0); R]; V];
    for (row, weights) in rows.chunks(stride).zip(weights) {
        let row = &row[first..].as_chunks::<LANES>().0[..V];
        for v in 0..V {
            let row = l.load(&row[v]);
            for i in 0..R {
                sums[v][i] = l.mul_add(l.splat(weights[i]), row, sums[v][i]);
            }
        }
    }
    let mut scratch = [0.0; LANES];
    for v in 0..V {
        for i in 0..R {
            l.store(&mut scratch, sums[v][i]);
            each(first + v * LANES, i, &scratch);
        }
    }
}
