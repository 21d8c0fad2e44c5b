//! The state of the block that a worker thread runs; reused for its next block.

use super::LaunchConfig;
use super::barrier::Barrier;
use super::code::Code;
use super::copies::Copies;
use super::counts::Counts;
use super::divergence::can_bypass;
use super::fault::{Fault, fault};
use super::finding::FindingKind;
use super::local::LocalMemory;
use super::options::Options;
use super::race::{Conflict, Fences, LAST_CLOCK, Observer};
use super::registers::Registers;
use super::shared::SharedMemory;
use super::timing::Lines;
use crate::memory::{Allocation, Memory};
use std::collections::HashMap;
use std::sync::Arc;

/// The state shared by all workers of a launch.
pub(crate) struct Launch<'l> {
    pub(crate) code: &'l Code,
    pub(crate) config: LaunchConfig,
    pub(crate) parameters: &'l [u8],
    pub(crate) memory: &'l Memory,
    pub(crate) allocations: Vec<Arc<Allocation>>,
    pub(crate) options: &'l Options,
    pub(crate) first_run: u32,
    pub(crate) fences: Fences,
    /// The registers of a warp before special registers are set.
    pub(crate) template: Registers,
}

impl Launch<'_> {
    pub(crate) fn blocks(&self) -> u64 {
        self.config.grid.iter().map(|n| u64::from(*n)).product()
    }

    pub(crate) fn threads(&self) -> u32 {
        self.config.block.iter().product()
    }

    /// Index of a block in x, y, z.
    pub(crate) fn block_index(&self, block: u64) -> [u32; 3] {
        let [x, y, _] = self.config.grid.map(u64::from);
        [(block % x) as u32, (block / x % y) as u32, (block / x / y) as u32]
    }

    /// Index of a thread in x, y, z.
    pub(crate) fn thread_index(&self, thread: u32) -> [u32; 3] {
        let [x, y, _] = self.config.block;
        [thread % x, thread / x % y, thread / x / y]
    }
}

/// Clocks at the start of a block. Warps that do not exist are ordered before everything.
fn first_clocks(warps: usize) -> [u32; 32] {
    std::array::from_fn(|w| if w < warps { 1 } else { u32::MAX })
}

/// The state of the running block.
pub(crate) struct Machine<'l> {
    pub(crate) launch: &'l Launch<'l>,
    pub(crate) counts: Counts,
    /// Linear index of the block in the grid.
    pub(crate) block: u64,
    /// Number of the block in the race shadow.
    pub(crate) run: u32,
    /// The running warp.
    pub(crate) warp: usize,
    /// The running instruction.
    pub(crate) pc: usize,
    /// Warp instructions of this block so far.
    pub(crate) executed: u64,
    /// The allocation that each instruction accessed last.
    pub(crate) hints: Vec<u32>,
    pub(crate) shared: SharedMemory,
    pub(crate) local: LocalMemory,
    /// For each warp `w` the vector clock: the clock of each warp `v` up to which `w` is ordered after `v`; for `v = w` its
    /// own clock.
    pub(crate) known: Vec<[u32; 32]>,
    /// The minimum of each row of `known`.
    settled: Vec<u32>,
    /// When each warp last executed a strong access.
    pub(crate) acquired: Vec<u64>,
    pub(crate) barriers: [Barrier; 16],
    /// Threads of the block that have not exited.
    pub(crate) live: u32,
    pub(crate) copies: Copies,
    /// Whether lanes at the first position can get around the second; filled where a diverged warp asks.
    bypasses: HashMap<(u32, u32), bool>,
    /// Whether initialisation is checked.
    pub(crate) checks: bool,
    /// Whether races are checked.
    pub(crate) races: bool,
    /// Whether the time of blocks is modelled.
    pub(crate) timing: bool,
    pub(crate) lines: Lines,
}

impl<'l> Machine<'l> {
    pub(crate) fn new(launch: &'l Launch<'l>) -> Self {
        let code = launch.code;
        let warps = launch.threads().div_ceil(32) as usize;
        let checks = launch.options.checks;
        let shared_bytes = code.dynamic_shared + launch.config.dynamic_shared_bytes;
        Self {
            launch,
            counts: Counts::default(),
            block: 0,
            run: 0,
            warp: 0,
            pc: 0,
            executed: 0,
            hints: vec![0; code.steps.len()],
            shared: SharedMemory::new(shared_bytes, code.shared_grain, checks),
            local: LocalMemory::new(code.local_bytes, launch.threads()),
            known: vec![first_clocks(warps); warps],
            settled: vec![1; warps],
            acquired: vec![0; warps],
            barriers: Default::default(),
            live: 0,
            copies: Copies::new(launch.threads()),
            bypasses: HashMap::new(),
            checks,
            races: checks,
            timing: launch.options.timing,
            lines: Lines::default(),
        }
    }

