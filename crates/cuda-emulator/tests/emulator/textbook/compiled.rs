//! The committed PTX, and input data.

use std::sync::Arc;

use cudarc::driver::{CudaFunction, CudaModule};

use crate::support::Gpu;

/// The PTX of a source file from both compilers.
pub(crate) struct Compiled {
    nvrtc: &'static str,
    clang: &'static str,
}

macro_rules! compiled {
    ($($name:ident = $stem:literal;)*) => {$(
        pub(crate) const $name: Compiled = Compiled {
            nvrtc: include_str!(concat!("ptx/", $stem, ".nvrtc.ptx")),
            clang: include_str!(concat!("ptx/", $stem, ".clang.ptx")),
        };
    )*};
}

compiled! {
    ATOMICS = "atomics";
    DOT_INT8 = "dot_int8";
    FUNCTIONS = "functions";
    HISTOGRAM = "histogram";
    MATMUL_TENSOR = "matmul_tensor";
    MATMUL_TILED = "matmul_tiled";
    RADIX_SELECT = "radix_select";
    REDUCTION = "reduction";
    SAXPY = "saxpy";
    SCAN = "scan";
    SOFTMAX = "softmax";
    TRANSPOSE = "transpose";
}

/// A module on a device.
pub(crate) struct Loaded {
    pub(crate) gpu: Gpu,
    ptx: &'static str,
    pub(crate) compiler: &'static str,
}

impl Loaded {
    /// Loads the module again, with newly initialised variables.
    pub(crate) fn module(&self) -> Arc<CudaModule> {
        self.gpu
            .try_module(self.ptx)
            .unwrap_or_else(|error| panic!("{}: {error}: {}", self.compiler, self.gpu.findings_text()))
    }

    pub(crate) fn kernel(&self, name: &str) -> CudaFunction {
        self.gpu.function(self.ptx, name)
    }

    /// Panics with the emulator's findings unless the launch succeeded.
    pub(crate) fn expect<E: std::fmt::Display>(&self, result: Result<(), E>) {
        if let Err(error) = result {
            panic!("{}: {error}: {}", self.compiler, self.gpu.findings_text());
        }
    }
}

impl Compiled {
    /// Runs a test on the PTX of both compilers, with blocks and warps in index order and in two shuffled orders.
    pub(crate) fn each(&self, test: impl Fn(&Loaded)) {
        for (compiler, ptx) in [("NVRTC", self.nvrtc), ("clang", self.clang)] {
            for seed in [None, Some(1), Some(2)] {
                let gpu = Gpu::new();
                gpu.emulator.set_schedule_seed(seed);
                test(&Loaded { gpu, ptx, compiler });
            }
        }
    }
}

/// A deterministic random number generator (Vigna's SplitMix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound
    }

    /// A number between -1 and 1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.word() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(crate) fn units(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.unit()).collect()
    }
}

/// Equal up to a relative error, which is absolute below 1.
#[track_caller]
pub(crate) fn assert_close(got: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(got) - expected).abs();
        assert!(error <= tolerance * expected.abs().max(1.0), "element {i} is {got}, expected {expected}");
    }
}
