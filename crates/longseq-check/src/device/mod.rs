//! The devices that tests, benchmarks and the program run on.
//!
//! Kernels of the CPU are generic, so every crate that calls them compiles them. [`TestDevice`] is the entrance without
//! generic code: its methods are compiled here, once for each backend.

#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(feature = "wgpu")]
pub mod webgpu;

use std::str::FromStr;

use longseq::prelude::*;
use longseq::{Cpu, Instructions};

use crate::case::{Call, Calls, Case, Failure, Once, Rules, check};
use crate::mutant::Mutant;
use crate::named::{AnyCase, AnyOutput, Named};
use crate::{registry, sample, soak};

/// Tests that run many cases of one kind run all of them.
pub fn thorough() -> bool {
    sample::one_of() == 1
}

/// A backend for which this crate has compiled its checks.
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
    fn run_case(&self, case: &AnyCase) -> Result<AnyOutput, Failure>;

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
    ($backend:ty, $rules:expr) => {
        impl TestDevice for $backend {
            fn rules(&self) -> Rules {
                $rules
            }

            #[inline(never)]
            fn check_case(&self, case: &AnyCase) -> Result<(), Failure> {
                check(case, self, Rules { sampled: false, ..$rules })
            }

            #[inline(never)]
            fn run_case(&self, case: &AnyCase) -> Result<AnyOutput, Failure> {
                self.run_case_with(case, &mut Once)
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

test_device!(Cpu, Rules::CPU);
test_device!(Mutant, Rules::IEEE);
#[cfg(feature = "cuda")]
test_device!(longseq::Cuda, cuda::rules());
#[cfg(feature = "wgpu")]
test_device!(longseq::Wgpu, webgpu::rules());

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
    pub fn device(self) -> Option<AnyDevice> {
        match self {
            Kind::Cpu => Some(AnyDevice::Cpu(Cpu::new())),
            #[cfg(feature = "wgpu")]
            Kind::Wgpu => webgpu::device().map(AnyDevice::Wgpu),
            #[cfg(feature = "cuda")]
            Kind::Cuda => cuda::device().map(AnyDevice::Cuda),
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

/// A device of any backend.
#[derive(Debug)]
pub enum AnyDevice {
    /// The processor.
    Cpu(Cpu),
    /// A `wgpu` device.
    #[cfg(feature = "wgpu")]
    Wgpu(longseq::Wgpu),
    /// An NVIDIA GPU, or the emulator.
    #[cfg(feature = "cuda")]
    Cuda(longseq::Cuda),
}

/// Runs an expression on the device inside.
macro_rules! on_device {
    ($any:expr, $device:ident => $body:expr) => {
        match $any {
            AnyDevice::Cpu($device) => $body,
            #[cfg(feature = "wgpu")]
            AnyDevice::Wgpu($device) => $body,
            #[cfg(feature = "cuda")]
            AnyDevice::Cuda($device) => $body,
        }
    };
}

impl AnyDevice {
    /// What it is, for people to read.
    pub fn description(&self) -> String {
        on_device!(self, device => device.device())
    }

    /// What it guarantees.
    pub fn rules(&self) -> Rules {
        on_device!(self, device => device.rules())
    }

    /// Runs `check` on a case.
    ///
    /// # Errors
    /// As [`check`](fn@check).
    pub fn check_case(&self, case: &AnyCase) -> Result<(), Failure> {
        on_device!(self, device => device.check_case(case))
    }

    /// Makes the call that a case is about through `with`.
    ///
    /// # Errors
    /// As [`Named::measure`].
    pub fn measure_case(
        &self,
        case: &Named,
        with: &mut dyn FnMut(&mut Call<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        on_device!(self, device => device.measure_case(case, with))
    }

    /// [`soak::serve`].
    ///
    /// # Errors
    /// As it.
    #[inline(never)]
    pub fn soak(
        &self,
        options: soak::Options,
        progress: &mut dyn FnMut(&soak::Slice),
    ) -> Result<Vec<soak::Slice>, Failure> {
        on_device!(self, device => soak::serve(device, options, progress))
    }

    /// Runs one test of the registry; on the CPU, once for each instruction set of the machine.
    ///
    /// # Panics
    /// Where the test fails, and where there is no such test.
    #[inline(never)]
    pub fn run_test(&self, stem: &str, name: &str) {
        fn run<B: Backend + Sync>(backend: &B, rules: Rules, stem: &str, name: &str) {
            let tests = registry::tests::<B>(stem);
            let test = tests.iter().find(|test| test.name == name);
            let test = test.unwrap_or_else(|| panic!("there is no test {name} of {stem}"));
            sample::begin();
            (test.run)(backend, rules);
        }
        match self {
            // The best first: that is what users run. Of the others a sample: kernels are one source.
            AnyDevice::Cpu(_) => {
                let mut rules = Rules::CPU;
                for instructions in Instructions::available() {
                    let cpu = Cpu::with_instructions(instructions).expect("available instructions");
                    run(&cpu, rules, stem, name);
                    rules.sampled = true;
                }
            }
            #[cfg(feature = "wgpu")]
            AnyDevice::Wgpu(device) => run(device, webgpu::rules(), stem, name),
            #[cfg(feature = "cuda")]
            AnyDevice::Cuda(device) => run(device, cuda::rules(), stem, name),
        }
    }
}
