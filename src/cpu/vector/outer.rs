//! Sums of rows with one weight per behaviour and lane: what a behaviour gets from sixteen candidates.

use std::array;

use super::lanes::{LANES, Lanes, Row};

/// `out[i] += Σ_lane weights[i][lane] · rows[lane]` over the first `used` lanes, where `rows` is `[used, vectors]`. The vectors
/// of `out[i]` begin at `i · stride`.
///
/// Each sum over the lanes starts from 0, so that the rounding errors of many candidates do not add up in one chain.
#[inline(always)]
pub(in crate::cpu) fn add_outer<L: Lanes>(
    l: L,
    (weights, used): (&[Row], usize),
    (rows, vectors): (&[Row], usize),
    (out, stride): (&mut [Row], usize),
) {
    // The most sums for which they, the vectors of a row and a broadcast fit in registers.
    let mut first = 0;
    if L::REGISTERS == 1 {
        while first + 4 <= vectors {
            columns::<L, 6, 4>(l, (weights, used), (rows, vectors), first, (out, stride));
            first += 4;
        }
    }
    while first < vectors {
        match L::REGISTERS {
            1 => columns::<L, 12, 1>(l, (weights, used), (rows, vectors), first, (out, stride)),
            2 => columns::<L, 5, 1>(l, (weights, used), (rows, vectors), first, (out, stride)),
            _ => columns::<L, 2, 1>(l, (weights, used), (rows, vectors), first, (out, stride)),
        }
        first += 1;
    }
}

/// The columns of `V` vectors from vector `first` on, `R` behaviours at a time.
#[inline(always)]
fn columns<L: Lanes, const R: usize, const V: usize>(
    l: L,
    (weights, used): (&[Row], usize),
    (rows, vectors): (&[Row], usize),
    first: usize,
    (out, stride): (&mut [Row], usize),
) {
    let count = weights.len();
    for behaviour in (0..count).step_by(R) {
        // Past the last behaviour, the last one is read again and its sums are dropped.
        let weight: [&Row; R] = array::from_fn(|i| &weights[(behaviour + i).min(count - 1)]);
        let mut sums = [[l.splat(0.0); V]; R];
        for (lane, row) in rows.chunks(vectors).enumerate().take(used.min(LANES)) {
            let row = &row[first..first + V];
            let row: [L::V; V] = array::from_fn(|v| l.load(&row[v]));
            for i in 0..R {
                let weight = l.splat(weight[i][lane]);
                for v in 0..V {
                    sums[i][v] = l.mul_add(weight, row[v], sums[i][v]);
                }
            }
        }
        for (i, sums) in sums.into_iter().enumerate().take(count - behaviour) {
            let out = &mut out[(behaviour + i) * stride + first..][..V];
            for v in 0..V {
                let sum = l.add(l.load(&out[v]), sums[v]);
                l.store(&mut out[v], sum);
            }
        }
    }
}
