//! Shared memory of a block: range, initialisation, races, pending copies, bank conflicts.

use super::access::{Shape, Span, Words, each_address};
use super::fault::{Fault, fault};
use super::finding::FindingKind;
use super::machine::Machine;
use super::race::Grain;
use super::registers::{Row, lanes};
use super::sectors::passes;
use std::sync::atomic::AtomicU64;

/// The shared memory of a block, and its shadow.
pub(crate) struct SharedMemory {
    bytes: u32,
    pub(crate) data: Vec<u32>,
    /// One bit per byte.
    written: Vec<u32>,
    reads: Box<[AtomicU64]>,
    writes: Box<[AtomicU64]>,
    grain: u32,
    /// The number of pending copies to each word.
    pending: Vec<u16>,
    /// The total number of pending copies.
    pub(crate) copies: u32,
}

impl SharedMemory {
    pub(crate) fn new(bytes: u32, grain: u32, checks: bool) -> Self {
        let words = bytes.div_ceil(16) as usize * 4 + 4;
        let shadow = if checks { words << (2 - grain) } else { 0 };
        Self {
            bytes,
            data: vec![0; words],
            written: vec![0; words.div_ceil(8)],
            reads: bytemuck::allocation::zeroed_slice_box(shadow),
            writes: bytemuck::allocation::zeroed_slice_box(shadow),
            grain,
            pending: vec![0; words],
            copies: 0,
        }
    }

    /// Resets the memory for the next block. The race shadow need not be cleared: its entries contain their block.
    pub(crate) fn clear(&mut self) {
        self.written.fill(0);
        if self.copies != 0 {
            self.pending.fill(0);
            self.copies = 0;
        }
    }

    fn is_written(&self, offset: u64, size: u32) -> bool {
        let want = (1u32 << size) - 1;
        self.written[(offset >> 5) as usize] >> (offset & 31) & want == want
    }

    fn mark_written(&mut self, offset: u64, size: u32) {
        self.written[(offset >> 5) as usize] |= ((1u32 << size) - 1) << (offset & 31);
    }

    fn is_pending(&self, offset: u64, size: u32) -> bool {
        let word = (offset >> 2) as usize;
        self.copies != 0 && self.pending[word..word + size.div_ceil(4) as usize].iter().any(|n| *n != 0)
    }

    /// Records that a copy to these words was issued or has completed.
    pub(crate) fn set_pending(&mut self, offset: u64, size: u32, issued: bool) {
        let word = (offset >> 2) as usize;
        for n in &mut self.pending[word..word + size.div_ceil(4) as usize] {
            *n = if issued { n.saturating_add(1) } else { n.saturating_sub(1) };
        }
        self.copies = if issued { self.copies + 1 } else { self.copies - 1 };
    }
}

pub(crate) fn check_range(
    m: &Machine<'_>,
    addresses: &Row<u64>,
    mask: u32,
    size: u32,
) -> Result<Span, Fault> {
    let span = Span::of(addresses, mask, size);
    span.check_alignment(addresses, mask, size)?;
    let bytes = u64::from(m.shared.bytes);
    // Addresses are compared as signed numbers, so a huge one counts as negative. It is out of range as well.
    if span.most.saturating_add(u64::from(size)) <= bytes && span.least <= span.most {
        return Ok(span);
    }
    let beyond = |l: &usize| addresses[*l].saturating_add(u64::from(size)) > bytes;
    let lane = lanes(mask).find(beyond).unwrap_or(0);
    let message = format!("{size} bytes past the end of the block's {bytes} bytes of shared memory");
    fault(FindingKind::SharedOutOfRange, lane, addresses[lane], message)
}

