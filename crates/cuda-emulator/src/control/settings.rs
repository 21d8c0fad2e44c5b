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

/// One setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Setting {
    Device(Box<Device>),
    Checks(bool),
    ScheduleSeed(Option<u64>),
    Approximation(Approximation),
    MmaOrder(MmaOrder),
    Threads(usize),
    InstructionLimit(Option<u64>),
    ErrorDelivery(ErrorDelivery),
    StickyErrors(bool),
    Registers { kernel: String, registers: u32 },
}

/// The current settings.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) device: Device,
    pub(crate) options: Options,
    pub(crate) delivery: ErrorDelivery,
    pub(crate) sticky: bool,
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
            Setting::ScheduleSeed(seed) => self.options.schedule_seed = seed,
            Setting::Approximation(mode) => self.options.approximation = mode,
            Setting::MmaOrder(order) => self.options.mma_order = order,
            Setting::Threads(threads) => self.options.threads = threads,
            Setting::InstructionLimit(limit) => self.options.instruction_limit = limit,
            Setting::ErrorDelivery(delivery) => self.delivery = delivery,
            Setting::StickyErrors(sticky) => self.sticky = sticky,
            Setting::Registers { kernel, registers } => self.registers.push((kernel, registers)),
        }
    }

    fn follow_device(&mut self) {
        self.options.architecture = self.device.architecture();
        self.options.multiprocessors = self.device.multiprocessors;
        self.options.shared_limit = self.device.shared_per_block_optin;
    }
}
