//! Random rows for the table runner.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRng, TestRunner};

use crate::support::{Expect, Gpu, Outcome, Row, Table, Width, Word};

/// Batches per instruction and rows per batch: each batch is one launch.
const BATCHES: u32 = 3;
const ROWS: usize = 192;

/// An operand: its width and its values.
type Operand = (Width, BoxedStrategy<u64>);

/// Random bits, values of similar magnitude, and edge values.
fn operand<T: Word>() -> Operand {
    let edges: Vec<u64> = T::edges().into_iter().map(T::bits).collect();
    (T::WIDTH, words(edges, |bits| T::from_bits(bits).bits()))
}

/// `cut` makes a value of the operand's type from any bits.
fn words(edges: Vec<u64>, cut: fn(u64) -> u64) -> BoxedStrategy<u64> {
    prop_oneof![
        4 => any::<u64>().prop_map(cut),
        2 => (-4096i64..4096).prop_map(move |small| cut(small as u64)),
        2 => prop::sample::select(edges),
        // Floats of the formats' middle range, which two random bit patterns rarely share.
        2 => any::<u64>().prop_map(move |bits| cut(middle(bits))),
    ]
    .boxed()
}

/// Makes the exponent fields of all four formats moderate and leaves sign and fraction random.
fn middle(bits: u64) -> u64 {
    match bits % 4 {
        0 => bits & 0x8fff_8fff_8fff_8fff | 0x3000_3000_3000_3000,
        1 => bits & 0xbfff_ffff_bfff_ffff | 0x3800_0000_3800_0000,
        2 => bits & !(0x7ff << 52) | (0x3f0 + (bits >> 2 & 31)) << 52,
        _ => bits & 0xcfff_cfff_cfff_cfff | 0x3c00_3c00_3c00_3c00,
    }
}

/// Runs an instruction on random operands. Not generic, so that it is compiled once.
fn check(text: &str, operands: Vec<Operand>, result: Width, oracle: &dyn Fn(&[u64]) -> Expect) {
    let gpu = Gpu::new();
    let (widths, words): (Vec<Width>, Vec<BoxedStrategy<u64>>) = operands.into_iter().unzip();
    let rows = prop::collection::vec(words, ROWS);
    // The seed is fixed, so that a failure is reproducible; the shrunk rows are printed.
    let config =
        Config { cases: BATCHES, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(Default::default()));
    let outcome = runner.run(&rows, |rows| {
        let row = |operands: Vec<u64>| Row { results: vec![oracle(&operands)], operands };
        let rows = rows.into_iter().map(row).collect();
        let failures = Table::new().raw(text, &widths, &[result], rows).failures(&gpu);
        if failures.is_empty() { Ok(()) } else { Err(TestCaseError::fail(failures)) }
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

pub(crate) fn unary<A: Word, R: Outcome>(text: &str, oracle: impl Fn(A) -> R) {
    check(text, vec![operand::<A>()], R::RESULT, &|w| oracle(A::from_bits(w[0])).expect());
}

pub(crate) fn binary<A: Word, B: Word, R: Outcome>(text: &str, oracle: impl Fn(A, B) -> R) {
    let operands = vec![operand::<A>(), operand::<B>()];
    check(text, operands, R::RESULT, &|w| oracle(A::from_bits(w[0]), B::from_bits(w[1])).expect());
}

pub(crate) fn ternary<A: Word, B: Word, C: Word, R: Outcome>(text: &str, oracle: impl Fn(A, B, C) -> R) {
    let operands = vec![operand::<A>(), operand::<B>(), operand::<C>()];
    check(text, operands, R::RESULT, &|w| {
        oracle(A::from_bits(w[0]), B::from_bits(w[1]), C::from_bits(w[2])).expect()
    });
}
