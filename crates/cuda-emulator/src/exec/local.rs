//! Local memory, private to each thread.

use super::access::{Span, Words};
use super::fault::{Fault, fault};
use super::finding::FindingKind;
use super::machine::Machine;
use super::registers::{Row, lanes};
use std::ops::Range;

/// The local memory of all threads of a block, one thread after another.
pub(crate) struct LocalMemory {
    /// Distance in bytes between threads, a multiple of 32.
    stride: usize,
    bytes: u32,
    data: Vec<u32>,
    /// One bit per byte.
    written: Vec<u32>,
}

impl LocalMemory {
    pub(crate) fn new(bytes: u32, threads: u32) -> Self {
        let stride = bytes.next_multiple_of(32) as usize;
        let all = stride * threads.next_multiple_of(32) as usize;
        Self { stride, bytes, data: vec![0; all / 4], written: vec![0; all / 32] }
    }

    pub(crate) fn clear(&mut self) {
        self.written.fill(0);
    }

    /// Bytes of a thread, and whether each has been written.
    pub(crate) fn copy(&self, thread: usize, range: Range<u32>) -> Vec<(u8, bool)> {
        range
            .map(|i| {
                let at = thread * self.stride + i as usize;
                ((self.data[at >> 2] >> (8 * (at & 3))) as u8, self.written[at >> 5] >> (at & 31) & 1 == 1)
            })
            .collect()
    }

    /// Restores bytes returned by [`Self::copy`].
    pub(crate) fn paste(&mut self, thread: usize, offset: u32, bytes: &[(u8, bool)]) {
        for (i, (byte, written)) in bytes.iter().enumerate() {
            let at = thread * self.stride + offset as usize + i;
            let shift = 8 * (at & 3);
            self.data[at >> 2] = self.data[at >> 2] & !(0xff << shift) | u32::from(*byte) << shift;
            let bit = 1 << (at & 31);
            self.written[at >> 5] = self.written[at >> 5] & !bit | if *written { bit } else { 0 };
        }
    }
}

fn check_range(m: &Machine<'_>, addresses: &Row<u64>, mask: u32, size: u32) -> Result<(), Fault> {
    Span::of(addresses, mask, size).check_alignment(addresses, mask, size)?;
    let bytes = u64::from(m.local.bytes);
    match lanes(mask).find(|l| addresses[*l].saturating_add(u64::from(size)) > bytes) {
        None => Ok(()),
        Some(lane) => {
            let message = format!("{size} bytes past the end of the thread's {bytes} bytes of local memory");
            fault(FindingKind::LocalOutOfRange, lane, addresses[lane], message)
        }
    }
}

pub(crate) fn load(
    m: &mut Machine<'_>,
    size: u32,
    addresses: &Row<u64>,
    mask: u32,
    out: &mut Words,
) -> Result<(), Fault> {
    check_range(m, addresses, mask, size)?;
    let want = (1u32 << size) - 1;
    for lane in lanes(mask) {
        let at = (m.warp * 32 + lane) * m.local.stride + addresses[lane] as usize;
        if m.checks && m.local.written[at >> 5] >> (at & 31) & want != want {
            let message = format!("{size} bytes of local memory that were never written");
            return fault(FindingKind::Uninitialised, lane, addresses[lane], message);
        }
        if size >= 4 {
            for (row, word) in out.iter_mut().zip(&m.local.data[at / 4..at / 4 + (size / 4) as usize]) {
                row[lane] = *word;
            }
        } else {
            out[0][lane] = m.local.data[at >> 2] >> (8 * (at & 3)) & ((1 << (8 * size)) - 1);
        }
    }
    Ok(())
}

pub(crate) fn store(
    m: &mut Machine<'_>,
    size: u32,
    addresses: &Row<u64>,
    mask: u32,
    data: &Words,
) -> Result<(), Fault> {
    check_range(m, addresses, mask, size)?;
    for lane in lanes(mask) {
        let at = (m.warp * 32 + lane) * m.local.stride + addresses[lane] as usize;
        m.local.written[at >> 5] |= ((1u32 << size) - 1) << (at & 31);
        if size >= 4 {
            for (row, word) in data.iter().zip(&mut m.local.data[at / 4..at / 4 + (size / 4) as usize]) {
                *word = row[lane];
            }
        } else {
            let shift = 8 * (at & 3);
            let keep = ((1u32 << (8 * size)) - 1) << shift;
            let word = &mut m.local.data[at >> 2];
            *word = *word & !keep | data[0][lane] << shift & keep;
        }
    }
    Ok(())
}
