//! Records of ids and other indices out of range: kernels write them, the next wait returns them as errors.

use std::sync::Arc;

use cudarc::driver::CudaStream;

use crate::cuda::driver::{Allocation, read, wait};
use crate::error::{Error, Result};
use crate::gpu::Bound;

/// 64-bit words of a record; see `report_bad_id` in `kernels/shared/common.cuh`.
const WORDS: usize = 16;
const BYTES: usize = WORDS * size_of::<u64>();
/// Positions that a record can distinguish: 2^32 per word.
const POSITIONS: u64 = (WORDS as u64) << 32;
/// Kinds of checks that can be distinguished between two waits.
const RECORDS: usize = 256;

/// One kind of check.
#[derive(Debug)]
struct Check {
    operation: &'static str,
    argument: &'static str,
    bound: Bound,
}

/// The records on the device, and the check that each belongs to. A kind of check keeps its record, so a captured launch
/// may be replayed for as long as the backend lives.
#[derive(Debug)]
pub(super) struct Records {
    memory: Allocation,
    checks: Vec<Check>,
}

impl Records {
    pub(super) fn new(stream: &Arc<CudaStream>, operation: &'static str) -> Result<Self> {
        let memory = Allocation::new(stream, operation, RECORDS * BYTES)?;
        memory.fill(operation, 0xff)?;
        Ok(Self { memory, checks: Vec::new() })
    }

    /// The address of the record for a kind of check over `positions` ids. If all records are in use, those written so far
    /// are returned first.
    pub(super) fn record(
        &mut self,
        stream: &CudaStream,
        operation: &'static str,
        argument: &'static str,
        positions: u64,
        bound: Bound,
    ) -> Result<u64> {
        if positions > POSITIONS {
            return Err(Error::Limit { operation, argument, needed: positions, limit: POSITIONS });
        }
        let same = |check: &Check| {
            (check.operation, check.argument) == (operation, argument) && check.bound.same(&bound)
        };
        let index = match self.checks.iter().position(same) {
            Some(index) => index,
            None => {
                if self.checks.len() == RECORDS {
                    self.take(stream, operation)?;
                    self.checks.clear();
                }
                self.checks.push(Check { operation, argument, bound });
                self.checks.len() - 1
            }
        };
        Ok(self.memory.pointer() + (index * BYTES) as u64)
    }

    /// Waits, and fails with the first id out of range recorded since the records were last cleared.
    pub(super) fn look(&self, stream: &CudaStream, operation: &'static str) -> Result<()> {
        if self.checks.is_empty() {
            return wait(stream, operation);
        }
        let mut words = vec![u64::MAX; self.checks.len() * WORDS];
        read(stream, operation, self.memory.pointer(), bytemuck::cast_slice_mut(&mut words))?;
        wait(stream, operation)?;
        for (check, words) in self.checks.iter().zip(words.chunks_exact(WORDS)) {
            let Some(page) = words.iter().position(|&word| word != u64::MAX) else { continue };
            let position = (page as u64) << 32 | words[page] >> 32;
            return Err(Error::IndexOutOfRange {
                operation: check.operation,
                argument: check.argument,
                position,
                id: words[page] & u64::from(u32::MAX),
                bound: check.bound.at(position),
            });
        }
        Ok(())
    }

    /// As [`look`](Self::look), and clears the records. No call may run at the same time: its records would be cleared too.
    pub(super) fn take(&self, stream: &CudaStream, operation: &'static str) -> Result<()> {
        let found = self.look(stream, operation);
        if matches!(found, Err(Error::IndexOutOfRange { .. })) {
            self.memory.fill(operation, 0xff)?;
        }
        found
    }
}
