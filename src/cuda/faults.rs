//! What goes wrong on the device: the driver's errors, and ids out of range, told to the host at the next wait.

use std::sync::Arc;

use cudarc::driver::{CudaStream, DriverError};

use crate::cuda::Cuda;
use crate::cuda::launch::{Allocation, read, wait};
use crate::error::{Error, Result};
use crate::gpu::{Bound, lock};

/// A driver error in the crate's words.
pub(super) fn driver_error(operation: &'static str, error: DriverError) -> Error {
    let name = error.error_name().map_or_else(|_| "unknown".into(), |name| name.to_string_lossy().into());
    Error::Driver { operation, code: error.0 as u32, name }
}

/// 64-bit words of a record; `report_bad_id` in common.cuh says what they hold.
const WORDS: usize = 16;
const BYTES: usize = WORDS * size_of::<u64>();
/// Positions that a record can tell apart: 2^32 a word.
const POSITIONS: u64 = (WORDS as u64) << 32;
/// Kinds of checks that can be told apart between two waits.
const RECORDS: usize = 256;

/// One kind of check.
#[derive(Debug)]
struct Check {
    operation: &'static str,
    argument: &'static str,
    bound: Bound,
}

/// The records on the device, and what each is for. A kind of check keeps its record, so a captured launch may be
/// replayed for as long as the backend lives.
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

    /// The address of the record for a kind of check over `positions` ids. Where there is no room for one more kind,
    /// what was recorded so far is looked at first.
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

    /// Waits, and fails with what was recorded since it was last taken.
    fn look(&self, stream: &CudaStream, operation: &'static str) -> Result<()> {
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

    /// As [`look`](Self::look), and forgets it. No call may be under way beside it, whose finds it would forget too.
    fn take(&self, stream: &CudaStream, operation: &'static str) -> Result<()> {
        let found = self.look(stream, operation);
        if matches!(found, Err(Error::IndexOutOfRange { .. })) {
            self.memory.fill(operation, 0xff)?;
        }
        found
    }
}

impl Cuda {
    /// Waits, and fails with what this handle's calls found since the last time.
    pub(super) fn take_records(&self, operation: &'static str) -> Result<()> {
        let found = lock(&self.records).look(self.stream(), operation);
        if !matches!(found, Err(Error::IndexOutOfRange { .. })) {
            return found;
        }
        let _no_calls = lock(&self.shared.workspace);
        lock(&self.records).take(self.stream(), operation)
    }
}
