//! A pair of similar kernels, one broken and one sound, and the report expected for the broken one.

use cuda_emulator::exec::{Finding, FindingKind};
use cudarc::driver::{CudaSlice, DevicePtr};

use crate::support::{Gpu, launch};

/// Two kernels that differ in one line, which is `{LINE}` in the body.
pub(crate) struct Pair {
    pub(crate) body: String,
    pub(crate) broken: &'static str,
    pub(crate) sound: &'static str,
    pub(crate) grid: u32,
    pub(crate) block: u32,
    pub(crate) dynamic_shared: u32,
}

/// The length of the two buffers of every kernel, one initialised and one not.
pub(crate) const WORDS: usize = 64;

/// The addresses of the buffers.
pub(crate) struct Addresses {
    pub(crate) written: u64,
    pub(crate) unwritten: u64,
}

impl Pair {
    pub(crate) fn new(body: impl Into<String>, broken: &'static str, sound: &'static str) -> Pair {
        Pair { body: body.into(), broken, sound, grid: 1, block: 32, dynamic_shared: 0 }
    }

    pub(crate) fn grid(mut self, blocks: u32) -> Pair {
        self.grid = blocks;
        self
    }

    pub(crate) fn block(mut self, threads: u32) -> Pair {
        self.block = threads;
        self
    }

    pub(crate) fn dynamic_shared(mut self, bytes: u32) -> Pair {
        self.dynamic_shared = bytes;
        self
    }

    fn ptx(&self, line: &str) -> String {
        let body = self.body.replace("{LINE}", line);
        format!(
            ".version 7.8\n.target sm_80\n.address_size 64\n.const .align 4 .u32 fixed[2] = {{1, 2}};\n.extern .shared .align 16 .b8 dynamic[];\n\
             .visible .entry broken_on_purpose(.param .u64 written, .param .u64 unwritten)\n{{\n.reg .b64 %p, %q, %at, %wide;\n\
             .reg .b32 %t, %b, %x, %y, %s;\n.reg .pred %c, %d;\n.shared .align 16 .b8 tile[256];\n.local .align 8 .b8 own[16];\n\
             ld.param.u64 %p, [written];\nld.param.u64 %q, [unwritten];\ncvta.to.global.u64 %p, %p;\ncvta.to.global.u64 %q, %q;\n\
             mov.u32 %t, %tid.x;\nmov.u32 %b, %ctaid.x;\nmov.u32 %s, tile;\nmul.wide.u32 %at, %t, 4;\nmov.u32 %x, 7;\n{body}\nret;\n}}\n"
        )
    }

    /// Launches one of the two kernels; returns the driver's error.
    fn launch(&self, gpu: &Gpu, line: &str) -> (Result<(), String>, Addresses) {
        // Two workers even on a single core, because some blocks wait for others.
        gpu.emulator.set_threads(2);
        let function = gpu.function(&self.ptx(line), "broken_on_purpose");
        let written = gpu.upload(&(0..WORDS as u32).collect::<Vec<_>>());
        let unwritten = gpu.unwritten::<u32>(WORDS);
        let addresses = Addresses { written: address(gpu, &written), unwritten: address(gpu, &unwritten) };
        let result = launch!(gpu, function, (self.grid, 1, 1), (self.block, 1, 1), self.dynamic_shared; &written, &unwritten);
        (result.map_err(|error| error.to_string()), addresses)
    }

    /// Runs both kernels, in index order and in shuffled orders: the sound one must never have findings, the broken one must
    /// always be reported. Returns the report of the index order and the addresses of its buffers.
    pub(crate) fn report(&self, kind: FindingKind) -> (Finding, Addresses) {
        for seed in [Some(1), Some(2)] {
            self.broken_report(kind, seed);
        }
        for seed in [None, Some(1), Some(2)] {
            let gpu = Gpu::new();
            gpu.emulator.set_schedule_seed(seed);
            if let (Err(error), _) = self.launch(&gpu, self.sound) {
                panic!("the sound kernel, schedule {seed:?}: {error}: {}", gpu.findings_text());
            }
            assert_eq!(gpu.emulator.take_findings(), [], "the sound kernel, schedule {seed:?}");
        }
        self.broken_report(kind, None)
    }

    /// As `report`, for errors that one of several checks may detect first.
    pub(crate) fn report_any(&self, kinds: &[FindingKind]) -> Finding {
        let gpu = Gpu::new();
        if let (Err(error), _) = self.launch(&gpu, self.sound) {
            panic!("the sound kernel: {error}: {}", gpu.findings_text());
        }
        let gpu = Gpu::new();
        let (result, _) = self.launch(&gpu, self.broken);
        assert!(result.is_err(), "{kinds:?} of `{}` was not detected", self.broken);
        let finding = gpu.emulator.take_findings().into_iter().next().expect("a failed launch has a finding");
        assert!(kinds.contains(&finding.kind), "{finding}");
        finding
    }

    fn broken_report(&self, kind: FindingKind, seed: Option<u64>) -> (Finding, Addresses) {
        let gpu = Gpu::new();
        gpu.emulator.set_schedule_seed(seed);
        let (result, addresses) = self.launch(&gpu, self.broken);
        assert!(result.is_err(), "{kind:?} of `{}` was not detected, schedule {seed:?}", self.broken);
        let finding = gpu.emulator.take_findings().into_iter().next().expect("a failed launch has a finding");
        assert_eq!(finding.kind, kind, "schedule {seed:?}: {finding}");
        assert_eq!(finding.kernel, "broken_on_purpose", "{finding}");
        (finding, addresses)
    }

    /// The number of the line that differs, counting from 1.
    pub(crate) fn line(&self) -> u32 {
        let text = self.ptx(self.broken);
        let at = text.find(self.broken).expect("the broken line is in the text");
        text[..at].lines().count() as u32 + 1
    }

    /// As `report`, and the report must point at the broken line.
    pub(crate) fn report_here(&self, kind: FindingKind) -> (Finding, Addresses) {
        let (finding, addresses) = self.report(kind);
        assert_eq!(finding.line, self.line(), "{finding}");
        assert!(finding.text.contains(self.broken.trim()), "{finding}");
        (finding, addresses)
    }
}

fn address(gpu: &Gpu, words: &CudaSlice<u32>) -> u64 {
    words.device_ptr(&gpu.stream).0
}
