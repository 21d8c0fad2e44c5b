//! The address space of one device.
//!
//! Allocations are separated by guard gaps, and no address is reused, so that a dangling pointer can be distinguished
//! from a wild one. Every byte has a bit that records whether it was ever written. All functions take `&self`: a
//! `Memory` is shared by streams and the worker threads of a launch.

mod allocation;
mod reserve;

pub(crate) use allocation::Allocation;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Address of the first allocation.
pub(crate) const FIRST: u64 = 0x7_0000_0000;

/// Minimum number of bytes between allocations.
const GAP: u64 = 512;

/// Alignment of allocations.
const ALIGN: u64 = 512;

/// Why a host-side memory call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// The device does not have that many bytes left.
    #[error("out of device memory: {requested} bytes requested, {free} free")]
    OutOfMemory {
        /// Bytes requested.
        requested: u64,
        /// Bytes left.
        free: u64,
    },
    /// The range is not inside one live allocation.
    #[error("{bytes} bytes at {address:#x}: {what}")]
    OutOfBounds {
        /// First byte.
        address: u64,
        /// Length of the range.
        bytes: u64,
        /// A description of what is at or near the address.
        what: String,
    },
    /// The address is not the start of a live allocation.
    #[error("{address:#x} is not the start of a live allocation: {what}")]
    NotAnAllocation {
        /// The address.
        address: u64,
        /// A description of what is at or near the address.
        what: String,
    },
}

/// A live allocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocationInfo {
    /// First byte.
    pub address: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Number of the allocation on this device, from 1.
    pub serial: u64,
}

impl From<&Allocation> for AllocationInfo {
    fn from(a: &Allocation) -> Self {
        Self { address: a.base, bytes: a.bytes, serial: a.serial }
    }
}

/// What is at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Near {
    Live(AllocationInfo),
    Freed(AllocationInfo),
    /// Addresses without memory at present: that of a graph between its launches, or of an allocation that its stream has
    /// not reached.
    Absent(AllocationInfo),
    /// The closest live allocation.
    Beside(AllocationInfo),
    Nothing,
}

/// The most freed ranges that are remembered.
const MOST_FREED: usize = 1 << 16;

#[derive(Debug, Default)]
struct State {
    live: BTreeMap<u64, Arc<Allocation>>,
    /// End and serial number of freed ranges, by start.
    freed: BTreeMap<u64, (u64, u64)>,
    reserved: reserve::Reserved,
    next: u64,
    serial: u64,
    used: u64,
    /// The next block number for the race shadow.
    runs: u64,
}

impl State {
    /// Takes the next address, and `bytes` (at least one) of the capacity.
    fn take(&mut self, bytes: u64, capacity: u64) -> Result<(u64, u64), MemoryError> {
        let bytes = bytes.max(1);
        let free = capacity - self.used;
        if bytes > free {
            return Err(MemoryError::OutOfMemory { requested: bytes, free });
        }
        let base = self.next;
        self.next = (base + bytes + GAP).next_multiple_of(ALIGN);
        self.serial += 1;
        self.used += bytes;
        Ok((base, bytes))
    }

    /// Remembers a freed range, for messages. The oldest is forgotten when there are many, since a program may run for days; addresses are
    /// not used again, so it has the lowest.
    fn remember_freed(&mut self, range: Range<u64>, serial: u64) {
        self.freed.insert(range.start, (range.end, serial));
        if self.freed.len() > MOST_FREED {
            self.freed.pop_first();
        }
    }
}

/// The memory of one device.
#[derive(Debug)]
pub struct Memory {
    capacity: u64,
    state: Mutex<State>,
}

impl Memory {
    /// The memory of a device with `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        Self { capacity, state: Mutex::new(State { next: FIRST, runs: 1, ..State::default() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves `bytes` (at least one), aligned to 512.
    ///
    /// # Errors
    /// [`MemoryError::OutOfMemory`].
    pub fn alloc(&self, bytes: u64) -> Result<u64, MemoryError> {
        self.alloc_as(bytes, false)
    }

    pub(crate) fn alloc_as(&self, bytes: u64, read_only: bool) -> Result<u64, MemoryError> {
        let mut s = self.state();
        let (base, bytes) = s.take(bytes, self.capacity)?;
        let allocation = Allocation::new(base, bytes, s.serial, read_only);
        s.live.insert(base, Arc::new(allocation));
        Ok(base)
    }

    /// Frees the allocation that starts at `address`.
    ///
    /// # Errors
    /// [`MemoryError::NotAnAllocation`].
    pub fn free(&self, address: u64) -> Result<(), MemoryError> {
        let mut s = self.state();
        let Some(a) = s.live.remove(&address) else {
            drop(s);
            return Err(MemoryError::NotAnAllocation { address, what: self.describe(address) });
        };
        if !s.reserved.keep(&a) {
            s.used -= a.bytes;
            s.remember_freed(a.base..a.end(), a.serial);
        }
        Ok(())
    }

    fn range(&self, address: u64, bytes: u64) -> Result<Arc<Allocation>, MemoryError> {
        let found = self.state().live.range(..=address).next_back().map(|(_, a)| Arc::clone(a));
        match found {
            Some(a) if bytes <= a.end().saturating_sub(address) && address < a.end() => Ok(a),
            _ => Err(MemoryError::OutOfBounds { address, bytes, what: self.describe(address) }),
        }
    }

