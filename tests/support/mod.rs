//! One `check` for every operation on every backend: the grids, the random cases and the mutations call it.
//!
//! A case is a small struct that prints as Rust. `check` makes its data from a seed, computes the reference in `f64`,
//! runs the backend into poisoned outputs between guard bands, twice, and compares.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test binary is a crate of its own and uses a part of it"
)]

pub mod attention;
pub mod cases;
pub mod compare;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod data;
pub mod decoupled;
pub mod din;
pub mod golden;
pub mod guard;
#[cfg(feature = "cuda")]
pub mod hashing;
pub mod lookup;
pub mod mutant;
pub mod sdim;
#[cfg(feature = "wgpu")]
pub mod webgpu;

use std::fmt::Debug;

use longseq::prelude::*;

use longseq::Error;

/// Something to run on a backend and to compare with the reference.
pub trait Case: Debug {
    /// What a run gives.
    type Output: PartialEq;

    /// Runs the case into poisoned outputs between guard bands; `calls` makes the calls.
    fn run_with<B: Backend>(&self, backend: &B, calls: &mut dyn Calls) -> Result<Self::Output, Failure>;

    /// Runs the case, each call once.
    fn run<B: Backend>(&self, backend: &B) -> Result<Self::Output, Failure> {
        self.run_with(backend, &mut Once)
    }

    /// Compares with the reference.
    fn compare(&self, output: &Self::Output, rules: Rules) -> Result<(), Failure>;
}

/// A call of an operation on inputs that lie on the device already. It may be made any number of times.
pub type Call<'a> = dyn FnMut() -> Result<(), Failure> + 'a;

/// Makes the calls of a case: the tests each of them once, the benchmarks one of them over and over.
pub trait Calls {
    /// Whether this call is to be made at all: asked before work that only it needs.
    fn wants(&self, _operation: &'static str) -> bool {
        true
    }

    /// Makes the call, or leaves it out.
    fn make(&mut self, operation: &'static str, call: &mut Call<'_>) -> Result<(), Failure>;
}

/// Every call, once.
pub struct Once;

impl Calls for Once {
    fn make(&mut self, _: &'static str, call: &mut Call<'_>) -> Result<(), Failure> {
        call()
    }
}

/// What a kind of device promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// NaN in gives NaN out (WGSL promises no NaN arithmetic).
    pub nan: bool,
    /// Numbers below the smallest normal one are kept (WGSL may take zero for them, before and after each operation).
    pub subnormal: bool,
}

impl Rules {
    /// The CPU and CUDA.
    pub const IEEE: Rules = Rules { nan: true, subnormal: true };
    /// WGSL.
    pub const WGSL: Rules = Rules { nan: false, subnormal: false };
}

/// Why a case failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure(pub String);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(format!("the call failed: {error}"))
    }
}

/// Runs a case twice and compares: the same bits both times, and the reference's numbers within bounds.
pub fn check<B: Backend, C: Case>(case: &C, backend: &B, rules: Rules) -> Result<(), Failure> {
    let run = || {
        let output = case.run(backend)?;
        case.compare(&output, rules)?;
        if case.run(backend)? != output {
            return Err(Failure("two runs gave different bits".into()));
        }
        Ok(())
    };
    run()
        .map_err(|failure| Failure(format!("{}\non {}\nin {}", failure.0, backend.device(), pasteable(case))))
}

/// `check`, for tests that are to pass.
#[track_caller]
pub fn assert_check<B: Backend, C: Case>(case: &C, backend: &B, rules: Rules) {
    if let Err(Failure(message)) = check(case, backend, rules) {
        panic!("{message}");
    }
}

/// The case as Rust: `Debug` prints vectors as arrays.
fn pasteable(case: &impl Debug) -> String {
    format!("{case:?}").replace(": [", ": vec![").replace("([", "(vec![")
}

/// Runs an expression with `$T` standing for the type that `$dtype` names.
#[macro_export]
macro_rules! by_dtype {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            longseq::DType::F16 => {
                type $T = longseq::half::f16;
                $body
            }
            longseq::DType::Bf16 => {
                type $T = longseq::half::bf16;
                $body
            }
            _ => {
                type $T = f32;
                $body
            }
        }
    };
}

/// Stamps a list of tests on every backend: each is a function of a backend and its rules.
#[macro_export]
macro_rules! on_every_backend {
    ($($(#[$attribute:meta])* $test:ident),* $(,)?) => {
        mod cpu {
            $(
                #[test]
                $(#[$attribute])*
                fn $test() {
                    // The best first: what fails there is what users meet.
                    for instructions in longseq::Instructions::available() {
                        let cpu = longseq::Cpu::with_instructions(instructions).expect("available instructions");
                        super::$test(&cpu, $crate::support::Rules::IEEE);
                    }
                }
            )*
        }

        #[cfg(feature = "cuda")]
        mod cuda {
            $(
                #[test]
                $(#[$attribute])*
                fn $test() {
                    if let Some(device) = $crate::support::cuda::device() {
                        super::$test(&device, $crate::support::Rules::IEEE);
                    }
                }
            )*
        }

        #[cfg(feature = "wgpu")]
        mod webgpu {
            $(
                #[test]
                $(#[$attribute])*
                fn $test() {
                    if let Some(device) = $crate::support::webgpu::device() {
                        super::$test(&device, $crate::support::Rules::WGSL);
                    }
                }
            )*
        }
    };
}
