//! Device memory: bounds, initialisation, races, sectors.

use super::access::{Shape, Span, Words, each_address};
use super::fault::{Fault, fault};
use super::finding::FindingKind;
use super::machine::Machine;
use super::race::Grain;
use super::registers::{FULL, Row, lanes};
use super::sectors::sectors;
use crate::memory::{Allocation, Near};
use std::sync::atomic::Ordering::Relaxed;

/// Runs `each` for every allocation that the lanes access, with the lanes concerned. There is nearly always only one.
fn each_allocation<'l>(
    m: &mut Machine<'l>,
    addresses: &Row<u64>,
    mask: u32,
    size: u32,
    span: Span,
    mut each: impl FnMut(&mut Machine<'l>, &'l Allocation, u32) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let launch = m.launch;
    let last = span.most.saturating_add(u64::from(size));
    if let Some(a) = launch.allocations.get(m.hints[m.pc] as usize)
        && a.base <= span.least
        && span.least <= span.most
        && last <= a.end()
    {
        return each(m, a, mask);
    }
    let mut left = mask;
    while left != 0 {
        let lane = left.trailing_zeros() as usize;
        let index = launch.allocations.partition_point(|a| a.base <= addresses[lane]).wrapping_sub(1);
        let inside = |a: &Allocation, at: u64| a.base <= at && at.saturating_add(u64::from(size)) <= a.end();
        match launch.allocations.get(index) {
            Some(a) if inside(a, addresses[lane]) => {
                m.hints[m.pc] = index as u32;
                let here = lanes(left).filter(|l| inside(a, addresses[*l])).fold(0, |set, l| set | 1 << l);
                each(m, a, here)?;
                left &= !here;
            }
            _ => return outside(m, lane, addresses[lane], size),
        }
    }
    Ok(())
}

fn outside(m: &Machine<'_>, lane: usize, address: u64, size: u32) -> Result<(), Fault> {
    let kind = match m.launch.memory.near(address) {
        Near::Freed(_) | Near::Absent(_) => FindingKind::UseAfterFree,
        _ => FindingKind::OutOfBounds,
    };
    fault(kind, lane, address, format!("{size} bytes {}", m.launch.memory.describe(address)))
}

fn count(m: &mut Machine<'_>, addresses: &Row<u64>, mask: u32, size: u32, contiguous: bool) {
    let (requested, least) = if contiguous {
        let bytes = u64::from(size) * 32;
        let requested = ((addresses[0] + bytes - 1) >> 5) - (addresses[0] >> 5) + 1;
        (requested, bytes.div_ceil(32))
    } else {
        sectors(addresses, mask, size)
    };
    if m.timing {
        for lane in lanes(mask) {
            m.lines.access(addresses[lane]);
            m.lines.access(addresses[lane] + u64::from(size) - 1);
        }
    }
    m.counts.global_sectors += requested;
    m.counts.global_sectors_minimum += least;
}

