//! Item embeddings from a truncated SVD of who met what.
//!
//! `A [users, items]` is 1 where a user met an item, from known events only. With `A ≈ U·Σ·Vᵀ`, item `i` is row `i` of
//! `V·Σ`, so that dot products of rows approximate how many users two items share. Each row is then scaled to length
//! `√width` (components of mean square 1, as after layer normalisation). The attention table is the same matrix cut
//! to its first few columns, scaled again. An item in no known event gets a row of zeros.

use faer::{Mat, Par};
use rayon::prelude::*;

use crate::Outcome;
use crate::protocol::Seeded;
use crate::report::Progress;

/// The embedding tables, `[items, width]` each.
pub(crate) struct Embeddings {
    pub(crate) items: usize,
    pub(crate) width: usize,
    /// For interests and scores.
    pub(crate) full: Vec<f32>,
    pub(crate) attention_width: usize,
    /// For the search of decoupled embeddings: the first columns of the same decomposition.
    pub(crate) attention: Vec<f32>,
    /// How much of `Σ A²` the decomposition holds, 0 to 1.
    pub(crate) held: f64,
    /// How many users met each item.
    pub(crate) popularity: Vec<u32>,
}

/// More directions than asked for, and the rounds that turn them to the leading ones (Halko, Martinsson and Tropp,
/// SIAM Review 2011, §4.5 and §10.3). Both only decide how exact the last few factors are.
const EXTRA: usize = 16;
const ROUNDS: usize = 8;

/// A factor below this share of the largest is rounding and counts as 0.
const NEGLIGIBLE: f64 = 1e-9;

impl Embeddings {
    /// Decomposes what users met.
    pub(crate) fn new(
        known: &[Vec<u32>],
        items: usize,
        [width, attention_width]: [usize; 2],
        seed: u64,
        progress: &Progress,
    ) -> Outcome<Self> {
        let met = Sparse::new(known);
        let met_by = met.transposed(items);
        let factors = factors(&met, &met_by, width, seed, progress)?;
        let popularity: Vec<u32> = met_by.rows.windows(2).map(|row| (row[1] - row[0]) as u32).collect();
        let table = |width: usize| {
            let mut table = Vec::with_capacity(items * width);
            for (item, &users) in popularity.iter().enumerate() {
                let row: Vec<f64> = (0..width).map(|j| factors.get(item, j)).collect();
                let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
                // The exact row is at most √users long; what is far below is rounding.
                let known = length > NEGLIGIBLE * f64::from(users).sqrt();
                let scale = if known { (width as f64).sqrt() / length } else { 0.0 };
                table.extend(row.iter().map(|x| (x * scale) as f32));
            }
            table
        };
        let held =
            factors.values.iter().map(|value| value * value).sum::<f64>() / met.columns.len().max(1) as f64;
        let (full, attention) = (table(width), table(attention_width));
        Ok(Self { items, width, full, attention_width, attention, held, popularity })
    }

    /// One row of the full table.
    pub(crate) fn row(&self, item: u32) -> &[f32] {
        &self.full[item as usize * self.width..][..self.width]
    }
}

/// A matrix of zeros and ones: row `r` has ones at `columns[rows[r]..rows[r + 1]]`.
struct Sparse {
    rows: Vec<usize>,
    columns: Vec<u32>,
}

impl Sparse {
    fn new(users: &[Vec<u32>]) -> Self {
        let (mut rows, mut columns) = (vec![0], Vec::new());
        for events in users {
            let mut met = events.clone();
            met.sort_unstable();
            met.dedup();
            columns.extend(met);
            rows.push(columns.len());
        }
        Self { rows, columns }
    }

    fn transposed(&self, items: usize) -> Self {
        let mut rows = vec![0; items + 1];
        for &item in &self.columns {
            rows[item as usize + 1] += 1;
        }
        for item in 0..items {
            rows[item + 1] += rows[item];
        }
        let mut next = rows.clone();
        let mut columns = vec![0; self.columns.len()];
        for (user, range) in self.rows.windows(2).enumerate() {
            for &item in &self.columns[range[0]..range[1]] {
                columns[next[item as usize]] = user as u32;
                next[item as usize] += 1;
            }
        }
        Self { rows, columns }
    }

    /// This matrix times a dense one of `width` columns, row by row.
    fn times(&self, dense: &[f64], width: usize) -> Vec<f64> {
        let mut product = vec![0.0; (self.rows.len() - 1) * width];
        product.par_chunks_mut(width).zip(self.rows.par_windows(2)).for_each(|(sum, range)| {
            for &column in &self.columns[range[0]..range[1]] {
                for (sum, value) in sum.iter_mut().zip(&dense[column as usize * width..][..width]) {
                    *sum += value;
                }
            }
        });
        product
    }
}

