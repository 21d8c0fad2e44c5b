//! One allocation: its bytes, which of them have been written, and the race shadow of the running launch.
//!
//! Several worker threads may access the same bytes, so everything is a relaxed atomic. That costs nothing on common
//! processors, and a race in a kernel is not undefined behaviour of the emulator.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Unwritten bytes read as this.
const POISON: u8 = 0xcd;

/// The last reader and the last writer of each grain; allocated when a launch first needs them.
#[derive(Debug, Default)]
pub(crate) struct Shadow {
    reads: OnceLock<Box<[AtomicU64]>>,
    writes: OnceLock<Box<[AtomicU64]>>,
}

/// A range of device memory.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) base: u64,
    pub(crate) bytes: u64,
    pub(crate) serial: u64,
    pub(crate) read_only: bool,
    pub(crate) data: Box<[AtomicU32]>,
    /// One bit per byte.
    written: Box<[AtomicU32]>,
    /// Set once a host call has written everything.
    all_written: AtomicBool,
    /// By grain size: 1, 2 or 4 bytes.
    shadows: [Shadow; 3],
}

fn zeroed<T: bytemuck::Zeroable>(count: u64) -> Box<[T]> {
    bytemuck::allocation::zeroed_slice_box(count as usize)
}

impl Allocation {
    pub(crate) fn new(base: u64, bytes: u64, serial: u64, read_only: bool) -> Self {
        Self {
            base,
            bytes,
            serial,
            read_only,
            data: zeroed(bytes.div_ceil(16) * 4),
            written: zeroed(bytes.div_ceil(32)),
            all_written: AtomicBool::new(false),
            shadows: Default::default(),
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.base + self.bytes
    }

    #[inline(always)]
    pub(crate) fn word(&self, index: usize) -> u32 {
        self.data[index].load(Relaxed)
    }

    /// Replaces the bits of `mask` in a word; other threads may write the remaining bytes at the same time.
    #[inline(always)]
    pub(crate) fn merge(&self, index: usize, bits: u32, mask: u32) {
        let cell = &self.data[index];
        let mut old = cell.load(Relaxed);
        while let Err(now) = cell.compare_exchange_weak(old, old & !mask | bits & mask, Relaxed, Relaxed) {
            old = now;
        }
    }

    #[inline(always)]
    pub(crate) fn is_all_written(&self) -> bool {
        self.all_written.load(Relaxed)
    }

    /// Whether all bytes of an aligned access (1 to 32 bytes) have been written.
    #[inline(always)]
    pub(crate) fn is_written(&self, offset: u64, size: u32) -> bool {
        let want = (u64::from(u32::MAX) >> (32 - size)) as u32;
        self.written[(offset >> 5) as usize].load(Relaxed) >> (offset & 31) & want == want
    }

    #[inline(always)]
    pub(crate) fn mark_written(&self, offset: u64, size: u32) {
        let bits = ((u64::from(u32::MAX) >> (32 - size)) as u32) << (offset & 31);
        let cell = &self.written[(offset >> 5) as usize];
        if cell.load(Relaxed) & bits != bits {
            cell.fetch_or(bits, Relaxed);
        }
    }

    fn byte_is_written(&self, offset: u64) -> bool {
        self.written[(offset >> 5) as usize].load(Relaxed) >> (offset & 31) & 1 == 1
    }

    /// Marks a range of any length and alignment as written.
    pub(crate) fn mark_range(&self, offset: u64, bytes: u64) {
        if offset == 0 && bytes == self.bytes {
            self.all_written.store(true, Relaxed);
        }
        let mut at = offset;
        let end = offset + bytes;
        while at < end {
            let upto = ((at | 31) + 1).min(end);
            self.mark_written(at, (upto - at) as u32);
            at = upto;
        }
    }

    pub(crate) fn write_bytes(&self, offset: u64, data: &[u8]) {
        let mut at = offset as usize;
        let mut rest = data;
        while !rest.is_empty() {
            let start = at & 3;
            let n = (4 - start).min(rest.len());
            if n == 4 {
                self.data[at / 4].store(u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]), Relaxed);
            } else {
                for (i, byte) in rest[..n].iter().enumerate() {
                    let shift = 8 * (start + i);
                    self.merge(at / 4, u32::from(*byte) << shift, 0xff << shift);
                }
            }
            at += n;
            rest = &rest[n..];
        }
        self.mark_range(offset, data.len() as u64);
    }

    pub(crate) fn read_bytes(&self, offset: u64, data: &mut [u8]) {
        let whole = self.is_all_written();
        let mut at = offset as usize;
        let mut rest = data;
        while !rest.is_empty() {
            let start = at & 3;
            let n = (4 - start).min(rest.len());
            let (head, tail) = rest.split_at_mut(n);
            head.copy_from_slice(&self.word(at / 4).to_le_bytes()[start..start + n]);
            if !(whole || n == 4 && self.is_written(at as u64, 4)) {
                for (i, byte) in head.iter_mut().enumerate() {
                    if !self.byte_is_written((at + i) as u64) {
                        *byte = POISON;
                    }
                }
            }
            at += n;
            rest = tail;
        }
    }

    /// Which of the bytes have been written.
    pub(crate) fn written_bytes(&self, offset: u64, bytes: u64) -> Vec<bool> {
        let whole = self.is_all_written();
        (offset..offset + bytes).map(|at| whole || self.byte_is_written(at)).collect()
    }

    /// Sets which of the bytes count as written.
    pub(crate) fn set_written(&self, offset: u64, written: &[bool]) {
        if written.iter().all(|w| *w) {
            return self.mark_range(offset, written.len() as u64);
        }
        self.split_all_written();
        for (at, w) in (offset..).zip(written) {
            let bit = 1 << (at & 31);
            let cell = &self.written[(at >> 5) as usize];
            if *w {
                cell.fetch_or(bit, Relaxed);
            } else {
                cell.fetch_and(!bit, Relaxed);
            }
        }
    }

    fn split_all_written(&self) {
        self.all_written.store(false, Relaxed);
    }

    fn shadow_length(&self, grain: u32) -> u64 {
        (self.bytes >> grain) + 16
    }

    /// The last readers, per grain.
    pub(crate) fn reads(&self, grain: u32) -> &[AtomicU64] {
        self.shadows[grain as usize].reads.get_or_init(|| zeroed(self.shadow_length(grain)))
    }

    /// The last writers, per grain.
    pub(crate) fn writes(&self, grain: u32) -> &[AtomicU64] {
        self.shadows[grain as usize].writes.get_or_init(|| zeroed(self.shadow_length(grain)))
    }

    /// The last readers, if anything was read.
    pub(crate) fn reads_if_any(&self, grain: u32) -> Option<&[AtomicU64]> {
        self.shadows[grain as usize].reads.get().map(|s| &**s)
    }

    /// The last writers, if anything was written.
    pub(crate) fn writes_if_any(&self, grain: u32) -> Option<&[AtomicU64]> {
        self.shadows[grain as usize].writes.get().map(|s| &**s)
    }

    /// Clears readers and writers, for when block numbers start over.
    pub(crate) fn clear_shadows(&self) {
        for shadow in &self.shadows {
            for list in [&shadow.reads, &shadow.writes] {
                for cell in list.get().into_iter().flatten() {
                    cell.store(0, Relaxed);
                }
            }
        }
    }
}