/// Checks a read for initialisation, races and pending copies.
pub(crate) fn check_read(
    m: &Machine<'_>,
    addresses: &Row<u64>,
    mask: u32,
    size: u32,
    span: Span,
    strong: bool,
) -> Result<(), Fault> {
    if !m.checks {
        return Ok(());
    }
    let s = &m.shared;
    let contiguous = span.contiguous && addresses[0] & 31 == 0;
    let first = (addresses[0] >> 5) as usize;
    if s.copies != 0
        || !(contiguous && s.written[first..first + size as usize].iter().all(|w| *w == u32::MAX))
    {
        for lane in lanes(mask) {
            let at = addresses[lane];
            if s.is_pending(at, size) {
                return fault(
                    FindingKind::UnfinishedCopy,
                    lane,
                    at,
                    "a cp.async to these bytes is still pending",
                );
            }
            if !s.is_written(at, size) {
                return fault(
                    FindingKind::Uninitialised,
                    lane,
                    at,
                    format!("{size} bytes that were never written"),
                );
            }
        }
    }
    if m.races {
        let observer = m.shared_observer(strong);
        let grains = (size >> s.grain) as usize;
        let quick = if span.contiguous {
            let row = (addresses[0] >> s.grain) as usize..(addresses[0] >> s.grain) as usize + 32 * grains;
            observer.read_row(Some(&s.writes[row.clone()]), &s.reads[row], grains.trailing_zeros())
        } else {
            each_address(addresses, mask, |address, here| {
                let at = (address >> s.grain) as usize;
                (at..at + grains).all(|i| observer.read_by_many(here, Some(&s.writes[i]), &s.reads[i]))
            })
        };
        if quick {
            return Ok(());
        }
        for lane in lanes(mask) {
            let at = (addresses[lane] >> s.grain) as usize;
            for i in at..at + grains {
                if let Err(other) = observer.read(lane, Some(&s.writes[i]), &s.reads[i]) {
                    return m.race(FindingKind::SharedRace, lane, addresses[lane], false, other);
                }
            }
        }
    }
    Ok(())
}

/// Checks a write for races and pending copies. `same` returns whether a lane leaves a grain of its bytes unchanged.
pub(crate) fn check_write(
    m: &mut Machine<'_>,
    addresses: &Row<u64>,
    mask: u32,
    size: u32,
    span: Span,
    strong: bool,
    same: impl Fn(&SharedMemory, Grain) -> bool,
) -> Result<(), Fault> {
    if m.checks
        && m.shared.copies != 0
        && let Some(lane) = lanes(mask).find(|l| m.shared.is_pending(addresses[*l], size))
    {
        let message = "a cp.async to these bytes is still pending";
        return fault(FindingKind::UnfinishedCopy, lane, addresses[lane], message);
    }
    if m.races {
        let observer = m.shared_observer(strong);
        let s = &m.shared;
        let grains = (size >> s.grain) as usize;
        let quick = span.contiguous && {
            let row = (addresses[0] >> s.grain) as usize..(addresses[0] >> s.grain) as usize + 32 * grains;
            observer.write_row(&s.writes[row.clone()], Some(&s.reads[row]), grains.trailing_zeros())
        };
        for lane in lanes(if quick { 0 } else { mask }) {
            let at = (addresses[lane] >> s.grain) as usize;
            for i in 0..grains {
                let (writes, reads) = (&s.writes[at + i], &s.reads[at + i]);
                let unchanged = || same(s, Grain::new(lane, i, s.grain));
                if let Err(other) = observer.write(lane, writes, Some(reads), unchanged) {
                    return m.race(FindingKind::SharedRace, lane, addresses[lane], true, other);
                }
            }
        }
    }
    if span.contiguous && addresses[0] & 31 == 0 {
        let first = (addresses[0] >> 5) as usize;
        m.shared.written[first..first + size as usize].fill(u32::MAX);
    } else {
        lanes(mask).for_each(|l| m.shared.mark_written(addresses[l], size));
    }
    Ok(())
}

fn count(m: &mut Machine<'_>, addresses: &Row<u64>, mask: u32, size: u32, span: Span) {
    let (all, conflicts) =
        if span.contiguous && size >= 4 { (u64::from(size / 4), 0) } else { passes(addresses, mask, size) };
    m.counts.shared_passes += all;
    m.counts.shared_conflicts += conflicts;
    m.counts.shared_bytes += u64::from(size * mask.count_ones());
}

