//! Random rows for the table runner.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRng, TestRunner};

use crate::support::{Gpu, Outcome, Row, Table, Word};

/// Batches an instruction, rows a batch: each batch is one launch.
const BATCHES: u32 = 3;
const ROWS: usize = 192;

/// Random bits, values near each other in magnitude, and edge values.
fn word<T: Word + std::fmt::Debug>() -> impl Strategy<Value = u64> {
    let edges: Vec<u64> = T::edges().into_iter().map(T::bits).collect();
    prop_oneof![
        4 => any::<u64>().prop_map(|bits| T::from_bits(bits).bits()),
        2 => (-4096i64..4096).prop_map(|small| T::from_bits(small as u64).bits()),
        2 => prop::sample::select(edges),
        // Floats of the formats' middle range, which random bits rarely hit together.
        2 => any::<u64>().prop_map(|bits| T::from_bits(middle(bits)).bits()),
    ]
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

fn check(strategy: impl Strategy<Value = Vec<Row>>, run: impl Fn(Vec<Row>) -> String) {
    // The seed is fixed: a failure anywhere is a failure everywhere, and the shrunk rows are printed.
    let config =
        Config { cases: BATCHES, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(Default::default()));
    if let Err(error) = runner.run(&strategy, |rows| {
        let failures = run(rows);
        if failures.is_empty() { Ok(()) } else { Err(TestCaseError::fail(failures)) }
    }) {
        panic!("{error}");
    }
}

pub(crate) fn unary<A: Word + std::fmt::Debug, R: Outcome>(text: &str, oracle: impl Fn(A) -> R) {
    let gpu = Gpu::new();
    let rows = prop::collection::vec(word::<A>(), ROWS);
    let rows = rows.prop_map(|words| {
        words
            .into_iter()
            .map(|a| Row { operands: vec![a], results: vec![oracle(A::from_bits(a)).expect()] })
            .collect()
    });
    check(rows, |rows| Table::new().raw(text, &[A::WIDTH], &[R::RESULT], rows).failures(&gpu));
}

pub(crate) fn binary<A: Word + std::fmt::Debug, B: Word + std::fmt::Debug, R: Outcome>(
    text: &str,
    oracle: impl Fn(A, B) -> R,
) {
    let gpu = Gpu::new();
    let rows = prop::collection::vec((word::<A>(), word::<B>()), ROWS).prop_map(|words| {
        let row = |(a, b)| Row {
            operands: vec![a, b],
            results: vec![oracle(A::from_bits(a), B::from_bits(b)).expect()],
        };
        words.into_iter().map(row).collect()
    });
    check(rows, |rows| Table::new().raw(text, &[A::WIDTH, B::WIDTH], &[R::RESULT], rows).failures(&gpu));
}

pub(crate) fn ternary<A, B, C, R: Outcome>(text: &str, oracle: impl Fn(A, B, C) -> R)
where
    A: Word + std::fmt::Debug,
    B: Word + std::fmt::Debug,
    C: Word + std::fmt::Debug,
{
    let gpu = Gpu::new();
    let rows = prop::collection::vec((word::<A>(), word::<B>(), word::<C>()), ROWS).prop_map(|words| {
        let row = |(a, b, c)| Row {
            operands: vec![a, b, c],
            results: vec![oracle(A::from_bits(a), B::from_bits(b), C::from_bits(c)).expect()],
        };
        words.into_iter().map(row).collect()
    });
    check(rows, |rows| {
        Table::new().raw(text, &[A::WIDTH, B::WIDTH, C::WIDTH], &[R::RESULT], rows).failures(&gpu)
    });
}
