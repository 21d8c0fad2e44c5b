//! Data races ("Memory Consistency Model": conflict, race): two threads access the same bytes, at least one of them
//! writes, nothing orders the accesses, and they are not both strong.
//!
//! The shadow of each grain of memory records its last writer and its last reader: block, thread and the clock of the
//! thread's warp. A warp's clock advances at barriers; `known[w][v]` is the clock of warp `v` up to which `w` is ordered
//! after `v`. Between blocks, and between warps that use flags instead of barriers, a fence on the writer's side followed
//! by a strong access on the other side counts as synchronisation. This is lenient, so that correct programs are never
//! reported.

use super::access::Words;
use super::lanes::vectorised;
use super::registers::Row;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Bits of a shadow entry: run (32), strong (1), many (1), clock (20), thread (10).
const STRONG: u64 = 1 << 31;
const MANY: u64 = 1 << 30;
const THREAD: u64 = 0x3ff;
const CLOCK: u64 = 0xf_ffff << 10;
const IDENTITY: u64 = !0 << 32 | THREAD;

/// The clock at which the race checks of a block end, because later clocks do not fit into an entry.
pub(crate) const LAST_CLOCK: u32 = 0xf_ffff;

fn run_of(e: u64) -> u32 {
    (e >> 32) as u32
}

fn clock_of(e: u64) -> u32 {
    ((e & CLOCK) >> 10) as u32
}

fn warp_of(e: u64) -> usize {
    (e & THREAD) as usize / 32
}

/// One grain of a lane's store.
#[derive(Clone, Copy)]
pub(crate) struct Grain {
    pub(crate) lane: usize,
    /// Its first byte within the lane's access.
    byte: u64,
    /// Its bits, shifted to the bottom of a word.
    keep: u32,
}

impl Grain {
    /// Number `index` of a lane's grains of `1 << size` bytes each.
    #[inline(always)]
    pub(crate) fn new(lane: usize, index: usize, size: u32) -> Self {
        let bits = 8 << size;
        let keep = (u64::from(u32::MAX) >> (32 - bits)) as u32;
        Self { lane, byte: (index << size) as u64, keep }
    }

    /// Whether the lane's store leaves the grain as it is. Of lanes of one instruction that store to one address, each finds
    /// what the one before it stores; otherwise `memory` is asked, for a word by its index.
    ///
    /// "If a non-atomic instruction executed by a warp writes to the same location for more than one of the threads, […]
    /// which thread performs the final write is undefined" (CUDA C++ Programming Guide, "SIMT Architecture"): that is
    /// harmless as long as all write the same. Accesses of one instruction have one size and are aligned to it, so two of
    /// them overlap only where their addresses are equal.
    pub(crate) fn is_unchanged(
        self,
        addresses: &Row<u64>,
        mask: u32,
        data: &Words,
        memory: impl FnOnce(u64) -> u32,
    ) -> bool {
        let stored = |lane: usize| data[(self.byte / 4) as usize][lane] >> (8 * (self.byte % 4)) & self.keep;
        let address = addresses[self.lane];
        let earlier = (0..self.lane).rev().find(|l| mask >> l & 1 == 1 && addresses[*l] == address);
        let now = match earlier {
            Some(lane) => stored(lane),
            None => {
                let at = address + self.byte;
                memory(at / 4) >> (8 * (at % 4)) & self.keep
            }
        };
        now == stored(self.lane)
    }
}

/// A conflicting access found in the shadow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conflict {
    /// Block number within the launch.
    pub(crate) run: u32,
    /// Linear index of the thread in that block.
    pub(crate) thread: u32,
    /// Whether that access was a write.
    pub(crate) wrote: bool,
}

/// A fence that a thread executed.
#[derive(Debug, Clone, Copy)]
struct Fence {
    warp: usize,
    clock: u32,
    tick: u64,
}

/// The fences of a launch.
#[derive(Debug, Default)]
pub(crate) struct Fences {
    tick: AtomicU64,
    any: AtomicBool,
    by_run: Mutex<HashMap<u32, Vec<Fence>>>,
}

impl Fences {
    /// The current time, for a strong access.
    pub(crate) fn now(&self) -> u64 {
        self.tick.load(Relaxed)
    }

    /// Records a fence; only the first of a warp at a clock matters.
    pub(crate) fn record(&self, run: u32, warp: usize, clock: u32) {
        let mut map = self.by_run.lock().unwrap_or_else(PoisonError::into_inner);
        let list = map.entry(run).or_default();
        if !list.iter().rev().any(|f| f.warp == warp && f.clock == clock) {
            list.push(Fence { warp, clock, tick: self.tick.fetch_add(1, Relaxed) });
        }
        self.any.store(true, Relaxed);
    }