pub(crate) fn load(
    m: &mut Machine<'_>,
    shape: Shape,
    addresses: &Row<u64>,
    mask: u32,
    out: &mut Words,
) -> Result<(), Fault> {
    let size = shape.size;
    let span = check_range(m, addresses, mask, size)?;
    check_read(m, addresses, mask, size, span, shape.strong)?;
    count(m, addresses, mask, size, span);
    let data = &m.shared.data;
    if size == 4 && span.contiguous {
        let at = (addresses[0] >> 2) as usize;
        out[0].copy_from_slice(&data[at..at + 32]);
    } else if size >= 4 {
        match size {
            4 => gather::<1>(data, addresses, mask, out),
            8 => gather::<2>(data, addresses, mask, out),
            _ => gather::<4>(data, addresses, mask, out),
        }
    } else {
        let keep = (1u32 << (8 * size)) - 1;
        for lane in lanes(mask) {
            let at = addresses[lane];
            out[0][lane] = data[(at >> 2) as usize] >> (8 * (at & 3)) & keep;
        }
    }
    Ok(())
}

/// Copies `N` words of each lane.
fn gather<const N: usize>(data: &[u32], addresses: &Row<u64>, mask: u32, out: &mut Words) {
    for lane in lanes(mask) {
        let at = (addresses[lane] >> 2) as usize;
        let words = &data[at..at + N];
        for i in 0..N {
            out[i][lane] = words[i];
        }
    }
}

pub(crate) fn store(
    m: &mut Machine<'_>,
    shape: Shape,
    addresses: &Row<u64>,
    mask: u32,
    data: &Words,
) -> Result<(), Fault> {
    let size = shape.size;
    let span = check_range(m, addresses, mask, size)?;
    check_write(m, addresses, mask, size, span, shape.strong, |s, grain| {
        grain.is_unchanged(addresses, mask, data, |word| s.data[word as usize])
    })?;
    count(m, addresses, mask, size, span);
    if size == 4 && span.contiguous {
        let at = (addresses[0] >> 2) as usize;
        m.shared.data[at..at + 32].copy_from_slice(&data[0]);
    } else {
        write(&mut m.shared, addresses, mask, size, data);
    }
    Ok(())
}

/// Writes without checks and counts.
fn write(s: &mut SharedMemory, addresses: &Row<u64>, mask: u32, size: u32, data: &Words) {
    if size >= 4 {
        for lane in lanes(mask) {
            let at = (addresses[lane] >> 2) as usize;
            for (row, word) in data.iter().zip(&mut s.data[at..at + (size / 4) as usize]) {
                *word = row[lane];
            }
        }
    } else {
        let keep = (1u32 << (8 * size)) - 1;
        for lane in lanes(mask) {
            let at = addresses[lane];
            let shift = 8 * (at & 3);
            let word = &mut s.data[(at >> 2) as usize];
            *word = *word & !(keep << shift) | (data[0][lane] & keep) << shift;
        }
    }
}

/// Checks an atomic and calls `each` with each lane's offset, in lane order.
pub(crate) fn atomic(
    m: &mut Machine<'_>,
    size: u32,
    addresses: &Row<u64>,
    mask: u32,
    mut each: impl FnMut(&mut [u32], u64, usize),
) -> Result<(), Fault> {
    let span = check_range(m, addresses, mask, size)?;
    m.acquire();
    if m.checks {
        for lane in lanes(mask) {
            if !m.shared.is_written(addresses[lane], size) {
                let message = format!("atomic on {size} bytes that were never written");
                return fault(FindingKind::Uninitialised, lane, addresses[lane], message);
            }
        }
    }
    check_write(m, addresses, mask, size, span, true, |_, _| false)?;
    m.counts.shared_atomics += u64::from(mask.count_ones());
    count(m, addresses, mask, size, span);
    for lane in lanes(mask) {
        each(&mut m.shared.data, addresses[lane], lane);
    }
    Ok(())
}
