//! Which cases of a test's grid run: all of them in thorough tests, on real devices and on the best instructions of the processor;
//! a fixed sample of them elsewhere.

use std::cell::Cell;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

use longseq::prelude::*;

use crate::case::Rules;
use crate::device::thorough;

/// This many cases of each test run in any case.
const ALWAYS: usize = 4;

thread_local! {
    static CASES: Cell<usize> = const { Cell::new(0) };
}

/// A test begins on this thread.
pub(crate) fn begin() {
    CASES.set(0);
}

/// Whether the next case of a grid is in the sample of this backend.
pub(crate) fn has_case<B: Backend>(backend: &B, case: &impl Debug, rules: Rules) -> bool {
    let index = CASES.replace(CASES.get() + 1);
    index < ALWAYS || is_one_of("a case", backend, case, rules)
}

/// Whether a case is to run a second time, for its bits to be compared: the first of each grid is, and a sample.
pub(crate) fn has_repetition<B: Backend>(backend: &B, case: &impl Debug, rules: Rules) -> bool {
    CASES.get() == 1 || is_one_of("a repetition", backend, case, rules)
}

/// By a hash of the case and not by its place: grids are regular. Devices and modes of the emulator have different samples, so that
/// what runs on several of them runs most cases on one or the other.
fn is_one_of<B: Backend>(what: &str, backend: &B, case: &impl Debug, rules: Rules) -> bool {
    if rules.one_of <= 1 || thorough() {
        return true;
    }
    let mut hasher = DefaultHasher::new();
    let mode = std::env::var("LONGSEQ_TEST_CUDA_MODE").unwrap_or_default();
    (what, backend.device(), mode, format!("{case:?}")).hash(&mut hasher);
    hasher.finish().is_multiple_of(rules.one_of)
}