    /// Whether the access of entry `e` was published before `acquired`.
    fn published(&self, e: u64, same_block: bool, acquired: u64) -> bool {
        if !self.any.load(Relaxed) {
            return false;
        }
        let map = self.by_run.lock().unwrap_or_else(PoisonError::into_inner);
        let (warp, clock) = (warp_of(e), clock_of(e));
        map.get(&run_of(e)).is_some_and(|list| {
            list.iter().any(|f| {
                let after = f.warp == warp && f.clock >= clock || !same_block && f.clock > clock;
                after && f.tick < acquired
            })
        })
    }
}

/// The view of the running warp.
#[derive(Clone, Copy)]
pub(crate) struct Observer<'a> {
    /// The entry for an access by lane 0.
    mine: u64,
    first_run: u32,
    runs: u32,
    known: &'a [u32; 32],
    /// The minimum of `known`: all earlier accesses of this block are ordered, whichever warp made them.
    settled: u32,
    fences: &'a Fences,
    acquired: u64,
}

impl<'a> Observer<'a> {
    pub(crate) fn new(
        (run, first_run, runs): (u32, u32, u32),
        warp: usize,
        (known, settled): (&'a [u32; 32], u32),
        fences: &'a Fences,
        acquired: u64,
        strong: bool,
    ) -> Self {
        let strong = if strong { STRONG } else { 0 };
        let mine = u64::from(run) << 32 | u64::from(known[warp]) << 10 | (warp * 32) as u64 | strong;
        Self { mine, first_run, runs, known, settled, fences, acquired }
    }

    /// Whether an entry is older than anything relevant: no access of this warp needs to check it.
    #[inline(always)]
    fn is_past(&self, e: u64) -> bool {
        let run = run_of(e);
        let other = run.wrapping_sub(self.first_run) >= self.runs;
        other | (run == run_of(self.mine) && clock_of(e) < self.settled)
    }

    /// Whether an entry needs no further check: it is this very access, or in the past.
    #[inline(always)]
    fn is_settled(&self, e: u64, mine: u64) -> bool {
        (e == mine) | self.is_past(e)
    }

    /// Whether an entry is of this warp, since its last barrier, and as strong as this access. `MANY` is ignored.
    #[inline(always)]
    fn is_own(&self, e: u64) -> bool {
        (e ^ self.mine) & !(31 | MANY) == 0
    }

    /// Checks and records reads of adjacent grains, `1 << shift` for each of the 32 lanes; false if they must be checked one by one.
    #[inline(always)]
    pub(crate) fn read_row(&self, writes: Option<&[AtomicU64]>, reads: &[AtomicU64], shift: u32) -> bool {
        writes.is_none_or(|w| self.row_is_settled(w, shift)) && self.mark_row(reads, shift)
    }

    /// Checks and records writes of adjacent grains, as [`Observer::read_row`].
    #[inline(always)]
    pub(crate) fn write_row(&self, writes: &[AtomicU64], reads: Option<&[AtomicU64]>, shift: u32) -> bool {
        reads.is_none_or(|r| self.row_is_settled(r, shift)) && self.mark_row(writes, shift)
    }

    #[inline(never)]
    fn row_is_settled(&self, entries: &[AtomicU64], shift: u32) -> bool {
        let mut first = 0;
        entries.chunks_exact(32).all(|chunk| {
            let row = loaded(chunk);
            let settled = vectorised(
                #[inline(always)]
                || {
                    let mut open = 0u64;
                    for (i, e) in row.iter().enumerate() {
                        open |= u64::from(!self.is_settled(*e, self.mine + ((first + i as u64) >> shift)));
                    }
                    open == 0
                },
            );
            first += 32;
            settled
        })
    }

    /// Records this access in entries that need not be kept; entries of this access with `MANY` are left unchanged. What is
    /// recorded before an entry that must be checked stays: to record it again changes nothing.
    #[inline(never)]
    fn mark_row(&self, entries: &[AtomicU64], shift: u32) -> bool {
        let mut first = 0;
        entries.chunks_exact(32).all(|chunk| {
            let mut row = loaded(chunk);
            let settled = vectorised(
                #[inline(always)]
                || {
                    let mut open = 0u64;
                    for (i, e) in row.iter_mut().enumerate() {
                        let mine = self.mine + ((first + i as u64) >> shift);
                        let kept = *e & !MANY == mine;
                        open |= u64::from(!(kept | self.is_settled(*e, mine)));
                        *e = if kept { *e } else { mine };
                    }
                    open == 0
                },
            );
            if settled {
                for (e, cell) in row.iter().zip(chunk) {
                    cell.store(*e, Relaxed);
                }
            }
            first += 32;
            settled
        })
    }

    /// Checks and records a read of one grain by all lanes of `mask`; false if they must be checked one by one.
    #[inline(always)]
    pub(crate) fn read_by_many(&self, mask: u32, write: Option<&AtomicU64>, read: &AtomicU64) -> bool {
        if write.is_some_and(|w| !self.is_past(w.load(Relaxed))) {
            return false;
        }
        let mine = self.mine + u64::from(31 - (mask | 1).leading_zeros());
        let e = read.load(Relaxed);
        let past = self.is_past(e);
        let alone = mask & (mask - 1) == 0 && (past || e & !MANY == mine);
        let kept = if past { 0 } else { e & MANY };
        let new = if alone { mine | kept } else { mine | MANY };
        if e != new {
            if !past && !self.is_own(e) {
                return false;
            }
            read.store(new, Relaxed);
        }
        true
    }

    /// Whether the access of entry `e` is ordered before the current access.
    #[inline(never)]
    fn ordered(&self, e: u64) -> bool {
        let run = run_of(e);
        if run == run_of(self.mine) {
            clock_of(e) < self.known[warp_of(e)] || self.fences.published(e, true, self.acquired)
        } else {
            run.wrapping_sub(self.first_run) >= self.runs || self.fences.published(e, false, self.acquired)
        }
    }

    #[inline(always)]
    fn clashes(&self, e: u64, mine: u64) -> bool {
        let same = (e ^ mine) & IDENTITY == 0 && e & MANY == 0;
        !same && e & mine & STRONG == 0 && e != 0 && !self.ordered(e)
    }

    /// Checks and records a read of one grain.
    #[inline(always)]
    pub(crate) fn read(
        &self,
        lane: usize,
        write: Option<&AtomicU64>,
        read: &AtomicU64,
    ) -> Result<(), Conflict> {
        let mine = self.mine + lane as u64;
        if let Some(write) = write {
            let e = write.load(Relaxed);
            if !self.is_settled(e, mine) && self.clashes(e, mine) {
                return Err(conflict(e, true));
            }
        }
        let e = read.load(Relaxed);
        if e & !MANY == mine {
            return Ok(());
        }
        if self.is_past(e) {
            read.store(mine, Relaxed);
        } else if self.is_own(e) {
            // Another lane of this warp.
            read.store(mine | MANY, Relaxed);
        } else {
            // `MANY` records that there is another reader that is still unordered.
            let other = (e ^ mine) & IDENTITY != 0 || e & MANY != 0;
            let many = if other && e != 0 && !self.ordered(e) { MANY } else { 0 };
            let strong = if many != 0 && e & STRONG == 0 { mine & !STRONG } else { mine };
            read.store(strong | many, Relaxed);
        }
        Ok(())
    }

    /// Checks and records a write of one grain. `same` returns whether the bytes stay unchanged: two threads may write the
    /// same value.
    #[inline(always)]
    pub(crate) fn write(
        &self,
        lane: usize,
        write: &AtomicU64,
        read: Option<&AtomicU64>,
        same: impl Fn() -> bool,
    ) -> Result<(), Conflict> {
        let mine = self.mine + lane as u64;
        let e = write.load(Relaxed);
        let settled = self.is_settled(e, mine);
        if !settled && self.clashes(e, mine) && !same() {
            return Err(conflict(e, true));
        }
        if let Some(read) = read {
            let r = read.load(Relaxed);
            if !self.is_settled(r, mine) && self.clashes(r, mine) {
                return Err(conflict(r, false));
            }
        }
        if settled {
            write.store(mine, Relaxed);
        } else {
            let other = (e ^ mine) & IDENTITY != 0 || e & MANY != 0;
            let many = if other && e & mine & STRONG != 0 && !self.ordered(e) { MANY } else { 0 };
            write.store(mine | many, Relaxed);
        }
        Ok(())
    }
}

#[inline(always)]
fn loaded(entries: &[AtomicU64]) -> [u64; 32] {
    let mut row = [0; 32];
    for (e, cell) in row.iter_mut().zip(entries) {
        *e = cell.load(Relaxed);
    }
    row
}

fn conflict(e: u64, wrote: bool) -> Conflict {
    Conflict { run: run_of(e), thread: (e & THREAD) as u32, wrote }
}
