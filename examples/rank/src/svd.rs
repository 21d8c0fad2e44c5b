//! Truncated singular value decomposition of a sparse 0/1 matrix, by subspace iteration (Halko, Martinsson and Tropp,
//! SIAM Review 2011, §4.5). The sparse matrix is used only in products with dense matrices of few columns, and these
//! are orthonormalised through their small Gram matrices, so the only dense algorithm is Jacobi's eigenvalue method.
//! The result does not depend on the number of threads.

use rayon::prelude::*;

use crate::progress::Progress;
use crate::protocol::Seeded;

/// Columns beyond those asked for, and the number of iterations. Both only affect the accuracy of the last factors.
const OVERSAMPLING: usize = 16;
const ITERATIONS: usize = 8;

/// Singular values below this share of the largest are rounding errors and count as 0: they are square roots of
/// eigenvalues, whose error is about 1e-16 of the largest.
pub(crate) const NEGLIGIBLE: f64 = 1e-7;

/// A matrix of zeros and ones: row `r` has ones at `columns[offsets[r]..offsets[r + 1]]`.
pub(crate) struct Sparse {
    offsets: Vec<usize>,
    columns: Vec<u32>,
}

impl Sparse {
    /// The user-item matrix: a one for each item that occurs among a user's events.
    pub(crate) fn new(users: &[Vec<u32>]) -> Self {
        let (mut offsets, mut columns) = (vec![0], Vec::new());
        for events in users {
            let mut items = events.clone();
            items.sort_unstable();
            items.dedup();
            columns.extend(items);
            offsets.push(columns.len());
        }
        Self { offsets, columns }
    }

    pub(crate) fn transposed(&self, columns: usize) -> Self {
        let mut offsets = vec![0; columns + 1];
        for &column in &self.columns {
            offsets[column as usize + 1] += 1;
        }
        for column in 0..columns {
            offsets[column + 1] += offsets[column];
        }
        let mut next = offsets.clone();
        let mut rows = vec![0; self.columns.len()];
        for (row, range) in self.offsets.windows(2).enumerate() {
            for &column in &self.columns[range[0]..range[1]] {
                rows[next[column as usize]] = row as u32;
                next[column as usize] += 1;
            }
        }
        Self { offsets, columns: rows }
    }

    fn rows(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of ones.
    pub(crate) fn ones(&self) -> usize {
        self.columns.len()
    }

    /// Number of ones of each row.
    pub(crate) fn row_sums(&self) -> impl Iterator<Item = usize> + '_ {
        self.offsets.windows(2).map(|range| range[1] - range[0])
    }

    /// The product with a dense matrix of `width` columns.
    fn times(&self, dense: &[f64], width: usize) -> Vec<f64> {
        let mut product = vec![0.0; self.rows() * width];
        product.par_chunks_mut(width).zip(self.offsets.par_windows(2)).for_each(|(row, range)| {
            for &column in &self.columns[range[0]..range[1]] {
                add_scaled(row, 1.0, &dense[column as usize * width..][..width]);
            }
        });
        product
    }
}

/// `V·Σ` and the diagonal of `Σ` in descending order, for the leading factors of `U·Σ·Vᵀ`.
pub(crate) struct Factors {
    /// Row-major, as many columns as `values`.
    rows: Vec<f64>,
    pub(crate) values: Vec<f64>,
}

impl Factors {
    /// The leading `width` factors, or as many as there are, of a matrix and its transpose.
    pub(crate) fn new(
        matrix: &Sparse,
        transpose: &Sparse,
        width: usize,
        seed: u64,
        progress: &Progress,
    ) -> Self {
        let columns = transpose.rows();
        let thin = (width + OVERSAMPLING).min(matrix.rows()).min(columns);
        let mut random = Seeded::new(seed);
        let mut basis: Vec<f64> =
            (0..columns * thin).map(|_| random.next() as f64 / u64::MAX as f64 - 0.5).collect();
        progress.stage("Factorising the user-item matrix", ITERATIONS + 1);
        for _ in 0..ITERATIONS {
            let product = transpose.times(&matrix.times(&basis, thin), thin);
            // A second pass removes the rounding errors of the first, which grow with the condition of the product.
            basis = orthonormal(&orthonormal(&product, thin), thin);
            progress.step();
        }
        // A ≈ (A·Q)·Qᵀ; with (A·Q)ᵀ·(A·Q) = W·Σ²·Wᵀ, V = Q·W.
        let (squares, vectors) = eigen(gram(&matrix.times(&basis, thin), thin), thin);
        let largest = squares.first().map_or(0.0, |square| square.max(0.0).sqrt());
        let kept = width.min(thin);
        let values: Vec<f64> = squares[..kept]
            .iter()
            .map(|square| square.max(0.0).sqrt())
            .map(|value| if value > NEGLIGIBLE * largest { value } else { 0.0 })
            .collect();
        let mut rows = times_columns(&basis, thin, &vectors, &values);
        fix_signs(&mut rows, kept);
        progress.step();
        Self { rows, values }
    }

