//! Long sums of equal numbers: a chain of additions would be off by far more than the roundings that are allowed.
//!
//! Of random numbers the errors of a chain cancel, and a check of these alone lets it pass.

mod attention;
mod channels;
mod din;
mod selected;

use longseq::*;

use crate::case::Rules;
use crate::compare::{Bound, U, compare, roundings};
use crate::device::thorough;
use crate::registry::list_tests;

list_tests!("long_sums":
    a_chain_would_show,
    adds_up_attention_without_softmax,
    adds_up_gradients_of_attention,
    adds_up_din,
    adds_up_gradients_of_din,
    adds_up_selections,
    adds_up_gradients_of_selections,
    adds_up_channels,
    adds_up_gradients_of_channels,
);

use attention::{adds_up_attention_without_softmax, adds_up_gradients_of_attention};
use channels::{adds_up_channels, adds_up_gradients_of_channels};
use din::{adds_up_din, adds_up_gradients_of_din};
use selected::{adds_up_gradients_of_selections, adds_up_selections};

/// The terms of sums, and factors of terms.
const TENTH: f32 = 0.1;

/// How long sums are: an emulator, and tests that are not thorough, have no time for more.
fn length(rules: Rules) -> usize {
    if thorough() && !rules.slow { 200_000 } else { 20_000 }
}

/// Candidates of a user, of which sums are in two levels: more would show that there are only two.
const CANDIDATES: usize = 40_000;

/// The most that a sum of so many equal terms may be off, of its size: its roundings, and a few of the terms'.
fn allowed(length: usize) -> f64 {
    (roundings(length) + 16.0) * U
}

/// What a call wrote, what each number of it is to be, and the number of terms.
struct Sum {
    name: &'static str,
    got: Vec<f32>,
    exact: f64,
    terms: usize,
}

impl Sum {
    fn new(name: &'static str, got: Vec<f32>, exact: f64, terms: usize) -> Self {
        Self { name, got, exact, terms }
    }

    /// # Panics
    /// Where a number is off by more than roundings allow.
    fn check(&self, case: &str, rules: Rules) {
        let bound = Bound::uniform(allowed(self.terms) * self.exact.abs(), false);
        compare(self.name, &self.got, &vec![self.exact; self.got.len()], &bound, rules)
            .unwrap_or_else(|failure| panic!("{case}: {} terms: {failure}", self.terms));
    }
}

/// Checks what a call wrote.
fn check_all(case: &str, sums: Result<Vec<Sum>>, rules: Rules) {
    sums.unwrap_or_else(|error| panic!("{case}: {error}")).iter().for_each(|sum| sum.check(case, rules));
}

/// `f32` of any storage type.
fn download<B: Backend, T: Element>(backend: &B, buffer: &Buffer<B, T>) -> Result<Vec<f32>> {
    Ok(backend.download(backend.view(buffer))?.into_iter().map(T::to_f32).collect())
}

/// So many of a number.
fn all<B: Backend, T: Element>(backend: &B, number: f32, count: usize) -> Result<Buffer<B, T>> {
    backend.upload(&vec![T::from_f32(number); count])
}

/// One user.
fn batch<B: Backend>(backend: &B, behaviours: usize, candidates: usize) -> Result<B::Batch> {
    backend.batch(&Jagged::from_lengths(&[behaviours])?, &Jagged::from_lengths(&[candidates])?)
}

/// What these tests are worth: sums of the terms below, in a chain, are off by several times what is allowed.
fn a_chain_would_show<B: Backend>(_: &B, rules: Rules) {
    for term in [TENTH, TENTH * TENTH, 0.3 * TENTH] {
        let length = length(rules);
        let chain = (0..length).fold(0.0f32, |sum, _| sum + term);
        let exact = length as f64 * f64::from(term);
        let error = (f64::from(chain) / exact - 1.0).abs();
        assert!(error > 4.0 * allowed(length), "{length} times {term}: {error:.1e}");
    }
}