/// Initialisation and race checks of a read, without the read itself.
fn check_read(
    m: &mut Machine<'_>,
    a: &Allocation,
    shape: Shape,
    addresses: &Row<u64>,
    mask: u32,
    contiguous: bool,
) -> Result<(), Fault> {
    let size = shape.size;
    if m.checks && !a.is_all_written() {
        let chunks = contiguous && addresses[0] & 31 == 0;
        let whole = chunks && (0..size).all(|i| a.is_written(addresses[0] - a.base + u64::from(i) * 32, 32));
        if !whole {
            for lane in lanes(mask) {
                if !a.is_written(addresses[lane] - a.base, size) {
                    return fault(
                        FindingKind::Uninitialised,
                        lane,
                        addresses[lane],
                        format!("{size} bytes that were never written"),
                    );
                }
            }
        }
    }
    if m.races && !a.read_only {
        let grain = m.launch.code.global_grain;
        let grains = size >> grain;
        let (reads, writes) = (a.reads(grain), a.writes_if_any(grain));
        let observer = m.observer(shape.strong);
        let first = |address: u64| ((address - a.base) >> grain) as usize;
        let quick = if contiguous {
            let row = first(addresses[0])..first(addresses[0]) + 32 * grains as usize;
            observer.read_row(writes.map(|w| &w[row.clone()]), &reads[row.clone()], grains.trailing_zeros())
        } else {
            each_address(addresses, mask, |address, here| {
                let mut grains = first(address)..first(address) + grains as usize;
                grains.all(|i| observer.read_by_many(here, writes.map(|w| &w[i]), &reads[i]))
            })
        };
        if quick {
            return Ok(());
        }
        for lane in lanes(mask) {
            let at = ((addresses[lane] - a.base) >> grain) as usize;
            for i in at..at + grains as usize {
                if let Err(other) = observer.read(lane, writes.map(|w| &w[i]), &reads[i]) {
                    return m.race(FindingKind::GlobalRace, lane, addresses[lane], false, other);
                }
            }
        }
    }
    Ok(())
}

pub(crate) fn load(
    m: &mut Machine<'_>,
    shape: Shape,
    addresses: &Row<u64>,
    mask: u32,
    out: &mut Words,
) -> Result<(), Fault> {
    let size = shape.size;
    let span = Span::of(addresses, mask, size);
    span.check_alignment(addresses, mask, size)?;
    let contiguous = span.contiguous;
    m.counts.global_bytes_read += u64::from(size * mask.count_ones());
    count(m, addresses, mask, size, contiguous);
    each_allocation(m, addresses, mask, size, span, |m, a, mask| {
        // Lanes outside every allocation are reported after those inside are done.
        let contiguous = contiguous && mask == FULL;
        check_read(m, a, shape, addresses, mask, contiguous)?;
        match size {
            4 if contiguous => {
                let at = ((addresses[0] - a.base) >> 2) as usize;
                for (o, cell) in out[0].iter_mut().zip(&a.data[at..at + 32]) {
                    *o = cell.load(Relaxed);
                }
            }
            4.. => {
                for lane in lanes(mask) {
                    let at = ((addresses[lane] - a.base) >> 2) as usize;
                    for (row, cell) in out.iter_mut().zip(&a.data[at..at + (size / 4) as usize]) {
                        row[lane] = cell.load(Relaxed);
                    }
                }
            }
            _ => {
                for lane in lanes(mask) {
                    let at = addresses[lane] - a.base;
                    let keep = (1u32 << (8 * size)) - 1;
                    out[0][lane] = a.word((at >> 2) as usize) >> (8 * (at & 3)) & keep;
                }
            }
        }
        Ok(())
    })
}

/// Race check and marking of a write, before it takes place. `same` returns whether a lane leaves a grain
/// of its bytes unchanged.
fn check_write(
    m: &mut Machine<'_>,
    a: &Allocation,
    shape: Shape,
    addresses: &Row<u64>,
    mask: u32,
    contiguous: bool,
    same: impl Fn(Grain) -> bool,
) -> Result<(), Fault> {
    let size = shape.size;
    if a.read_only {
        let lane = mask.trailing_zeros() as usize;
        return fault(FindingKind::ReadOnly, lane, addresses[lane], "store to constant memory");
    }
    if m.races {
        let grain = m.launch.code.global_grain;
        let grains = size >> grain;
        let (reads, writes) = (a.reads_if_any(grain), a.writes(grain));
        let observer = m.observer(shape.strong);
        let quick = contiguous && {
            let at = ((addresses[0] - a.base) >> grain) as usize;
            let row = at..at + 32 * grains as usize;
            observer.write_row(&writes[row.clone()], reads.map(|r| &r[row]), grains.trailing_zeros())
        };
        for lane in lanes(if quick { 0 } else { mask }) {
            let at = ((addresses[lane] - a.base) >> grain) as usize;
            for i in 0..grains as usize {
                let (write, read) = (&writes[at + i], reads.map(|r| &r[at + i]));
                let unchanged = || same(Grain::new(lane, i, grain));
                if let Err(other) = observer.write(lane, write, read, unchanged) {
                    return m.race(FindingKind::GlobalRace, lane, addresses[lane], true, other);
                }
            }
        }
    }
    if !a.is_all_written() {
        let first = addresses[0].wrapping_sub(a.base);
        if contiguous && first & 31 == 0 {
            (0..size).for_each(|i| a.mark_written(first + u64::from(i) * 32, 32));
        } else {
            lanes(mask).for_each(|l| a.mark_written(addresses[l] - a.base, size));
        }
    }
    Ok(())
}