    /// Resets the state for the next block.
    pub(crate) fn start(&mut self, block: u64) {
        self.block = block;
        self.run = self.launch.first_run + block as u32;
        self.executed = 0;
        self.shared.clear();
        self.local.clear();
        self.copies.clear();
        self.lines.clear();
        let warps = self.known.len();
        self.known.fill(first_clocks(warps));
        self.settled.fill(1);
        self.acquired.fill(0);
        self.barriers = Default::default();
        self.live = self.launch.threads();
        self.races = self.checks;
    }

    /// Whether lanes at `from` can get to the kernel's end without the instruction at `point`.
    pub(crate) fn bypasses(&mut self, code: &Code, from: u32, point: u32) -> bool {
        *self.bypasses.entry((from, point)).or_insert_with(|| can_bypass(code, from, point))
    }

    /// The value of `%clock`.
    pub(crate) fn clock(&self) -> u64 {
        self.counts.total()
    }

    /// The running warp's view of device memory, which all blocks of the launch share.
    pub(crate) fn observer(&self, strong: bool) -> Observer<'_> {
        self.observer_of((self.run, self.launch.first_run, self.launch.blocks() as u32), strong)
    }

    /// The running warp's view of shared memory, where accesses of earlier blocks do not count.
    pub(crate) fn shared_observer(&self, strong: bool) -> Observer<'_> {
        self.observer_of((self.run, self.run, 1), strong)
    }

    fn observer_of(&self, runs: (u32, u32, u32), strong: bool) -> Observer<'_> {
        Observer::new(
            runs,
            self.warp,
            (&self.known[self.warp], self.settled[self.warp]),
            &self.launch.fences,
            self.acquired[self.warp],
            strong,
        )
    }

    /// Called for a strong access by the running warp: what was published before is visible from now on.
    pub(crate) fn acquire(&mut self) {
        self.acquired[self.warp] = self.launch.fences.now();
    }

    /// Called for a fence by the running warp.
    pub(crate) fn fence(&mut self) {
        self.launch.fences.record(self.run, self.warp, self.known[self.warp][self.warp]);
        // A fence also acquires: a strong read, then a fence, orders the weak reads that follow.
        self.acquire();
    }

    /// Orders the warps of `members` after one another: they met at a barrier.
    pub(crate) fn synchronise(&mut self, members: u32) {
        let warps = || super::registers::lanes(members);
        let mut merged = [0; 32];
        let mut acquired = 0;
        for w in warps() {
            for (m, k) in merged.iter_mut().zip(self.known[w]) {
                *m = k.max(*m);
            }
            acquired = acquired.max(self.acquired[w]);
        }
        for w in warps() {
            merged[w] += 1;
        }
        for w in warps() {
            self.known[w] = merged;
            self.settled[w] = merged.iter().copied().fold(u32::MAX, u32::min);
            self.acquired[w] = acquired;
            self.races &= merged[w] < LAST_CLOCK;
        }
    }

    /// The fault for a race between `lane` of the running warp and an earlier access.
    pub(crate) fn race<T>(
        &self,
        kind: FindingKind,
        lane: usize,
        address: u64,
        writes: bool,
        other: Conflict,
    ) -> Result<T, Fault> {
        let block = u64::from(other.run.wrapping_sub(self.launch.first_run));
        let whose = if block == self.block {
            format!("thread {:?} of this block", self.launch.thread_index(other.thread))
        } else {
            format!(
                "thread {:?} of block {:?}",
                self.launch.thread_index(other.thread),
                self.launch.block_index(block)
            )
        };
        let (did, does) =
            (if other.wrote { "wrote" } else { "read" }, if writes { "writes" } else { "reads" });
        fault(
            kind,
            lane,
            address,
            format!(
                "this thread {does} what {whose} {did}, with no barrier or other synchronisation in between"
            ),
        )
    }
}
