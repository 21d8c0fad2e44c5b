//! One `check` for every operation on every backend: grids, random cases and mutations call it.

use std::fmt::{self, Debug};

use longseq::Error;
use longseq::prelude::*;

use crate::sample;

/// Something to run on a backend and to compare with the reference.
pub trait Case: Debug {
    /// The results of a run.
    type Output: PartialEq;

    /// Runs the case into poisoned outputs between guard bands; `calls` makes the calls.
    ///
    /// # Errors
    /// What a call returned, and writes outside an output.
    fn run_with<B: Backend>(&self, backend: &B, calls: &mut dyn Calls) -> Result<Self::Output, Failure>;

    /// Runs the case, each call once.
    ///
    /// # Errors
    /// As [`run_with`](Self::run_with).
    fn run<B: Backend>(&self, backend: &B) -> Result<Self::Output, Failure> {
        self.run_with(backend, &mut Once)
    }

    /// Compares with the reference.
    ///
    /// # Errors
    /// The first mismatches.
    fn compare(&self, output: &Self::Output, rules: Rules) -> Result<(), Failure>;
}

/// The gradients that a backward pass wrote, as bits; one that was not asked for is empty.
pub type GradientBits = Vec<Vec<u8>>;

/// A call of an operation on inputs that are on the device already. It may be made any number of times.
pub type Call<'a> = dyn FnMut() -> Result<(), Failure> + 'a;

/// Makes the calls of a case: tests make each of them once, benchmarks one of them many times.
pub trait Calls {
    /// Whether this call is to be made at all: asked before work that only it needs.
    fn wants(&self, _operation: &'static str) -> bool {
        true
    }

    /// Makes the call, or skips it.
    ///
    /// # Errors
    /// What the call returned.
    fn make(&mut self, operation: &'static str, call: &mut Call<'_>) -> Result<(), Failure>;
}

/// Every call, once.
#[derive(Debug, Clone, Copy)]
pub struct Once;

impl Calls for Once {
    fn make(&mut self, _: &'static str, call: &mut Call<'_>) -> Result<(), Failure> {
        call()
    }
}

/// What a kind of device guarantees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// NaN in gives NaN out (WGSL guarantees no NaN arithmetic).
    pub nan: bool,
    /// Subnormal numbers are kept (WGSL may flush them to zero, before and after each operation).
    pub subnormal: bool,
    /// Softmax over `bf16` values keeps weighted values however small (CUDA's matrix units take those below 2⁻¹²⁵ for 0, see
    /// `docs/decisions/limits-of-numbers.md`).
    pub tiny_products: bool,
    /// An emulator, a thousand times slower than a device: the longest histories and bags are left out.
    pub slow: bool,
    /// Of a test's grid a sample of cases runs (`sample.rs`): an emulator and software devices have no time for all.
    pub sampled: bool,
}

impl Rules {
    /// Arithmetic as IEEE 754 has it.
    pub const IEEE: Rules =
        Rules { nan: true, subnormal: true, tiny_products: true, slow: false, sampled: false };
    /// `Cpu`. On Arm, tests run under emulation (`scripts/test-on-aarch64`).
    pub const CPU: Rules = if cfg!(target_arch = "aarch64") {
        Rules { slow: true, sampled: true, ..Rules::IEEE }
    } else {
        Rules::IEEE
    };
    /// CUDA.
    pub const CUDA: Rules = Rules { tiny_products: false, ..Rules::IEEE };
    /// WGSL.
    pub const WGSL: Rules = Rules { nan: false, subnormal: false, ..Rules::IEEE };

    /// Whether long histories are to be shortened: on an emulator, except in thorough tests.
    pub fn shortened(self) -> bool {
        self.slow && !crate::device::thorough()
    }
}

/// Why a case failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    message: String,
    error: Option<Error>,
}

impl Failure {
    /// A failure with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), error: None }
    }

    /// Whether a call answered that the backend does not have it.
    pub fn is_unsupported(&self) -> bool {
        matches!(self.error, Some(Error::Unsupported { .. }))
    }

    /// What a call returned, if that is why.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { message: format!("the call failed: {error}"), error: Some(error) }
    }
}

/// Runs a case twice and compares: the same bits both times, and the reference's numbers within bounds. (Outside thorough tests
/// slow devices run some cases once: [`Rules::sampled`].)
///
/// # Errors
/// The first mismatches, the device, and the case as Rust.
pub fn check<B: Backend, C: Case>(case: &C, backend: &B, rules: Rules) -> Result<(), Failure> {
    let run = || {
        let output = case.run(backend)?;
        case.compare(&output, rules)?;
        if sample::has_repetition(backend, case, rules) && case.run(backend)? != output {
            return Err(Failure::new("two runs gave different bits"));
        }
        Ok(())
    };
    run().map_err(|failure| {
        let message = format!("{}\non {}\nin {}", failure.message, backend.device(), pasteable(case));
        Failure { message, ..failure }
    })
}

/// [`check`], for tests that are to pass; outside thorough tests, of a sample of the cases ([`Rules::sampled`]).
///
/// # Panics
/// Where the check fails.
#[track_caller]
pub fn assert_check<B: Backend, C: Case>(case: &C, backend: &B, rules: Rules) {
    if !sample::has_case(backend, case, rules) {
        return;
    }
    if let Err(failure) = check(case, backend, rules) {
        panic!("{failure}");
    }
}

/// The case as Rust: `Debug` prints vectors as arrays.
fn pasteable(case: &impl Debug) -> String {
    format!("{case:?}").replace(": [", ": vec![").replace("([", "(vec![")
}
