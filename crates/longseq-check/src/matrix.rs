//! Matrices in `f64`: a model's projections, in tests that compute whole layers.

use std::ops::Range;

use longseq::*;

use crate::case::Rules;
use crate::compare::compare;
use crate::golden::{self, Golden};

/// A matrix, `[rows, columns]`.
pub(crate) struct Matrix {
    columns: usize,
    numbers: Vec<f64>,
}

impl Matrix {
    pub(crate) fn load(golden: &Golden, name: &str) -> Self {
        Self { columns: golden.shape(name)[1], numbers: golden.f64(name) }
    }

    fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.numbers.chunks(self.columns)
    }

    pub(crate) fn transposed(&self) -> Self {
        let columns = self.numbers.len() / self.columns;
        let numbers = (0..self.columns).flat_map(|column| self.rows().map(move |row| row[column])).collect();
        Self { columns, numbers }
    }

    /// `self · otherᵀ`, as of rows and PyTorch's weights.
    pub(crate) fn times(&self, other: &Self) -> Self {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum();
        let numbers = self.rows().flat_map(|a| other.rows().map(move |b| dot(a, b))).collect();
        Self { columns: other.numbers.len() / other.columns, numbers }
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        let numbers = self.numbers.iter().zip(&other.numbers).map(|(a, b)| a + b).collect();
        Self { columns: self.columns, numbers }
    }

    /// Some columns of it, such as a head's.
    pub(crate) fn part(&self, columns: Range<usize>) -> Self {
        let numbers = self.rows().flat_map(|row| row[columns.clone()].to_vec()).collect();
        Self { columns: columns.len(), numbers }
    }

    pub(crate) fn upload<B: Backend>(&self, backend: &B) -> Result<Buffer<B, f32>> {
        backend.upload(&self.numbers.iter().map(|&x| x as f32).collect::<Vec<_>>())
    }

    pub(crate) fn download<B: Backend>(backend: &B, buffer: &Buffer<B, f32>, columns: usize) -> Result<Self> {
        let numbers = backend.download(backend.view(buffer))?.into_iter().map(f64::from).collect();
        Ok(Self { columns, numbers })
    }

    /// # Panics
    /// Where it is not the file's tensor of this name.
    pub(crate) fn assert_close(&self, name: &str, golden: &Golden, rules: Rules) {
        let got: Vec<f32> = self.numbers.iter().map(|&x| x as f32).collect();
        let expected = golden.f64(name);
        compare(name, &got, &expected, &golden::bound(&expected), rules).unwrap();
    }
}
