//! The address space of one device.
//!
//! Allocations are kept apart by guard gaps; a freed range is remembered and not reused until the address space
//! is nearly spent, so that a stale pointer is told from a wild one. Every byte has a bit that says whether
//! anything ever wrote it. All functions take `&self`: a `Memory` is shared between streams and the worker
//! threads of a launch.

use serde::{Deserialize, Serialize};

/// Why a host-side memory call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// The device has not that many bytes left.
    #[error("out of device memory: {asked} bytes asked, {free} free")]
    OutOfMemory {
        /// Bytes asked for.
        asked: u64,
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
        /// What lies there or nearby, in words.
        what: String,
    },
    /// Not the start of a live allocation.
    #[error("{address:#x} is not the start of a live allocation: {what}")]
    NotAnAllocation {
        /// The address that was to be freed.
        address: u64,
        /// What lies there or nearby, in words.
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
    /// Counts allocations of this device from 1.
    pub serial: u64,
}

/// The memory of one device.
#[derive(Debug)]
pub struct Memory {
    capacity: u64,
}

impl Memory {
    /// A device with that many bytes.
    pub fn new(capacity: u64) -> Self {
        Self { capacity }
    }

    /// Reserves `bytes` (at least one), aligned to 256.
    ///
    /// # Errors
    /// [`MemoryError::OutOfMemory`].
    pub fn alloc(&self, bytes: u64) -> Result<u64, MemoryError> {
        Err(MemoryError::OutOfMemory { asked: bytes, free: self.capacity })
    }

    /// Frees the allocation that starts at `address`.
    ///
    /// # Errors
    /// [`MemoryError::NotAnAllocation`].
    pub fn free(&self, address: u64) -> Result<(), MemoryError> {
        Err(MemoryError::NotAnAllocation { address, what: String::new() })
    }

    /// Copies from the host; marks the bytes as written.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    pub fn write(&self, address: u64, data: &[u8]) -> Result<(), MemoryError> {
        Err(MemoryError::OutOfBounds { address, bytes: data.len() as u64, what: String::new() })
    }

    /// Copies to the host. Bytes that nothing wrote read as a fixed pattern.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    pub fn read(&self, address: u64, data: &mut [u8]) -> Result<(), MemoryError> {
        Err(MemoryError::OutOfBounds { address, bytes: data.len() as u64, what: String::new() })
    }

    /// Repeats `pattern` (1, 2 or 4 bytes) `count` times.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    pub fn fill(&self, address: u64, pattern: &[u8], count: u64) -> Result<(), MemoryError> {
        Err(MemoryError::OutOfBounds { address, bytes: pattern.len() as u64 * count, what: String::new() })
    }

    /// Copies inside the device, ranges may overlap; which bytes were written is copied along.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    pub fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<(), MemoryError> {
        let _ = from;
        Err(MemoryError::OutOfBounds { address: to, bytes, what: String::new() })
    }

    /// The live allocation that holds `address`.
    pub fn allocation(&self, address: u64) -> Option<AllocationInfo> {
        let _ = address;
        None
    }

    /// All live allocations, by address.
    pub fn live(&self) -> Vec<AllocationInfo> {
        Vec::new()
    }

    /// Bytes in live allocations.
    pub fn used(&self) -> u64 {
        0
    }

    /// Bytes the device has.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }
}
