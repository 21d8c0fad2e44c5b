//! Addresses whose memory comes and goes: that of a graph, which is allocated anew by every launch, and that of a
//! stream-ordered allocation, which exists from the moment its stream has reached it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Allocation, AllocationInfo, Memory, MemoryError};

/// The reserved addresses.
#[derive(Debug, Default)]
pub(super) struct Reserved {
    /// Size and serial number by address, where there is no memory at present.
    absent: BTreeMap<u64, (u64, u64)>,
    /// Addresses that become reserved again when their memory is freed.
    kept: BTreeSet<u64>,
}

impl Reserved {
    /// The reservation that holds an address and has no memory.
    pub(super) fn at(&self, address: u64) -> Option<AllocationInfo> {
        let (&start, &(bytes, serial)) = self.absent.range(..=address).next_back()?;
        (address < start + bytes).then_some(AllocationInfo { address: start, bytes, serial })
    }

    /// Called when memory is freed; returns whether the address stays reserved.
    pub(super) fn keep(&mut self, freed: &Allocation) -> bool {
        let kept = self.kept.contains(&freed.base);
        if kept {
            self.absent.insert(freed.base, (freed.bytes, freed.serial));
        }
        kept
    }
}

impl Memory {
    /// Reserves addresses for `bytes`, without memory there.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<u64, MemoryError> {
        let mut s = self.state();
        let (base, bytes) = s.take(bytes, self.capacity)?;
        let serial = s.serial;
        s.reserved.absent.insert(base, (bytes, serial));
        s.reserved.kept.insert(base);
        Ok(base)
    }

    /// Makes memory at a reserved address, uninitialised; returns its size, or `None` if there is memory already or the
    /// address is not reserved.
    pub(crate) fn establish(&self, address: u64) -> Option<u64> {
        let mut s = self.state();
        let (bytes, serial) = s.reserved.absent.remove(&address)?;
        s.live.insert(address, Arc::new(Allocation::new(address, bytes, serial, false)));
        Some(bytes)
    }

    /// Gives up a reservation. Memory that is there stays until it is freed.
    pub(crate) fn give_up(&self, address: u64) {
        let mut s = self.state();
        s.reserved.kept.remove(&address);
        if let Some((bytes, serial)) = s.reserved.absent.remove(&address) {
            s.used -= bytes;
            s.remember_freed(address..address + bytes, serial);
        }
    }

    /// Whether the address is reserved, with or without memory.
    pub(crate) fn is_reserved(&self, address: u64) -> bool {
        self.state().reserved.kept.contains(&address)
    }

    /// The start of the allocation or reservation that holds an address.
    pub(crate) fn holder(&self, address: u64) -> Option<u64> {
        let s = self.state();
        let live = s.live.range(..=address).next_back().filter(|(_, a)| address < a.end());
        live.map(|(start, _)| *start).or_else(|| s.reserved.at(address).map(|info| info.address))
    }
}
