//! Records of ids and other indices out of range: kernels write them, the next wait returns them as errors.

use std::collections::VecDeque;
use std::sync::Arc;

use cudarc::driver::CudaStream;

use crate::cuda::driver::{Allocation, abandon, is_captured, read, wait};
use crate::error::{Error, Result};
use crate::gpu::Bound;

/// 64-bit words of a record; see `report_bad_id` in `kernels/shared/common.cuh`.
const WORDS: usize = 16;
const BYTES: usize = WORDS * size_of::<u64>();
/// Positions that a record can distinguish: 2^32 per word.
const POSITIONS: u64 = (WORDS as u64) << 32;
/// Records that are allocated together.
const BLOCK: usize = 256;
/// How many kinds of checks of the same argument have records of their own; later ones share.
const OWN: usize = 64;
/// How many bounds a shared record remembers.
const RECENT: usize = 64;

/// The checks that share a record: those of an argument that differ in nothing but their bounds, which are compared with an id only
/// when it has been reported.
#[derive(Debug)]
struct Check {
    operation: &'static str,
    argument: &'static str,
    bounds: VecDeque<Bound>,
    /// The number of the last use; after a wait that includes it, the record is that of other bounds.
    last: u64,
    /// Used by a captured launch, which may be replayed after any wait.
    is_captured: bool,
}

/// The records on the device, and the checks that each belongs to. A check that was captured keeps its record, so the launch may be
/// replayed for as long as the backend lives; others keep it at least until a wait.
#[derive(Debug)]
pub(super) struct Records {
    blocks: Vec<Allocation>,
    checks: Vec<Check>,
    /// Uses so far, and how many of them a wait has found right, or reported.
    uses: u64,
    settled: u64,
    /// What was found for a wait that was given up before it was over.
    unclaimed: Option<Error>,
}

impl Records {
    pub(super) fn new(stream: &Arc<CudaStream>, operation: &'static str) -> Result<Self> {
        let mut records =
            Self { blocks: Vec::new(), checks: Vec::new(), uses: 0, settled: 0, unclaimed: None };
        records.grow(stream, operation)?;
        Ok(records)
    }

    fn grow(&mut self, stream: &Arc<CudaStream>, operation: &'static str) -> Result<()> {
        let memory = Allocation::new(stream, operation, BLOCK * BYTES)?;
        memory.fill(operation, 0xff)?;
        self.blocks.push(memory);
        Ok(())
    }

    /// The address of the record for a kind of check over `positions` ids.
    pub(super) fn record(
        &mut self,
        stream: &Arc<CudaStream>,
        operation: &'static str,
        argument: &'static str,
        positions: u64,
        bound: Bound,
    ) -> Result<u64> {
        if positions > POSITIONS {
            return Err(Error::Limit { operation, argument, needed: positions, limit: POSITIONS });
        }
        let index = match self.find(operation, argument, &bound) {
            Some(index) => index,
            None => {
                if self.checks.len() == self.blocks.len() * BLOCK {
                    self.grow(stream, operation)?;
                }
                let bounds = [bound].into();
                self.checks.push(Check { operation, argument, bounds, last: 0, is_captured: false });
                self.checks.len() - 1
            }
        };
        self.uses += 1;
        let check = &mut self.checks[index];
        check.last = self.uses;
        check.is_captured |= is_captured(stream);
        Ok(self.blocks[index / BLOCK].pointer() + (index % BLOCK * BYTES) as u64)
    }

    /// The record of an earlier check that this one shares: one with the same bound; otherwise, where there are many, that of a bound that
    /// is no longer needed, or else one that counts positions in the same way.
    fn find(&mut self, operation: &'static str, argument: &'static str, bound: &Bound) -> Option<usize> {
        let of_argument = |check: &Check| (check.operation, check.argument) == (operation, argument);
        let same = |check: &Check| of_argument(check) && check.bounds.iter().any(|other| other.same(bound));
        if let Some(index) = self.checks.iter().position(same) {
            // The last bound is that of the latest call.
            let bounds = &mut self.checks[index].bounds;
            let own =
                bounds.iter().position(|other| other.same(bound)).and_then(|place| bounds.remove(place));
            bounds.extend(own);
            return Some(index);
        }
        if self.checks.iter().filter(|check| of_argument(check)).count() < OWN {
            return None;
        }
        let settled = self.settled;
        let is_over = |check: &Check| of_argument(check) && !check.is_captured && check.last <= settled;
        if let Some(index) = self.checks.iter().position(is_over) {
            self.checks[index].bounds = [bound.clone()].into();
            return Some(index);
        }
        let alike =
            |check: &Check| of_argument(check) && check.bounds.iter().any(|other| other.counts_like(bound));
        let index = self.checks.iter().rposition(alike)?;
        let bounds = &mut self.checks[index].bounds;
        if bounds.len() == RECENT {
            bounds.pop_front();
        }
        bounds.push_back(bound.clone());
        Some(index)
    }

    /// Keeps an error for the next wait: the one that found it was given up.
    pub(super) fn give_back(&mut self, error: Error) {
        self.unclaimed.get_or_insert(error);
    }

    /// An error that was given back.
    pub(super) fn unclaimed(&mut self) -> Option<Error> {
        self.unclaimed.take()
    }

    /// How many checks there were so far.
    pub(super) fn uses(&self) -> u64 {
        self.uses
    }

    /// Notes that the first `uses` checks found nothing.
    pub(super) fn settle(&mut self, uses: u64) {
        self.settled = self.settled.max(uses);
    }

    /// Waits, and fails with the first id out of range recorded since the records were last cleared.
    pub(super) fn look(&self, stream: &CudaStream, operation: &'static str) -> Result<()> {
        let mut words = vec![u64::MAX; self.checks.len() * WORDS];
        let copied = self.copy(stream, operation, &mut words).and_then(|()| wait(stream, operation));
        if let Err(error) = copied {
            // A copy may still be made.
            abandon(words);
            return Err(error);
        }
        for (check, words) in self.checks.iter().zip(words.chunks_exact(WORDS)) {
            let Some(page) = words.iter().position(|&word| word != u64::MAX) else { continue };
            let position = (page as u64) << 32 | words[page] >> 32;
            let id = words[page] & u64::from(u32::MAX);
            let Check { operation, argument, .. } = *check;
            // That of the latest call that would have reported the id. Where it has been forgotten, it was at most the id.
            let bound = check.bounds.iter().rev().find(|bound| id >= bound.at(position));
            let forgotten = || Error::IndexOutOfRange { operation, argument, position, id, bound: id };
            return Err(bound.map_or_else(forgotten, |bound| bound.error(operation, argument, position, id)));
        }
        Ok(())
    }

    /// Enqueues copies of all records in use.
    fn copy(&self, stream: &CudaStream, operation: &'static str, words: &mut [u64]) -> Result<()> {
        for (block, words) in self.blocks.iter().zip(words.chunks_mut(BLOCK * WORDS)) {
            read(stream, operation, block.pointer(), bytemuck::cast_slice_mut(words))?;
        }
        Ok(())
    }

    /// As [`look`](Self::look), and clears the records. No call may run at the same time: its records would be cleared too.
    pub(super) fn take(&mut self, stream: &CudaStream, operation: &'static str) -> Result<()> {
        let found = self.look(stream, operation);
        if found.as_ref().is_err_and(Bound::found) {
            for block in &self.blocks {
                block.fill(operation, 0xff)?;
            }
            self.settled = self.uses;
        }
        found
    }
}
