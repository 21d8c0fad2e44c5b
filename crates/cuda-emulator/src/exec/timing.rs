//! A model of how long a block takes if it has a multiprocessor to itself: the critical path of each of its warps.
//!
//! Within a run of instructions without a branch or a barrier, an instruction starts once its operands are there, in any order,
//! because compilers reorder such instructions; at most one is issued per clock. The next run starts when the last
//! instruction of this one, its branch, has been issued. Lanes that diverge go on one after the other. A first access to a line of device
//! memory by a block goes to memory, later ones hit L1.
//!
//! Latencies, in clocks: arithmetic, special functions, shared memory, shuffles and matrix units as published
//! microbenchmarks of Ampere and Hopper found them, rounded; device memory as they found it under little load.

use std::collections::{HashMap, HashSet, VecDeque};

use super::code::{Action, Step};
use super::counts::Class;

/// Device memory, without a hit in any cache, and a hit in L1.
const MEMORY: u64 = 600;
const HIT: u64 = 35;
/// From the last arrival at a barrier to the next instruction, and the same for a branch.
const BARRIER: u64 = 20;
const BRANCH: u64 = 8;
/// log2 of the size of a cache line in bytes.
const LINE: u32 = 7;

/// A register: its index and bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Id {
    Word(u32),
    Long(u32),
    Predicate(u32),
}

/// The registers that an instruction reads and writes, and what it does with asynchronous copies.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    pub(crate) reads: Vec<Id>,
    pub(crate) writes: Vec<Id>,
    pub(crate) copies: CopyStep,
}

/// A step of asynchronous copies.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyStep {
    #[default]
    Other,
    Issue,
    Commit,
    /// Waits for all but so many groups.
    Wait(usize),
}

/// The lines of device memory that a block has accessed.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    seen: HashSet<u64>,
    /// Whether the running instruction has accessed one for the first time.
    pub(crate) missed: bool,
}

impl Lines {
    pub(crate) fn clear(&mut self) {
        self.seen.clear();
    }

    pub(crate) fn access(&mut self, address: u64) {
        self.missed |= self.seen.insert(address >> LINE);
    }
}

/// The clock of a warp.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// When the running run of instructions began, and how many of them have been issued.
    start: u64,
    issued: u64,
    /// When registers that are not there yet will be.
    ready: HashMap<Id, u64>,
    /// When the copies of the open group, and of those committed, will be there.
    open: u64,
    groups: VecDeque<u64>,
    /// When the last result is there.
    last: u64,
}

impl Clock {
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// When the last instruction and the last result are done.
    pub(crate) fn end(&self) -> u64 {
        self.now().max(self.last)
    }

    fn now(&self) -> u64 {
        self.start + self.issued
    }

    /// When the operands of an instruction are there.
    fn operands(&self, step: &Step) -> u64 {
        let guard = Id::Predicate(step.guard.index);
        let reads = step.uses.reads.iter().chain([&guard]);
        reads.filter_map(|id| self.ready.get(id)).copied().max().unwrap_or(0).max(self.start)
    }

    /// An instruction, before it is executed; accesses count after that.
    pub(crate) fn start(&mut self, step: &Step) {
        match &step.action {
            Action::Compute(_) | Action::Converged { .. } => self.access(step, false),
            Action::Access(_) => {}
            _ => self.branch(step),
        }
    }

    /// An instruction that may be reordered within its run. `missed`: it went to device memory.
    pub(crate) fn access(&mut self, step: &Step, missed: bool) {
        self.issued += 1;
        let there = self.operands(step) + latency(step.class, missed);
        match step.uses.copies {
            CopyStep::Other => {}
            CopyStep::Issue => self.open = self.open.max(there),
            CopyStep::Commit => self.groups.push_back(std::mem::take(&mut self.open)),
            CopyStep::Wait(keep) => {
                let mut until = 0;
                while self.groups.len() > keep {
                    until = until.max(self.groups.pop_front().unwrap_or(0));
                }
                self.wait_until(until);
            }
        }
        for &id in &step.uses.writes {
            self.ready.insert(id, there);
        }
        self.last = self.last.max(there);
    }

    /// A branch, or another instruction that ends a run.
    fn branch(&mut self, step: &Step) {
        let there = self.operands(step);
        self.wait_until(there.max(self.now()) + BRANCH);
    }

    /// Ends the run: nothing after this starts before `time`.
    fn wait_until(&mut self, time: u64) {
        self.start = self.now().max(time);
        self.issued = 0;
        let start = self.start;
        self.ready.retain(|_, &mut time| time > start);
    }

    /// Starts again after a block barrier at which the last of all warps arrived at `time`.
    pub(crate) fn meet(&mut self, time: u64) {
        self.wait_until(time + BARRIER);
    }

    /// When the warp arrives at a barrier.
    pub(crate) fn arrival(&self) -> u64 {
        self.now()
    }
}

/// Clocks from an instruction's issue to its result.
fn latency(class: Class, missed: bool) -> u64 {
    match class {
        Class::Integer | Class::Float | Class::Half | Class::Move => 5,
        Class::Convert => 8,
        Class::Double => 16,
        Class::Special => 20,
        Class::Constant | Class::Control => 8,
        Class::Shared | Class::Local => 30,
        Class::Warp => 25,
        Class::Matrix => 33,
        Class::Barrier => BARRIER,
        Class::Global | Class::AsyncCopy | Class::Atomic if missed => MEMORY,
        Class::Global | Class::AsyncCopy | Class::Atomic => HIT,
    }
}
