//! The instruction set that kernels use, chosen at run time.

use pulp::{Simd, WithSimd};

use super::lanes::{Lanes, Machine, Portable};

/// The vector instructions that [`Cpu`](crate::Cpu) computes with.
///
/// Results of different instruction sets differ by rounding (order of additions, fused multiply-adds). With the same
/// instructions, results are bit-identical for any number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Instructions {
    /// The baseline of the compilation target: SSE2 on x86-64.
    Portable,
    /// x86-64 with AVX2 and fused multiply-add.
    Avx2,
    /// x86-64 with AVX-512 (F, BW, CD, DQ, VL).
    Avx512,
    /// NEON on AArch64.
    Neon,
}

impl Instructions {
    const ALL: [Self; 4] = [Self::Avx512, Self::Avx2, Self::Neon, Self::Portable];

    /// The best instructions that this machine has.
    pub fn best() -> Self {
        Self::ALL.into_iter().find(|instructions| instructions.is_available()).unwrap_or(Self::Portable)
    }

    /// All instructions that this machine has, best first; the last is [`Portable`](Self::Portable).
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|instructions| instructions.is_available()).collect()
    }

    /// Whether this machine has them.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => pulp::x86::V3::is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => pulp::x86::V4::is_available(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => pulp::aarch64::Neon::is_available(),
            _ => false,
        }
    }

    /// Runs a kernel with these instructions, or with portable ones if the machine lacks them.
    ///
    /// Not inlined: it would be compiled for every call, with the whole kernel.
    #[inline(never)]
    pub(in crate::cpu) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        let call = Call(kernel);
        #[cfg(target_arch = "x86_64")]
        match self {
            Self::Avx512 => {
                if let Some(simd) = pulp::x86::V4::try_new() {
                    return Simd::vectorize(simd, call);
                }
            }
            Self::Avx2 => {
                if let Some(simd) = pulp::x86::V3::try_new() {
                    return Simd::vectorize(simd, call);
                }
            }
            _ => {}
        }
        #[cfg(target_arch = "aarch64")]
        if let (Self::Neon, Some(simd)) = (self, pulp::aarch64::Neon::try_new()) {
            return Simd::vectorize(simd, call);
        }
        Portable.vectorize(call)
    }
}

/// A computation that is compiled for every instruction set. `run`, and every function that it passes its lanes to, must be
/// `#[inline(always)]`: a function that is not inlined is compiled without the instructions.
pub(in crate::cpu) trait Kernel {
    type Output;

    fn run<L: Lanes>(self, lanes: L) -> Self::Output;
}

/// A kernel as pulp runs it.
struct Call<K>(K);

impl<K: Kernel> WithSimd for Call<K> {
    type Output = K::Output;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> K::Output {
        match S::F32_LANES {
            16 => self.0.run(Machine::<S, 1>(simd)),
            8 => self.0.run(Machine::<S, 2>(simd)),
            _ => self.0.run(Machine::<S, 4>(simd)),
        }
    }
}