    /// 0 past the last factor: a small matrix has fewer than asked for.
    pub(crate) fn get(&self, row: usize, factor: usize) -> f64 {
        let width = self.values.len();
        if factor < width { self.rows[row * width + factor] } else { 0.0 }
    }
}

/// Flips columns whose largest element by magnitude is negative. The decomposition leaves signs open, and SDIM's
/// signatures depend on them.
fn fix_signs(rows: &mut [f64], width: usize) {
    let mut largest = vec![0.0_f64; width];
    for row in rows.chunks(width) {
        for (largest, &value) in largest.iter_mut().zip(row) {
            if value.abs() > largest.abs() {
                *largest = value;
            }
        }
    }
    for row in rows.chunks_mut(width) {
        for (value, largest) in row.iter_mut().zip(&largest) {
            *value *= largest.signum();
        }
    }
}

/// A matrix with orthonormal columns that span those of `dense`; columns of zeros stand in for missing directions.
fn orthonormal(dense: &[f64], width: usize) -> Vec<f64> {
    // With DᵀD = W·Λ·Wᵀ, the columns of D·W·Λ^(-1/2) are orthonormal (Stathopoulos and Wu, 2002).
    let (values, vectors) = eigen(gram(dense, width), width);
    let least = values.first().map_or(0.0, |largest| largest * 1e-14);
    let scales: Vec<f64> =
        values.iter().map(|&value| if value > least { 1.0 / value.sqrt() } else { 0.0 }).collect();
    times_columns(dense, width, &vectors, &scales)
}

/// `DᵀD` of a matrix of `width` columns.
fn gram(dense: &[f64], width: usize) -> Vec<f64> {
    // Blocks of fixed size, summed in order: the result does not depend on the number of threads.
    const ROWS: usize = 1024;
    let of_block = |block: &[f64]| {
        let mut sum = vec![0.0; width * width];
        for row in block.chunks(width) {
            for (sum, &value) in sum.chunks_mut(width).zip(row) {
                add_scaled(sum, value, row);
            }
        }
        sum
    };
    let blocks: Vec<Vec<f64>> = dense.par_chunks(ROWS * width).map(of_block).collect();
    let mut sum = vec![0.0; width * width];
    for block in &blocks {
        add_scaled(&mut sum, 1.0, block);
    }
    sum
}

/// `D·W·diag(scales)`, where row `j` of `vectors` is column `j` of `W`; as many columns as there are scales.
fn times_columns(dense: &[f64], width: usize, vectors: &[f64], scales: &[f64]) -> Vec<f64> {
    let kept = scales.len();
    // Row-major `W·diag(scales)`, so that the inner loop runs over adjacent numbers.
    let scaled: Vec<f64> = (0..width)
        .flat_map(|i| scales.iter().enumerate().map(move |(j, scale)| vectors[j * width + i] * scale))
        .collect();
    let mut product = vec![0.0; dense.len() / width * kept];
    product.par_chunks_mut(kept).zip(dense.par_chunks(width)).for_each(|(out, row)| {
        for (&value, scaled) in row.iter().zip(scaled.chunks(kept)) {
            add_scaled(out, value, scaled);
        }
    });
    product
}

fn add_scaled(sum: &mut [f64], scale: f64, row: &[f64]) {
    for (sum, value) in sum.iter_mut().zip(row) {
        *sum += scale * value;
    }
}

/// Eigenvalues of a symmetric matrix in descending order, and its eigenvectors as rows, by Jacobi's method: each
/// rotation makes one pair of off-diagonal elements zero (Golub and Van Loan, Matrix Computations, §8.5).
fn eigen(mut matrix: Vec<f64>, width: usize) -> (Vec<f64>, Vec<f64>) {
    const MAX_SWEEPS: usize = 60;
    // Elements below this are smaller than the rounding errors of the matrix itself.
    let negligible = 1e-18 * (0..width).map(|i| matrix[i * width + i]).sum::<f64>();
    let mut vectors: Vec<f64> =
        (0..width * width).map(|i| f64::from(u8::from(i % (width + 1) == 0))).collect();
    for _ in 0..MAX_SWEEPS {
        let mut is_diagonal = true;
        for p in 0..width {
            for q in p + 1..width {
                let (pp, qq, pq) = (matrix[p * width + p], matrix[q * width + q], matrix[p * width + q]);
                if pq.abs() <= negligible.max(f64::EPSILON * (pp * qq).abs().sqrt()) {
                    continue;
                }
                is_diagonal = false;
                let half_cot = (qq - pp) / (2.0 * pq);
                let tan = half_cot.signum() / (half_cot.abs() + half_cot.hypot(1.0));
                let cos = 1.0 / tan.hypot(1.0);
                let rotation = [cos, tan * cos];
                rotate_rows(&mut matrix, width, p, q, rotation);
                for row in matrix.chunks_mut(width) {
                    (row[p], row[q]) = rotated(row[p], row[q], rotation);
                }
                rotate_rows(&mut vectors, width, p, q, rotation);
            }
        }
        if is_diagonal {
            break;
        }
    }
    let mut order: Vec<usize> = (0..width).collect();
    let value = |i: usize| matrix[i * width + i];
    order.sort_by(|&a, &b| value(b).total_cmp(&value(a)));
    let sorted = order.iter().flat_map(|&i| &vectors[i * width..][..width]).copied().collect();
    (order.into_iter().map(value).collect(), sorted)
}

