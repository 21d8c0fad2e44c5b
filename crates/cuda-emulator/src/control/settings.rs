//! The settings of a session.

use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::exec::{Approximation, MmaOrder, Options};

/// Which call returns the error when a check fails in a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorDelivery {
    /// The launch itself, so that the failing test points at it.
    AtLaunch,
    /// A later synchronisation, query or copy to the host, as on a real device; the launch succeeds.
    AtSynchronisation,
}

/// When streams do their work, within what streams, events and synchronisation order.
///
/// In the last two orders, and with [`PageableCopies::Late`], the calls that submit work only queue it; errors and findings
/// are those of a later synchronisation or copy to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamOrder {
    /// In the order of submission.
    Submission,
    /// Each stream as late as possible: when it, or something that waits for it, is waited for.
    Late,
    /// In a pseudo-random order, some of it while the program goes on.
    Shuffled(u64),
}

/// When a copy from or to pageable host memory takes place whose function has a stream and a name that ends in `Async`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PageableCopies {
    /// The host's memory is read or written before the call returns.
    Immediate,
    /// When the stream reaches it, which a driver may choose to do ("API synchronization behavior": such copies *might* be
    /// synchronous). A buffer that the program changes before the next synchronisation is then a
    /// [finding](crate::exec::FindingKind::HostMemory), and one that it reads has its old contents. One that it frees is a
    /// finding if the memory has been given back to the system or has other contents by then, as it nearly always has.
    Late,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Setting {
    Device(Box<Device>),
    Checks(bool),
    Timing(bool),
    ExplicitConvergence(bool),
    ScheduleSeed(Option<u64>),
    Approximation(Approximation),
    MmaOrder(MmaOrder),
    Threads(usize),
    InstructionLimit(Option<u64>),
    ErrorDelivery(ErrorDelivery),
    StickyErrors(bool),
    StreamOrder(StreamOrder),
    PageableCopies(PageableCopies),
    Registers { kernel: String, registers: u32 },
}

/// The current settings.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) device: Device,
    pub(crate) options: Options,
    pub(crate) delivery: ErrorDelivery,
    pub(crate) sticky: bool,
    pub(crate) stream_order: StreamOrder,
    pub(crate) pageable_copies: PageableCopies,
    /// Registers per thread that `CU_FUNC_ATTRIBUTE_NUM_REGS` reports, by kernel name; the last entry of a name counts.
    pub(crate) registers: Vec<(String, u32)>,
}

impl Settings {
    pub(crate) fn new(device: Device) -> Self {
        let mut settings = Self {
            device,
            options: Options::default(),
            delivery: ErrorDelivery::AtLaunch,
            sticky: false,
            stream_order: StreamOrder::Submission,
            pageable_copies: PageableCopies::Immediate,
            registers: Vec::new(),
        };
        settings.follow_device();
        settings
    }

    pub(crate) fn apply(&mut self, setting: Setting) {
        match setting {
            Setting::Device(device) => {
                self.device = *device;
                self.follow_device();
            }
            Setting::Checks(on) => self.options.checks = on,
            Setting::Timing(on) => self.options.timing = on,
            Setting::ExplicitConvergence(on) => self.options.explicit_convergence = on,
            Setting::ScheduleSeed(seed) => self.options.schedule_seed = seed,
            Setting::Approximation(mode) => self.options.approximation = mode,
            Setting::MmaOrder(order) => self.options.mma_order = order,
            Setting::Threads(threads) => self.options.threads = threads,
            Setting::InstructionLimit(limit) => self.options.instruction_limit = limit,
            Setting::ErrorDelivery(delivery) => self.delivery = delivery,
            Setting::StickyErrors(sticky) => self.sticky = sticky,
            Setting::StreamOrder(order) => self.stream_order = order,
            Setting::PageableCopies(copies) => self.pageable_copies = copies,
            Setting::Registers { kernel, registers } => self.registers.push((kernel, registers)),
        }
    }

    /// The settings that the environment selects for a program that cannot set them: `CUDA_EMULATOR_MODE` is a list, separated
    /// by commas, of `streams-late`, `streams-shuffled`, `pageable-late` and `explicit-convergence`.
    pub(crate) fn follow_environment(&mut self) {
        const VARIABLE: &str = "CUDA_EMULATOR_MODE";
        let Some(modes) = std::env::var_os(VARIABLE) else { return };
        for mode in modes.to_string_lossy().split(',').filter(|mode| !mode.is_empty()) {
            match mode {
                "streams-late" => self.stream_order = StreamOrder::Late,
                "streams-shuffled" => self.stream_order = StreamOrder::Shuffled(1),
                "pageable-late" => self.pageable_copies = PageableCopies::Late,
                "explicit-convergence" => self.options.explicit_convergence = true,
                other => eprintln!("cuda-emulator: unknown mode {other} in {VARIABLE}; ignored"),
            }
        }
    }

    /// Whether work is queued.
    pub(crate) fn queues(&self) -> bool {
        self.stream_order != StreamOrder::Submission || self.pageable_copies == PageableCopies::Late
    }

    fn follow_device(&mut self) {
        self.options.architecture = self.device.architecture();
        self.options.multiprocessors = self.device.multiprocessors;
        self.options.shared_limit = self.device.shared_per_block_optin;
    }
}
