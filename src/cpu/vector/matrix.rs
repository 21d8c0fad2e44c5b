//! Matrices whose rows are padded to whole vectors, and two products of them with lanes along the rows of the result. A tile of
//! sums stays in registers: every number of the left matrix is broadcast, every vector of the right one is loaded once per tile.

use std::array;

use super::lanes::{LANES, Lanes, Row, load_each};

/// Rows of `width` numbers, each padded to whole vectors.
#[derive(Debug, Clone, Default)]
pub(in crate::cpu) struct Matrix {
    data: Vec<Row>,
    /// The vectors of a row.
    vectors: usize,
}

impl Matrix {
    /// Zeros.
    pub(in crate::cpu) fn zeros(rows: usize, width: usize) -> Self {
        let vectors = width.div_ceil(LANES);
        Self { data: vec![[0.0; LANES]; rows * vectors], vectors }
    }

    /// Zeros, but for what `number` gives for row and column.
    pub(in crate::cpu) fn from_fn(rows: usize, width: usize, number: impl Fn(usize, usize) -> f32) -> Self {
        let mut matrix = Self::zeros(rows, width);
        for row in 0..rows {
            let numbers = matrix.row_mut(row).as_flattened_mut();
            numbers[..width].iter_mut().enumerate().for_each(|(column, out)| *out = number(row, column));
        }
        matrix
    }

    /// The vectors of a row.
    #[inline(always)]
    pub(in crate::cpu) fn vectors(&self) -> usize {
        self.vectors
    }

    #[inline(always)]
    pub(in crate::cpu) fn row(&self, row: usize) -> &[Row] {
        &self.data[row * self.vectors..][..self.vectors]
    }

    #[inline(always)]
    pub(in crate::cpu) fn row_mut(&mut self, row: usize) -> &mut [Row] {
        &mut self.data[row * self.vectors..][..self.vectors]
    }

    /// The number of rows.
    #[inline(always)]
    pub(in crate::cpu) fn rows(&self) -> usize {
        self.data.len() / self.vectors.max(1)
    }

    #[inline(always)]
    pub(in crate::cpu) fn rows_mut(&mut self) -> impl ExactSizeIterator<Item = &mut [Row]> {
        self.data.chunks_exact_mut(self.vectors.max(1))
    }

    /// The vectors of all rows.
    #[inline(always)]
    pub(in crate::cpu) fn data(&self) -> &[Row] {
        &self.data
    }

    #[inline(always)]
    pub(in crate::cpu) fn data_mut(&mut self) -> &mut [Row] {
        &mut self.data
    }
}

/// For the first `rows` rows of `a` and each vector of a row of `b`, calls `each` with the row, the vector's index and
/// `Σ_k a[row][k] · b[k]`, over the first `inner` numbers of a row of `a`.
#[inline(always)]
pub(in crate::cpu) fn multiply<L: Lanes>(
    l: L,
    a: (&[Row], usize),
    (rows, inner): (usize, usize),
    b: (&[Row], usize),
    mut each: impl FnMut(usize, usize, L::V),
) {
    let mut first = 0;
    while first < b.1 {
        match (L::REGISTERS, vectors_of_tile(b.1 - first)) {
            (1, 3) => product::<L, 8, 3>(l, a, (rows, inner), b, first, &mut each),
            (1, 2) => product::<L, 8, 2>(l, a, (rows, inner), b, first, &mut each),
            (1, _) => product::<L, 8, 1>(l, a, (rows, inner), b, first, &mut each),
            (2, _) => product::<L, 6, 1>(l, a, (rows, inner), b, first, &mut each),
            _ => product::<L, 3, 1>(l, a, (rows, inner), b, first, &mut each),
        }
        first += if L::REGISTERS == 1 { vectors_of_tile(b.1 - first) } else { 1 };
    }
}

/// Of `left` vectors, those of the next tile: three at most, and not one where two would do.
#[inline(always)]
fn vectors_of_tile(left: usize) -> usize {
    match left {
        4 => 2,
        _ => left.min(3),
    }
}

