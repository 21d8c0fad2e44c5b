//! The devices that tests, benchmarks and the program run on.
//!
//! Kernels of the CPU are generic, so every crate that calls them compiles them. [`TestDevice`] is the entrance without
//! generic code: its methods are compiled here, once for [`AnyBackend`], which stands for every backend of `longseq`, and once for
//! [`Mutant`].

#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(feature = "wgpu")]
pub mod webgpu;

use std::str::FromStr;

use longseq::prelude::*;
use longseq::{AnyBackend, Cpu, Instructions};

use crate::case::{Call, Calls, Case, Failure, Once, Rules, check};
use crate::mutant::Mutant;
use crate::named::{AnyCase, AnyOutput, Named};
use crate::{registry, sample, soak};

/// Tests that run many cases of one kind run all of them.
pub fn thorough() -> bool {
    sample::one_of() == 1
}

/// A backend on which the checks that this crate has compiled run.
pub trait TestDevice: Backend {
    /// What it guarantees.
    fn rules(&self) -> Rules;

    /// [`check`](fn@check) of a case, which runs twice on every device.
    ///
    /// # Errors
    /// As `check`.
    fn check_case(&self, case: &AnyCase) -> Result<(), Failure>;

    /// [`Case::run`] of a case.
    ///
    /// # Errors
    /// As `run`.
    fn run_case(&self, case: &AnyCase) -> Result<AnyOutput, Failure> {
        self.run_case_with(case, &mut Once)
    }

    /// [`Case::run_with`] of a case.
    ///
    /// # Errors
    /// As `run_with`.
    fn run_case_with(&self, case: &AnyCase, calls: &mut dyn Calls) -> Result<AnyOutput, Failure>;

    /// [`Named::measure`] of a case.
    ///
    /// # Errors
    /// As `measure`.
    fn measure_case(
        &self,
        case: &Named,
        with: &mut dyn FnMut(&mut Call<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure>;
}

macro_rules! test_device {
    ($backend:ty, $rules:ident) => {
        impl TestDevice for $backend {
            fn rules(&self) -> Rules {
                $rules(self)
            }

            #[inline(never)]
            fn check_case(&self, case: &AnyCase) -> Result<(), Failure> {
                check(case, self, Rules { sampled: false, ..self.rules() })
            }

            #[inline(never)]
            fn run_case_with(&self, case: &AnyCase, calls: &mut dyn Calls) -> Result<AnyOutput, Failure> {
                case.run_with(self, calls)
            }

            #[inline(never)]
            fn measure_case(
                &self,
                case: &Named,
                with: &mut dyn FnMut(&mut Call<'_>) -> Result<(), Failure>,
            ) -> Result<(), Failure> {
                case.measure(self, with)
            }
        }
    };
}

test_device!(AnyBackend, rules_of);
test_device!(Mutant, ieee);

/// A backend runs as [`AnyBackend`]: its clone shares everything with it.
macro_rules! as_any {
    ($backend:ty) => {
        impl TestDevice for $backend {
            fn rules(&self) -> Rules {
                AnyBackend::from(self.clone()).rules()
            }

            fn check_case(&self, case: &AnyCase) -> Result<(), Failure> {
                AnyBackend::from(self.clone()).check_case(case)
            }

            fn run_case_with(&self, case: &AnyCase, calls: &mut dyn Calls) -> Result<AnyOutput, Failure> {
                AnyBackend::from(self.clone()).run_case_with(case, calls)
            }

            fn measure_case(
                &self,
                case: &Named,
                with: &mut dyn FnMut(&mut Call<'_>) -> Result<(), Failure>,
            ) -> Result<(), Failure> {
                AnyBackend::from(self.clone()).measure_case(case, with)
            }
        }
    };
}

as_any!(Cpu);
#[cfg(feature = "cuda")]
as_any!(longseq::Cuda);
#[cfg(feature = "wgpu")]
as_any!(longseq::Wgpu);

/// What a device guarantees.
fn rules_of(device: &AnyBackend) -> Rules {
    match device {
        AnyBackend::Cpu(_) => Rules::CPU,
        #[cfg(feature = "wgpu")]
        AnyBackend::Wgpu(_) => webgpu::rules(),
        #[cfg(feature = "cuda")]
        AnyBackend::Cuda(_) => cuda::rules(),
        // This crate may be built with fewer backends than `longseq`.
        _ => Rules::IEEE,
    }
}

/// What every mutant guarantees.
fn ieee(_: &Mutant) -> Rules {
    Rules::IEEE
}

/// The processor.
pub fn cpu() -> AnyBackend {
    Cpu::new().into()
}

/// [`TestDevice::check_case`], for tests that are to pass.
///
/// # Panics
/// Where the check fails.
#[track_caller]
pub fn assert_check<'a, C>(case: &'a C, device: &impl TestDevice)
where
    AnyCase: From<&'a C>,
{
    if let Err(failure) = device.check_case(&case.into()) {
        panic!("{failure}");
    }
}

/// A backend of `longseq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `Cpu`.
    Cpu,
    /// `Wgpu`.
    Wgpu,
    /// `Cuda`.
    Cuda,
}

impl Kind {
    /// Those that this crate was built with.
    pub const ALL: &[Kind] = &[
        Kind::Cpu,
        #[cfg(feature = "wgpu")]
        Kind::Wgpu,
        #[cfg(feature = "cuda")]
        Kind::Cuda,
    ];

    /// Its name on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Cpu => "cpu",
            Kind::Wgpu => "wgpu",
            Kind::Cuda => "cuda",
        }
    }

    /// The device that tests share; `None`, which is printed, where there is none or it is switched off.
    pub fn device(self) -> Option<AnyBackend> {
        match self {
            Kind::Cpu => Some(cpu()),
            #[cfg(feature = "wgpu")]
            Kind::Wgpu => webgpu::device().map(AnyBackend::from),
            #[cfg(feature = "cuda")]
            Kind::Cuda => cuda::device().map(AnyBackend::from),
            #[cfg(not(all(feature = "cuda", feature = "wgpu")))]
            other => {
                eprintln!("skipped on {}: this build is without it", other.name());
                None
            }
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Kind::ALL.iter().find(|kind| kind.name() == name);
        found.copied().ok_or_else(|| format!("there is no backend {name:?} in this build"))
    }
}

/// [`soak::serve`].
///
/// # Errors
/// As it.
#[inline(never)]
pub fn soak(
    device: &AnyBackend,
    options: soak::Options,
    progress: &mut dyn FnMut(&soak::Slice),
) -> Result<Vec<soak::Slice>, Failure> {
    soak::serve(device, options, progress)
}

/// Runs one test of the registry; on the CPU, once for each instruction set of the machine.
///
/// # Panics
/// Where the test fails, and where there is no such test.
#[inline(never)]
pub fn run_test(device: &AnyBackend, stem: &str, name: &str) {
    let tests = registry::tests::<AnyBackend>(stem);
    let test = tests.iter().find(|test| test.name == name);
    let test = test.unwrap_or_else(|| panic!("there is no test {name} of {stem}"));
    let run = |device: &AnyBackend, rules| {
        sample::begin();
        (test.run)(device, rules);
    };
    let mut rules = device.rules();
    if !matches!(device, AnyBackend::Cpu(_)) {
        return run(device, rules);
    }
    // The best first: that is what users run. Of the others a sample: kernels are one source.
    for instructions in Instructions::available() {
        let cpu = Cpu::with_instructions(instructions).expect("available instructions");
        run(&cpu.into(), rules);
        rules.sampled = true;
    }
}
