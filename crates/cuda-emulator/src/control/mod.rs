//! The handle through which a test loads and configures the emulator and reads what happened.

mod faults;
mod install;
pub(crate) mod protocol;
mod records;
pub(crate) mod settings;

use std::sync::Arc;

pub use crate::loader::InstallError;
pub use faults::{CallKind, CallSelector, Duration, Fault};
pub use install::Installer;
pub use records::{AllocationKind, LaunchCounts, LiveAllocation, LiveObjects, Misuse};
pub use settings::{ErrorDelivery, PageableCopies, StreamOrder};

use crate::device::Device;
use crate::error::CudaError;
use crate::exec::{Approximation, Finding, MmaOrder};
use crate::loader::Driver;
use protocol::{Reply, Request};
use settings::Setting;

/// A session: one simulated process with one device.
///
/// [`Emulator::install`] makes the emulator this process's CUDA driver and begins a session for the calling
/// thread. A session has its own device description, device memory, primary context, settings, injected faults
/// and records, so tests that run on several threads of one process are isolated from each other. A driver call
/// belongs to the session of the context that is current on its thread, otherwise to the session that the thread began
/// or [entered](Emulator::enter), otherwise to [the one that all remaining threads share](Emulator::shared). Work that a
/// program does on other threads with a context of this session is therefore recorded here too.
///
/// The handle can be cloned and sent to other threads.
///
/// ```
/// use cuda_emulator::control::CallKind;
/// use cuda_emulator::{CudaError, Device, Emulator};
/// use cudarc::driver::CudaContext;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let emulator = Emulator::install(Device::sm_80().with_total_memory(1 << 20))?;
/// let stream = CudaContext::new(0)?.default_stream();
///
/// // The second allocation from here fails.
/// emulator.fail_call(CallKind::Allocate, 2, CudaError::OutOfMemory);
/// let first = stream.alloc_zeros::<u8>(1024)?;
/// assert!(stream.alloc_zeros::<u8>(1024).is_err());
///
/// assert_eq!(emulator.live_allocations().len(), 1);
/// drop(first);
/// assert_eq!(emulator.live_allocations(), []);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Emulator {
    session: Arc<Session>,
}

#[derive(Debug)]
struct Session {
    driver: &'static Driver,
    number: u64,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.ask(&Request::End(self.number));
    }
}

impl Emulator {
    /// Loads the emulator if it is not loaded yet, and begins a session with `device` for this thread.
    ///
    /// No environment variable is needed: the shared library that Cargo built next to the test is loaded by path, and
    /// because its SONAME is `libcuda.so`, a later `dlopen("libcuda.so")` returns it. Call this before the first CUDA
    /// call of the process.
    ///
    /// # Errors
    /// If the library is missing or from another build, or if another libcuda is already loaded.
    pub fn install(device: Device) -> Result<Self, InstallError> {
        Self::installer(device).install()
    }

    /// The same with options: see [`Installer`].
    pub fn installer(device: Device) -> Installer {
        Installer::new(device)
    }

    /// The session of all threads that have neither begun nor entered one. Its device is that of the first session.
    pub fn shared(&self) -> Self {
        Self { session: Arc::new(Session { driver: self.session.driver, number: 0 }) }
    }

    /// Makes this the calling thread's session as well.
    pub fn enter(&self) {
        self.send(Request::Enter(self.number()));
    }

    /// Replaces the device description. Device memory keeps the size it had when the session began.
    pub fn set_device(&self, device: Device) {
        self.set(Setting::Device(Box::new(device)));
    }

    /// Whether kernels are checked for uninitialised reads, races and absent lanes. On by default; switch it off for
    /// speed. Bounds and alignment are always checked.
    pub fn set_checks(&self, on: bool) {
        self.set(Setting::Checks(on));
    }

    /// Whether the counts of launches have a model of how long their blocks take. Off by default, because it takes time.
    pub fn set_timing(&self, on: bool) {
        self.set(Setting::Timing(on));
    }

    /// Whether a matrix instruction after a divergent branch is a finding unless `bar.warp.sync`, a barrier or another
    /// `.sync` instruction of all lanes is in between. Off by default: the PTX ISA does not say where lanes converge after a
    /// branch, but compilers for devices make them do so where its paths meet.
    pub fn set_explicit_convergence(&self, on: bool) {
        self.set(Setting::ExplicitConvergence(on));
    }

    /// `Some(seed)` runs blocks and warps in a pseudo-random order, `None` in index order.
    pub fn set_schedule_seed(&self, seed: Option<u64>) {
        self.set(Setting::ScheduleSeed(seed));
    }

    /// What approximate instructions return within their documented error.
    pub fn set_approximation(&self, mode: Approximation) {
        self.set(Setting::Approximation(mode));
    }

    /// The order in which `mma` adds.
    pub fn set_mma_order(&self, order: MmaOrder) {
        self.set(Setting::MmaOrder(order));
    }

    /// How many threads run the blocks of a launch; 0 means one per core.
    pub fn set_threads(&self, threads: usize) {
        self.set(Setting::Threads(threads));
    }

    /// The number of warp instructions after which a block counts as hung; `None` for no limit.
    pub fn set_instruction_limit(&self, limit: Option<u64>) {
        self.set(Setting::InstructionLimit(limit));
    }

    /// Which call returns the error of a finding: the launch (the default) or a later one.
    pub fn set_error_delivery(&self, delivery: ErrorDelivery) {
        self.set(Setting::ErrorDelivery(delivery));
    }