/// `V·Σ`, row by row, and the diagonal of `Σ`, largest first.
struct Factors {
    rows: Vec<f64>,
    values: Vec<f64>,
}

impl Factors {
    /// 0 behind the last factor: a small matrix has fewer than asked for.
    fn get(&self, item: usize, factor: usize) -> f64 {
        let width = self.values.len();
        if factor < width { self.rows[item * width + factor] } else { 0.0 }
    }
}

/// Truncated SVD by subspace iteration: touches the sparse matrix only through products with a thin dense one.
fn factors(met: &Sparse, met_by: &Sparse, width: usize, seed: u64, progress: &Progress) -> Outcome<Factors> {
    // In turn, so that the bits do not depend on the number of threads.
    faer::set_global_parallelism(Par::Seq);
    let (users, items) = (met.rows.len() - 1, met_by.rows.len() - 1);
    let thin = (width + EXTRA).min(users).min(items);
    let mut random = Seeded::new(seed);
    let mut basis: Vec<f64> =
        (0..items * thin).map(|_| random.next() as f64 / u64::MAX as f64 - 0.5).collect();
    progress.stage("Factorising who met what", ROUNDS + 1);
    for _ in 0..ROUNDS {
        let spread = met_by.times(&met.times(&basis, thin), thin);
        let orthogonal = dense(&spread, thin).qr().compute_thin_Q();
        basis = (0..items).flat_map(|i| (0..thin).map(move |j| (i, j))).map(|at| orthogonal[at]).collect();
        progress.step();
    }
    // A ≈ (A·Q)·Qᵀ; with A·Q = U·Σ·Wᵀ, V = Q·W.
    let svd = dense(&met.times(&basis, thin), thin)
        .thin_svd()
        .map_err(|error| format!("the singular value decomposition failed: {error:?}"))?;
    let kept = width.min(thin);
    let largest = svd.S()[0];
    let values: Vec<f64> = (0..kept)
        .map(|j| svd.S()[j])
        .map(|value| if value > NEGLIGIBLE * largest { value } else { 0.0 })
        .collect();
    let rotated = dense(&basis, thin) * svd.V();
    let rows = (0..items).flat_map(|i| (0..kept).map(move |j| (i, j)));
    let rows = rows.map(|(i, j)| rotated[(i, j)] * values[j]).collect();
    progress.step();
    Ok(Factors { rows, values })
}

fn dense(rows: &[f64], width: usize) -> Mat<f64> {
    Mat::from_fn(rows.len() / width, width, |i, j| rows[i * width + j])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 30 users, 20 items, met by a rule.
    fn known() -> Vec<Vec<u32>> {
        (0..30u32)
            .map(|user| (0..20).filter(|item| (user * 7 + item * item * 3) % 11 < 4).collect())
            .collect()
    }

    #[test]
    fn all_factors_give_back_how_many_users_two_items_share() {
        let known = known();
        let met = Sparse::new(&known);
        let factors = factors(&met, &met.transposed(20), 64, 1, &Progress::hidden()).unwrap();
        for (i, j) in (0..20).flat_map(|i| (0..20).map(move |j| (i, j))) {
            let shared = known.iter().filter(|met| met.contains(&i) && met.contains(&j)).count() as f64;
            let product: f64 = (0..20).map(|f| factors.get(i as usize, f) * factors.get(j as usize, f)).sum();
            assert!((product - shared).abs() < 1e-9, "items {i} and {j}: {product} for {shared}");
        }
    }

    #[test]
    fn few_factors_are_the_leading_ones_of_the_dense_decomposition() {
        let known = known();
        let met = Sparse::new(&known);
        let ones = |i: usize, j: usize| f64::from(u8::from(known[i].contains(&(j as u32))));
        let dense = Mat::from_fn(30, 20, ones).thin_svd().unwrap();
        let factors = factors(&met, &met.transposed(20), 3, 1, &Progress::hidden()).unwrap();
        assert_eq!(factors.values.len(), 3);
        for (j, value) in factors.values.iter().enumerate() {
            assert!((value - dense.S()[j]).abs() < 1e-9 * dense.S()[0], "factor {j}");
        }
    }

    #[test]
    fn rows_have_the_length_of_their_width_and_unknown_items_are_zero() {
        // Item 2 is in no event; one user only, so there is but one factor.
        let embeddings = Embeddings::new(&[vec![0, 1, 1, 3]], 4, [8, 2], 1, &Progress::hidden()).unwrap();
        let squares = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>();
        for item in [0, 1, 3] {
            assert!((squares(embeddings.row(item)) - 8.0).abs() < 1e-5);
        }
        assert_eq!(embeddings.row(2), [0.0; 8]);
        assert!((squares(&embeddings.attention[..2]) - 2.0).abs() < 1e-6);
        assert_eq!(embeddings.popularity, [1, 1, 0, 1]);
        assert!((embeddings.held - 1.0).abs() < 1e-9);
    }
}
