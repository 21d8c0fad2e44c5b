//! Which cases of a test's grid run: all of them on real devices and on the best instructions of the processor; a fixed sample
//! of them elsewhere, unless tests are [thorough](crate::device::thorough).

use std::cell::Cell;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;

use longseq::prelude::*;

use crate::case::Rules;

/// This many cases of each test run in any case; of a small sample, the first.
const ALWAYS: usize = 3;

/// Of the others one of so many runs, where `LONGSEQ_TEST_ONE_OF` does not say otherwise.
const ONE_OF: u64 = 32;

thread_local! {
    static CASES: Cell<usize> = const { Cell::new(0) };
}

/// One of so many cases is in a sample.
pub fn one_of() -> u64 {
    static ASKED: OnceLock<u64> = OnceLock::new();
    *ASKED.get_or_init(|| match std::env::var("LONGSEQ_TEST_ONE_OF") {
        Ok(asked) => {
            asked.parse().ok().filter(|&asked| asked > 0).expect("LONGSEQ_TEST_ONE_OF is a number from 1")
        }
        Err(_) => ONE_OF,
    })
}

/// Whether the sample is a small one, as of devices and modes that are tested besides others: second cases of a kind that take seconds are
/// left to larger ones.
pub fn is_small() -> bool {
    one_of() > 4
}

/// Whether the sample is as small as the one that runs where nothing is asked for, smaller than any of `.ci/run`: of large cases a smaller
/// one of the same kind is taken, and few cases run a second time.
pub fn is_smallest() -> bool {
    one_of() > 16
}

/// What the smallest sample takes, what small ones do, and what the others do.
pub fn by_size<T>(smallest: T, small: T, large: T) -> T {
    if is_smallest() {
        smallest
    } else if is_small() {
        small
    } else {
        large
    }
}

/// Whether this is in a sample, by a hash and not by its place: grids are regular.
pub fn has(what: &impl Hash) -> bool {
    hash_of(what).is_multiple_of(one_of())
}

fn hash_of(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// A test begins on this thread.
pub(crate) fn begin() {
    CASES.set(0);
}

/// Whether the next case of a grid is in the sample of this backend.
pub(crate) fn has_case<B: Backend>(backend: &B, case: &impl Debug, rules: Rules) -> bool {
    let index = CASES.replace(CASES.get() + 1);
    let always = if is_small() { 1 } else { ALWAYS };
    if is_smallest() && is_best_of_cpu(rules) {
        return index < always || hash_of(&("a case", format!("{case:?}"))).is_multiple_of(3);
    }
    index < always || is_in("a case", backend, case, rules)
}

/// Whether a case is to run a second time, for its bits to be compared: the first of each grid is, and a sample; in the smallest sample
/// one of four, but all of them on real devices.
pub(crate) fn has_repetition<B: Backend>(backend: &B, case: &impl Debug, rules: Rules) -> bool {
    if is_smallest() && (rules.sampled || is_best_of_cpu(rules)) {
        return hash_of(&("a repetition", backend.device(), format!("{case:?}"))).is_multiple_of(4);
    }
    CASES.get() == 1 || is_in("a repetition", backend, case, rules)
}

/// Whether this is the CPU with its best instructions: of it, too, the smallest sample takes a part.
pub(crate) fn is_best_of_cpu(rules: Rules) -> bool {
    rules == Rules::CPU && !rules.sampled
}

/// Devices and modes of the emulator have different samples, so that what runs on several of them runs most cases on one or the
/// other.
fn is_in<B: Backend>(what: &str, backend: &B, case: &impl Debug, rules: Rules) -> bool {
    let mode = std::env::var("LONGSEQ_TEST_CUDA_MODE").unwrap_or_default();
    !rules.sampled || has(&(what, backend.device(), mode, format!("{case:?}")))
}