    /// Whether a finding is sticky, as on a real device: every later call with that context returns the error until the
    /// context is destroyed. Off by default.
    pub fn set_sticky_errors(&self, sticky: bool) {
        self.set(Setting::StickyErrors(sticky));
    }

    /// When streams do their work. In any order but that of submission, which is the default, a missing wait between two
    /// streams is noticed: one sees what the other has not written yet, or writes what the other has not read yet.
    pub fn set_stream_order(&self, order: StreamOrder) {
        self.set(Setting::StreamOrder(order));
    }

    /// When asynchronous copies from and to pageable host memory take place; by default before the call returns. Later, a
    /// buffer that is dropped too early is noticed.
    pub fn set_pageable_copies(&self, copies: PageableCopies) {
        self.set(Setting::PageableCopies(copies));
    }

    /// The registers per thread that the driver reports for a kernel and that the occupancy functions use. The emulator
    /// does not allocate registers; the default is [`crate::report::ASSUMED_REGISTERS`].
    pub fn set_registers(&self, kernel: &str, registers: u32) {
        self.set(Setting::Registers { kernel: kernel.to_owned(), registers });
    }

    /// Makes the `nth` call from now (counting from 1) that `calls` matches fail with `error`, once.
    pub fn fail_call(&self, calls: impl Into<CallSelector>, nth: u64, error: CudaError) {
        self.inject(Fault { calls: calls.into(), nth, error, lasts: Duration::Once });
    }

    /// Makes the `nth` call from now and every later one fail with `error`, until [`Emulator::clear_faults`].
    pub fn lose_device(&self, nth: u64, error: CudaError) {
        self.inject(Fault { calls: CallSelector::Any, nth, error, lasts: Duration::Lasting });
    }

    /// Adds a fault. Several can be pending at once; each has its own counter.
    pub fn inject(&self, fault: Fault) {
        self.send(Request::Inject(self.number(), fault));
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.send(Request::ClearFaults(self.number()));
    }

    /// Counts of the launches so far, in order: the newest 8192 to 16,384, where there are more. Launches that a finding stopped are
    /// not included.
    pub fn counts(&self) -> Vec<LaunchCounts> {
        self.launches(false)
    }

    /// The same, and clears the list.
    pub fn take_counts(&self) -> Vec<LaunchCounts> {
        self.launches(true)
    }

    /// The checks that failed so far.
    pub fn findings(&self) -> Vec<Finding> {
        self.all_findings(false)
    }

    /// The same, and clears the list.
    pub fn take_findings(&self) -> Vec<Finding> {
        self.all_findings(true)
    }

    /// Calls that failed because of a mistake of the caller, with the reason; includes PTX that did not load.
    pub fn misuses(&self) -> Vec<Misuse> {
        self.all_misuses(false)
    }

    /// The same, and clears the list.
    pub fn take_misuses(&self) -> Vec<Misuse> {
        self.all_misuses(true)
    }

    /// What each context still held when it was destroyed, for contexts that held anything.
    pub fn leaks(&self) -> Vec<LiveObjects> {
        self.all_leaks(false)
    }

    /// The same, and clears the list.
    pub fn take_leaks(&self) -> Vec<LiveObjects> {
        self.all_leaks(true)
    }

    /// Names of the driver functions called so far, in order: the newest 131,072 to 262,144, where there are more.
    pub fn calls(&self) -> Vec<String> {
        self.all_calls(false)
    }

    /// The same, and clears the list.
    pub fn take_calls(&self) -> Vec<String> {
        self.all_calls(true)
    }

    /// Memory and objects that exist now.
    pub fn live(&self) -> LiveObjects {
        match self.ask(Request::Live(self.number())) {
            Reply::Live(live) => live,
            other => unexpected(&other),
        }
    }

    /// Memory that is allocated now, in order of allocation.
    pub fn live_allocations(&self) -> Vec<LiveAllocation> {
        self.live().allocations
    }

    fn launches(&self, take: bool) -> Vec<LaunchCounts> {
        match self.ask(Request::Launches { session: self.number(), take }) {
            Reply::Launches(launches) => launches,
            other => unexpected(&other),
        }
    }

    fn all_findings(&self, take: bool) -> Vec<Finding> {
        match self.ask(Request::Findings { session: self.number(), take }) {
            Reply::Findings(findings) => findings,
            other => unexpected(&other),
        }
    }

    fn all_misuses(&self, take: bool) -> Vec<Misuse> {
        match self.ask(Request::Misuses { session: self.number(), take }) {
            Reply::Misuses(misuses) => misuses,
            other => unexpected(&other),
        }
    }

    fn all_leaks(&self, take: bool) -> Vec<LiveObjects> {
        match self.ask(Request::Leaks { session: self.number(), take }) {
            Reply::Leaks(leaks) => leaks,
            other => unexpected(&other),
        }
    }

    fn all_calls(&self, take: bool) -> Vec<String> {
        match self.ask(Request::Calls { session: self.number(), take }) {
            Reply::Calls(calls) => calls,
            other => unexpected(&other),
        }
    }

    fn number(&self) -> u64 {
        self.session.number
    }

    fn set(&self, setting: Setting) {
        self.send(Request::Set(self.number(), setting));
    }

    fn send(&self, request: Request) {
        match self.ask(request) {
            Reply::Done => {}
            other => unexpected(&other),
        }
    }

    fn ask(&self, request: Request) -> Reply {
        self.session.driver.ask(&request)
    }
}

/// Both halves are from the same build, so a reply of another kind is a bug in this crate.
fn unexpected(reply: &Reply) -> ! {
    panic!("unexpected reply from the emulator: {reply:?}")
}