pub(crate) fn store(
    m: &mut Machine<'_>,
    shape: Shape,
    addresses: &Row<u64>,
    mask: u32,
    data: &Words,
) -> Result<(), Fault> {
    let size = shape.size;
    let span = Span::of(addresses, mask, size);
    span.check_alignment(addresses, mask, size)?;
    let contiguous = span.contiguous;
    m.counts.global_bytes_written += u64::from(size * mask.count_ones());
    count(m, addresses, mask, size, contiguous);
    each_allocation(m, addresses, mask, size, span, |m, a, mask| {
        let contiguous = contiguous && mask == FULL;
        let keep = if size >= 4 { u32::MAX } else { (1u32 << (8 * size)) - 1 };
        let same = |grain: Grain| {
            grain.is_unchanged(addresses, mask, data, |word| a.word((word - a.base / 4) as usize))
        };
        check_write(m, a, shape, addresses, mask, contiguous, same)?;
        match size {
            4 if contiguous => {
                let at = ((addresses[0] - a.base) >> 2) as usize;
                for (x, cell) in data[0].iter().zip(&a.data[at..at + 32]) {
                    cell.store(*x, Relaxed);
                }
            }
            4.. => {
                for lane in lanes(mask) {
                    let at = ((addresses[lane] - a.base) >> 2) as usize;
                    for (row, cell) in data.iter().zip(&a.data[at..at + (size / 4) as usize]) {
                        cell.store(row[lane], Relaxed);
                    }
                }
            }
            _ => {
                for lane in lanes(mask) {
                    let at = addresses[lane] - a.base;
                    let shift = 8 * (at & 3);
                    a.merge((at >> 2) as usize, data[0][lane] << shift, keep << shift);
                }
            }
        }
        Ok(())
    })
}

/// Checks an atomic and calls `each` with each lane's allocation and offset, in lane order.
pub(crate) fn atomic(
    m: &mut Machine<'_>,
    size: u32,
    addresses: &Row<u64>,
    mask: u32,
    mut each: impl FnMut(&Allocation, u64, usize),
) -> Result<(), Fault> {
    let span = Span::of(addresses, mask, size);
    span.check_alignment(addresses, mask, size)?;
    m.acquire();
    m.counts.global_atomics += u64::from(mask.count_ones());
    let bytes = u64::from(size * mask.count_ones());
    m.counts.global_bytes_read += bytes;
    m.counts.global_bytes_written += bytes;
    count(m, addresses, mask, size, false);
    let shape = Shape { space: crate::ptx::Space::Global, size, strong: true };
    each_allocation(m, addresses, mask, size, span, |m, a, mask| {
        if m.checks
            && !a.is_all_written()
            && let Some(lane) = lanes(mask).find(|l| !a.is_written(addresses[*l] - a.base, size))
        {
            let message = format!("atomic on {size} bytes that were never written");
            return fault(FindingKind::Uninitialised, lane, addresses[lane], message);
        }
        check_write(m, a, shape, addresses, mask, false, |_| false)?;
        lanes(mask).for_each(|lane| each(a, addresses[lane] - a.base, lane));
        Ok(())
    })
}