    /// Copies from the host; marks the bytes as written.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    pub fn write(&self, address: u64, data: &[u8]) -> Result<(), MemoryError> {
        if !data.is_empty() {
            let a = self.range(address, data.len() as u64)?;
            a.write_bytes(address - a.base, data);
        }
        Ok(())
    }

    /// Copies to the host. Unwritten bytes read as a fixed pattern.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    pub fn read(&self, address: u64, data: &mut [u8]) -> Result<(), MemoryError> {
        if !data.is_empty() {
            let a = self.range(address, data.len() as u64)?;
            a.read_bytes(address - a.base, data);
        }
        Ok(())
    }

    /// Repeats `pattern` (1, 2 or 4 bytes) `count` times.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    pub fn fill(&self, address: u64, pattern: &[u8], count: u64) -> Result<(), MemoryError> {
        let bytes = count.saturating_mul(pattern.len() as u64);
        if bytes == 0 {
            return Ok(());
        }
        let a = self.range(address, bytes)?;
        // Variables of modules are small, and there are many.
        let repeats = count.min(16384) as usize;
        let chunk = pattern.repeat(repeats);
        let mut done = 0;
        while done < bytes {
            let n = (bytes - done).min(chunk.len() as u64);
            a.write_bytes(address - a.base + done, &chunk[..n as usize]);
            done += n;
        }
        a.mark_range(address - a.base, bytes);
        Ok(())
    }

    /// Copies within the device; the ranges may overlap. Whether a byte counts as written is copied as well.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    pub fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<(), MemoryError> {
        if bytes == 0 {
            return Ok(());
        }
        let (a, b) = (self.range(to, bytes)?, self.range(from, bytes)?);
        let mut data = vec![0; bytes as usize];
        b.read_bytes(from - b.base, &mut data);
        let written = b.written_bytes(from - b.base, bytes);
        a.write_bytes(to - a.base, &data);
        a.set_written(to - a.base, &written);
        Ok(())
    }

    /// The live allocation that holds `address`.
    pub fn allocation(&self, address: u64) -> Option<AllocationInfo> {
        match self.near(address) {
            Near::Live(info) => Some(info),
            _ => None,
        }
    }

    /// All live allocations, in order of address.
    pub fn live(&self) -> Vec<AllocationInfo> {
        self.state().live.values().map(|a| AllocationInfo::from(&**a)).collect()
    }

    /// Bytes in live allocations.
    pub fn used(&self) -> u64 {
        self.state().used
    }

    /// Total bytes of the device.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The live allocations, for a launch.
    pub(crate) fn snapshot(&self) -> Vec<Arc<Allocation>> {
        self.state().live.values().map(Arc::clone).collect()
    }

    /// Reserves numbers for the blocks of a launch that no earlier launch has used.
    pub(crate) fn reserve_runs(&self, blocks: u64) -> u32 {
        let mut s = self.state();
        if s.runs + blocks > u64::from(u32::MAX) {
            s.runs = 1;
            s.live.values().for_each(|a| a.clear_shadows());
        }
        let first = s.runs;
        s.runs += blocks;
        first as u32
    }

    pub(crate) fn near(&self, address: u64) -> Near {
        let s = self.state();
        let before = s.live.range(..=address).next_back().map(|(_, a)| a);
        let after = s.live.range(address..).next().map(|(_, a)| a);
        if let Some(a) = before
            && address < a.end()
        {
            return Near::Live(AllocationInfo::from(&**a));
        }
        if let Some(info) = s.reserved.at(address) {
            return Near::Absent(info);
        }
        if let Some((start, (end, serial))) = s.freed.range(..=address).next_back()
            && address < *end
        {
            return Near::Freed(AllocationInfo { address: *start, bytes: end - start, serial: *serial });
        }
        match (before, after) {
            (Some(b), Some(a)) if address - b.end() <= a.base - address => {
                Near::Beside(AllocationInfo::from(&**b))
            }
            (_, Some(a)) => Near::Beside(AllocationInfo::from(&**a)),
            (Some(b), None) => Near::Beside(AllocationInfo::from(&**b)),
            (None, None) => Near::Nothing,
        }
    }

    /// The allocation that holds an address, held it, or is nearest to it.
    pub(crate) fn nearest(&self, address: u64) -> Option<AllocationInfo> {
        match self.near(address) {
            Near::Live(info) | Near::Freed(info) | Near::Absent(info) | Near::Beside(info) => Some(info),
            Near::Nothing => None,
        }
    }

    pub(crate) fn describe(&self, address: u64) -> String {
        match self.near(address) {
            Near::Live(a) => format!("inside allocation #{} of {} bytes", a.serial, a.bytes),
            Near::Freed(a) => {
                format!("inside allocation #{} of {} bytes, which was freed", a.serial, a.bytes)
            }
            Near::Absent(a) => format!(
                "inside allocation #{} of {} bytes, which has no memory now: its graph or stream has not allocated it yet, \
                 or has freed it",
                a.serial, a.bytes
            ),
            Near::Beside(a) if address >= a.address => format!(
                "{} bytes after the end of allocation #{} of {} bytes",
                address - (a.address + a.bytes),
                a.serial,
                a.bytes
            ),
            Near::Beside(a) => format!(
                "{} bytes before the start of allocation #{} of {} bytes",
                a.address - address,
                a.serial,
                a.bytes
            ),
            Near::Nothing => "outside any allocation; none is live".to_owned(),
        }
    }
}
