//! Rows so wide that a sum of their products must not be one chain of additions.

use longseq::half::bf16;
use longseq::*;

use super::hostile::{Kept, search};
use crate::case::{Failure, Rules};
use crate::compare::U;

/// How a device stores rows of a type.
type Stored<B, T> =
    for<'a> fn(View<'a, <B as DeviceOps>::Memory, T>) -> SearchRows<'a, <B as DeviceOps>::Memory>;

fn f32_rows<M: Memory>(rows: View<'_, M, f32>) -> SearchRows<'_, M> {
    SearchRows::F32(rows)
}

fn bf16_rows<M: Memory>(rows: View<'_, M, bf16>) -> SearchRows<'_, M> {
    SearchRows::Bf16(rows)
}

/// Two equal behaviours, and equal candidates, all of whose numbers are equal, too.
fn search_equal<B: Backend, T: Element>(
    backend: &B,
    op: &Search,
    candidates: usize,
    stored: Stored<B, T>,
) -> Result<Kept> {
    let all = |number: f32, rows: usize| backend.upload(&vec![T::from_f32(number); rows * op.width]);
    let (queries, keys) = (all(0.1, candidates)?, all(0.3, 2)?);
    let inputs = SimilarityInputs::new(stored(backend.view(&queries)), stored(backend.view(&keys)));
    search(backend, op, candidates, 2, inputs)
}

/// Sums of equal products, which show a long chain of additions: blocks of 4096 and then the blocks.
pub(super) fn adds_up_wide_rows_by_blocks<B: Backend>(backend: &B, rules: Rules) {
    // A tile of an emulator's device computes as many candidates as it has places for.
    let sizes: &[(usize, usize)] = match rules.slow {
        true => &[(70_000, 1), (40_001, 3)],
        false => &[(70_000, 1), (70_000, 4), (99_999, 5), (99_997, 17), (70_001, 1)],
    };
    for &(width, candidates) in sizes {
        adds_up_a_wide_row(backend, width, candidates).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

/// Scores of equal rows of this width.
///
/// # Errors
/// Where a score is off by more than the roundings of a block of 4096 products, and of the blocks.
pub fn adds_up_a_wide_row<B: Backend>(backend: &B, width: usize, candidates: usize) -> Result<(), Failure> {
    let dot = Search::dot(width).with_top_k(2).with_scale(1.0);
    let cosine = Search::cosine(width).with_top_k(2);
    let exact = |number: fn(f32) -> f32| width as f64 * f64::from(number(0.1)) * f64::from(number(0.3));
    let rounded = exact(|number| bf16::from_f32(number).to_f32());
    let results = [
        ("f32", search_equal(backend, &dot, candidates, f32_rows)?, exact(|number| number)),
        ("bf16", search_equal(backend, &dot, candidates, bf16_rows)?, rounded),
        ("cosine", search_equal(backend, &cosine, candidates, f32_rows)?, 1.0),
    ];
    for (name, (positions, scores, _), exact) in results {
        let most = (4096 + width.div_ceil(4096) + 2) as f64 * U;
        let is_near = |&score: &f32| (f64::from(score) / exact - 1.0).abs() <= most;
        if positions != [0, 1].repeat(candidates) || !scores.iter().all(is_near) {
            let case = format!("{name}, width {width}, {candidates} candidates");
            return Err(Failure::new(format!("{case}: {positions:?} with {scores:?}, not {exact}")));
        }
    }
    Ok(())
}