#[inline(always)]
fn product<L: Lanes, const R: usize, const V: usize>(
    l: L,
    (a, a_vectors): (&[Row], usize),
    (rows, inner): (usize, usize),
    (b, b_vectors): (&[Row], usize),
    first: usize,
    each: &mut impl FnMut(usize, usize, L::V),
) {
    let a = a.as_flattened();
    let b = &b[..inner * b_vectors];
    for top in (0..rows).step_by(R) {
        // Past the last row, the last one is read again and its sums are dropped.
        let row: [&[f32]; R] = array::from_fn(|i| &a[(top + i).min(rows - 1) * a_vectors * LANES..][..inner]);
        let mut sums = [[l.splat(0.0); V]; R];
        for k in 0..inner {
            let columns: &[Row; V] = b[k * b_vectors + first..][..V].try_into().expect("V vectors");
            let columns = load_each(l, columns);
            for i in 0..R {
                let number = l.splat(row[i][k]);
                for v in 0..V {
                    sums[i][v] = l.mul_add(number, columns[v], sums[i][v]);
                }
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            if top + i < rows {
                for (v, sum) in sums.into_iter().enumerate() {
                    each(top + i, first + v, sum);
                }
            }
        }
    }
}

/// For each of the first `columns` columns of `a` and each vector of a row of `b`, calls `each` with the column, the vector's
/// index and `Σ_k a[k][column] · b[k]`, over all rows of both.
#[inline(always)]
pub(in crate::cpu) fn multiply_transposed<L: Lanes>(
    l: L,
    a: (&[Row], usize),
    columns: usize,
    b: (&[Row], usize),
    mut each: impl FnMut(usize, usize, L::V),
) {
    let mut first = 0;
    while first < b.1 {
        match (L::REGISTERS, vectors_of_tile(b.1 - first)) {
            (1, 3) => outer::<L, 8, 3>(l, a, columns, b, first, &mut each),
            (1, 2) => outer::<L, 8, 2>(l, a, columns, b, first, &mut each),
            (1, _) => outer::<L, 8, 1>(l, a, columns, b, first, &mut each),
            (2, _) => outer::<L, 6, 1>(l, a, columns, b, first, &mut each),
            _ => outer::<L, 3, 1>(l, a, columns, b, first, &mut each),
        }
        first += if L::REGISTERS == 1 { vectors_of_tile(b.1 - first) } else { 1 };
    }
}

#[inline(always)]
fn outer<L: Lanes, const R: usize, const V: usize>(
    l: L,
    (a, a_vectors): (&[Row], usize),
    columns: usize,
    (b, b_vectors): (&[Row], usize),
    first: usize,
    each: &mut impl FnMut(usize, usize, L::V),
) {
    for left in (0..columns).step_by(R) {
        // The last tile begins earlier where the padding is too short for it, and drops the sums that it repeats.
        let start = left.min(a_vectors * LANES - R);
        let mut sums = [[l.splat(0.0); V]; R];
        for (a, b) in a.chunks_exact(a_vectors).zip(b.chunks_exact(b_vectors)) {
            let numbers: &[f32; R] = a.as_flattened()[start..][..R].try_into().expect("R numbers");
            let row: &[Row; V] = b[first..][..V].try_into().expect("V vectors");
            let row = load_each(l, row);
            for i in 0..R {
                let number = l.splat(numbers[i]);
                for v in 0..V {
                    sums[i][v] = l.mul_add(number, row[v], sums[i][v]);
                }
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            if (left..columns).contains(&(start + i)) {
                for (v, sum) in sums.into_iter().enumerate() {
                    each(start + i, first + v, sum);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::vector::instructions::{Instructions, Kernel};

    /// Both products of `a` and `b`: `a·b` with `rows` and `inner`, `aᵀ·b` with the rows of `b`.
    struct Products<'a> {
        a: &'a Matrix,
        b: &'a Matrix,
        rows: usize,
        inner: usize,
    }

    impl Kernel for Products<'_> {
        type Output = [Matrix; 2];

        #[inline(always)]
        fn run<L: Lanes>(self, l: L) -> [Matrix; 2] {
            let Self { a, b, rows, inner } = self;
            let n = b.vectors();
            let mut out = [Matrix::zeros(rows, n * LANES), Matrix::zeros(inner, n * LANES)];
            let right = (&b.data()[..inner * n], n);
            multiply(l, (a.data(), a.vectors()), (rows, inner), right, |i, v, sum| {
                l.store(&mut out[0].row_mut(i)[v], sum);
            });
            let right = (&b.data()[..rows * n], n);
            multiply_transposed(l, (a.data(), a.vectors()), inner, right, |i, v, sum| {
                l.store(&mut out[1].row_mut(i)[v], sum);
            });
            out
        }
    }

    #[test]
    fn products_of_every_size() {
        let number = |i: usize, j: usize| ((7 * i + 3 * j) % 11) as f32 - 5.0;
        for instructions in Instructions::available() {
            for (rows, inner) in [(1, 1), (5, 17), (8, 16), (13, 31), (20, 40)] {
                for width in [1, 16, 33, 64, 80, 100, 130] {
                    let (a, b) = (
                        Matrix::from_fn(rows, inner, number),
                        Matrix::from_fn(rows.max(inner), width, |i, j| number(j, i)),
                    );
                    let out = instructions.run(Products { a: &a, b: &b, rows, inner });
                    for column in 0..width {
                        let of = |matrix: &Matrix, row: usize| matrix.row(row).as_flattened()[column];
                        for row in 0..rows {
                            let exact: f32 = (0..inner).map(|k| number(row, k) * number(column, k)).sum();
                            assert_eq!(of(&out[0], row), exact);
                        }
                        for row in 0..inner {
                            let exact: f32 = (0..rows).map(|k| number(k, row) * number(column, k)).sum();
                            assert_eq!(of(&out[1], row), exact);
                        }
                    }
                }
            }
        }
    }
}