fn rotate_rows(matrix: &mut [f64], width: usize, p: usize, q: usize, rotation: [f64; 2]) {
    let (head, tail) = matrix.split_at_mut(q * width);
    for (a, b) in head[p * width..][..width].iter_mut().zip(&mut tail[..width]) {
        (*a, *b) = rotated(*a, *b, rotation);
    }
}

fn rotated(a: f64, b: f64, [cos, sin]: [f64; 2]) -> (f64, f64) {
    (cos * a - sin * b, sin * a + cos * b)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 30 users and 20 items.
    fn known() -> Vec<Vec<u32>> {
        (0..30u32)
            .map(|user| (0..20).filter(|item| (user * 7 + item * item * 3) % 11 < 4).collect())
            .collect()
    }

    fn factors(known: &[Vec<u32>], items: usize, width: usize) -> Factors {
        let matrix = Sparse::new(known);
        Factors::new(&matrix, &matrix.transposed(items), width, 1, &Progress::hidden())
    }

    #[test]
    fn all_factors_reproduce_the_number_of_users_two_items_share() {
        let known = known();
        let factors = factors(&known, 20, 64);
        for (i, j) in (0..20).flat_map(|i| (0..20).map(move |j| (i, j))) {
            let shared = known.iter().filter(|items| items.contains(&i) && items.contains(&j)).count() as f64;
            let product: f64 = (0..20).map(|f| factors.get(i as usize, f) * factors.get(j as usize, f)).sum();
            assert!((product - shared).abs() < 1e-9, "items {i} and {j}: {product} for {shared}");
        }
    }

    #[test]
    fn factors_are_orthogonal_with_the_singular_values_as_lengths() {
        let factors = factors(&known(), 20, 64);
        let largest = factors.values[0];
        assert!(factors.values.is_sorted_by(|a, b| a >= b));
        for (a, b) in (0..20).flat_map(|a| (0..20).map(move |b| (a, b))) {
            let product: f64 = (0..20).map(|item| factors.get(item, a) * factors.get(item, b)).sum();
            let expected = if a == b { factors.values[a].powi(2) } else { 0.0 };
            assert!((product - expected).abs() < 1e-9 * largest * largest, "factors {a} and {b}: {product}");
        }
    }

    #[test]
    fn the_largest_element_of_every_factor_is_positive() {
        let mut rows = [1.0, -2.0, 0.0, -3.0, 1.5, 0.0];
        fix_signs(&mut rows, 3);
        assert_eq!(rows, [-1.0, 2.0, 0.0, 3.0, -1.5, 0.0]);
    }

    #[test]
    fn few_factors_are_the_leading_ones_of_all() {
        let known = known();
        let (few, all) = (factors(&known, 20, 3), factors(&known, 20, 64));
        assert_eq!(few.values.len(), 3);
        for (j, value) in few.values.iter().enumerate() {
            assert!((value - all.values[j]).abs() < 1e-9 * all.values[0], "factor {j}");
        }
    }

    #[test]
    fn a_matrix_of_rank_2_has_two_factors() {
        // Four users, two of whom have the same items as two others.
        let factors = factors(&[vec![0, 1], vec![0, 1], vec![2], vec![2], vec![]], 5, 4);
        let expected = [2.0, 2f64.sqrt(), 0.0, 0.0];
        for (value, expected) in factors.values.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-12, "{:?}", factors.values);
        }
        assert!((0..5).all(|item| factors.get(item, 2) == 0.0 && factors.get(item, 9) == 0.0));
    }

    #[test]
    fn the_result_does_not_depend_on_the_number_of_threads() {
        let known: Vec<Vec<u32>> = (0..3000u32).map(|user| vec![user % 37, user % 11, user % 1500]).collect();
        let with_threads = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| factors(&known, 1500, 5)).rows
        };
        assert!(with_threads(1) == with_threads(3));
    }
}
