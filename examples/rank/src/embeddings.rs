//! Item embeddings from a truncated SVD of the user-item matrix.
//!
//! `A [users, items]` is 1 where a user interacted with an item, from known events only. With `A ≈ U·Σ·Vᵀ`, item `i` is
//! row `i` of `V·Σ`, so that dot products of rows approximate the number of users that two items share. Each row is then
//! scaled to length `√width` (components of mean square 1, as after layer normalisation). The attention table is the
//! first few columns of the same matrix, scaled likewise. An item without known events gets a row of zeros.

use crate::progress::Progress;
use crate::svd::{Factors, NEGLIGIBLE, Sparse};

/// Embedding tables, `[items, width]` each.
#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) items: usize,
    pub(crate) width: usize,
    /// For interests and scores.
    pub(crate) full: Vec<f32>,
    pub(crate) attention_width: usize,
    /// For the search of decoupled embeddings.
    pub(crate) attention: Vec<f32>,
    /// For the queries of target attention, if they are not the embeddings.
    pub(crate) queries: Option<Vec<f32>>,
}

impl Tables {
    /// One row of the full table.
    pub(crate) fn row(&self, item: u32) -> &[f32] {
        &self.full[item as usize * self.width..][..self.width]
    }
}

/// Embeddings that nothing was trained for.
pub(crate) struct Embeddings {
    pub(crate) tables: Tables,
    /// Share of the sum of squares of `A` that the decomposition explains, 0 to 1.
    pub(crate) explained: f64,
    /// Number of users of each item.
    pub(crate) popularity: Vec<u32>,
}

impl Embeddings {
    /// Embeddings from each user's known items.
    pub(crate) fn new(
        known: &[Vec<u32>],
        items: usize,
        [width, attention_width]: [usize; 2],
        seed: u64,
        progress: &Progress,
    ) -> Self {
        let by_user = Sparse::new(known);
        let by_item = by_user.transposed(items);
        let factors = Factors::new(&by_user, &by_item, width, seed, progress);
        let popularity: Vec<u32> = by_item.row_sums().map(|users| users as u32).collect();
        let table = |width: usize| {
            let mut table = Vec::with_capacity(items * width);
            for (item, &users) in popularity.iter().enumerate() {
                let row: Vec<f64> = (0..width).map(|j| factors.get(item, j)).collect();
                let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
                // The exact row is at most √users long; a row far below that is rounding error.
                let is_known = length > NEGLIGIBLE * f64::from(users).sqrt();
                let scale = if is_known { (width as f64).sqrt() / length } else { 0.0 };
                table.extend(row.iter().map(|x| (x * scale) as f32));
            }
            table
        };
        let explained = factors.values.iter().map(|value| value * value).sum::<f64>();
        let explained = explained / by_user.ones().max(1) as f64;
        let (full, attention) = (table(width), table(attention_width));
        let tables = Tables { items, width, full, attention_width, attention, queries: None };
        Self { tables, explained, popularity }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_length_root_width_and_unknown_items_are_zero() {
        // Item 2 has no event; with one user there is only one factor.
        let embeddings = Embeddings::new(&[vec![0, 1, 1, 3]], 4, [8, 2], 1, &Progress::hidden());
        let squares = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>();
        for item in [0, 1, 3] {
            assert!((squares(embeddings.tables.row(item)) - 8.0).abs() < 1e-5);
        }
        assert_eq!(embeddings.tables.row(2), [0.0; 8]);
        assert!((squares(&embeddings.tables.attention[..2]) - 2.0).abs() < 1e-6);
        assert_eq!(embeddings.popularity, [1, 1, 0, 1]);
        assert!((embeddings.explained - 1.0).abs() < 1e-9);
    }
}
