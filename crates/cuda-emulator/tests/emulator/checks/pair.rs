//! A broken kernel and its sound neighbour, and what the report must say.

use cuda_emulator::exec::{Finding, FindingKind};
use cudarc::driver::{CudaSlice, DevicePtr};

use crate::support::{Gpu, launch};

/// Two texts that differ in one line; `{LINE}` in the body stands for it.
pub(crate) struct Pair {
    pub(crate) body: String,
    pub(crate) broken: &'static str,
    pub(crate) sound: &'static str,
    pub(crate) grid: u32,
    pub(crate) block: u32,
    pub(crate) dynamic_shared: u32,
}

/// The buffers every kernel gets: 64 words that are written and 64 that are not.
pub(crate) const WORDS: usize = 64;

/// What the kernel was given.
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

    /// Launches one of the two; the error is the driver's.
    fn launch(&self, gpu: &Gpu, line: &str) -> (Result<(), String>, Addresses) {
        // A block that waits for another needs a worker of its own, however few cores there are.
        gpu.emulator.set_threads(2);
        let function = gpu.function(&self.ptx(line), "broken_on_purpose");
        let written = gpu.upload(&(0..WORDS as u32).collect::<Vec<_>>());
        let unwritten = gpu.unwritten::<u32>(WORDS);
        let addresses = Addresses { written: address(gpu, &written), unwritten: address(gpu, &unwritten) };
        let result = launch!(gpu, function, (self.grid, 1, 1), (self.block, 1, 1), self.dynamic_shared; &written, &unwritten);
        (result.map_err(|error| error.to_string()), addresses)
    }

    /// Runs both, in index order and in shuffled orders: the sound one must always be without findings, the broken one must always be
    /// found. Returns the report in index order and the addresses of its buffers.
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

    /// As `report`, where the check that notices first may be one of several.
    pub(crate) fn report_any(&self, kinds: &[FindingKind]) -> Finding {
        let gpu = Gpu::new();
        if let (Err(error), _) = self.launch(&gpu, self.sound) {
            panic!("the sound kernel: {error}: {}", gpu.findings_text());
        }
        let gpu = Gpu::new();
        let (result, _) = self.launch(&gpu, self.broken);
        assert!(result.is_err(), "{kinds:?} of `{}` was not noticed", self.broken);
        let finding = gpu.emulator.take_findings().into_iter().next().expect("a failed launch has a finding");
        assert!(kinds.contains(&finding.kind), "{finding}");
        finding
    }

    fn broken_report(&self, kind: FindingKind, seed: Option<u64>) -> (Finding, Addresses) {
        let gpu = Gpu::new();
        gpu.emulator.set_schedule_seed(seed);
        let (result, addresses) = self.launch(&gpu, self.broken);
        assert!(result.is_err(), "{kind:?} of `{}` was not noticed, schedule {seed:?}", self.broken);
        let finding = gpu.emulator.take_findings().into_iter().next().expect("a failed launch has a finding");
        assert_eq!(finding.kind, kind, "schedule {seed:?}: {finding}");
        assert_eq!(finding.kernel, "broken_on_purpose", "{finding}");
        (finding, addresses)
    }

    /// The number of the line that differs, from one.
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
