//! Loads and stores of a warp in any state space. Data is passed as rows of words: row 0 holds bytes 0 to 3 of each
//! lane's access.

use super::fault::{Fault, fault};
use super::finding::FindingKind;
use super::lanes::vectorised;
use super::machine::Machine;
use super::memory_map::{LOCAL_BASE, PARAMETER_BASE, SHARED_BASE, WINDOW};
use super::registers::{FULL, LANES, Row, lanes};
use super::{global, local, shared};
use crate::ptx::Space;

/// Up to 16 bytes per lane.
pub(crate) type Words = [Row<u32>; 4];

/// The properties of an access that all lanes share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) space: Space,
    /// Bytes per lane: 1, 2, 4, 8 or 16.
    pub(crate) size: u32,
    /// Whether it is strong (`.volatile`, `.relaxed`, `.acquire`, `.release`, atomics): strong accesses do not race with
    /// each other.
    pub(crate) strong: bool,
}

/// A summary of the active addresses of an access.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) least: u64,
    pub(crate) most: u64,
    /// Whether all lanes are active and their accesses are adjacent, in lane order.
    pub(crate) contiguous: bool,
    /// The bitwise OR of the addresses.
    bits: u64,
}

impl Span {
    #[inline(never)]
    pub(crate) fn of(addresses: &Row<u64>, mask: u32, size: u32) -> Self {
        vectorised(
            #[inline(always)]
            || {
                let size = i64::from(size);
                let first = addresses[0] as i64;
                if mask == FULL {
                    let mut off = 0;
                    for lane in 0..LANES {
                        off |= addresses[lane] as i64 ^ first.wrapping_add(lane as i64 * size);
                    }
                    if off == 0 {
                        let most = first.wrapping_add(31 * size) as u64;
                        // The lanes' offsets from each other are multiples of the size.
                        return Self { least: first as u64, most, contiguous: true, bits: first as u64 };
                    }
                }
                let start = addresses[mask.trailing_zeros() as usize & 31] as i64;
                let (mut least, mut most, mut bits) = (start, start, 0);
                for lane in 0..LANES {
                    let a = if mask >> lane & 1 == 1 { addresses[lane] as i64 } else { start };
                    least = least.min(a);
                    most = most.max(a);
                    bits |= a;
                }
                Self { least: least as u64, most: most as u64, contiguous: false, bits: bits as u64 }
            },
        )
    }

    /// Fails if a lane's address is not a multiple of the size.
    #[inline(always)]
    pub(crate) fn check_alignment(self, addresses: &Row<u64>, mask: u32, size: u32) -> Result<(), Fault> {
        if self.bits & u64::from(size - 1) == 0 { Ok(()) } else { misaligned(addresses, mask, size) }
    }
}

#[cold]
fn misaligned(addresses: &Row<u64>, mask: u32, size: u32) -> Result<(), Fault> {
    let lane = lanes(mask).find(|l| addresses[*l] & u64::from(size - 1) != 0).unwrap_or(0);
    fault(
        FindingKind::Misaligned,
        lane,
        addresses[lane],
        format!("the address is not a multiple of {size} bytes"),
    )
}

/// The lanes of `mask` with the same address as its first.
#[inline(never)]
pub(super) fn lanes_at_first(addresses: &Row<u64>, mask: u32) -> u32 {
    let first = addresses[mask.trailing_zeros() as usize & 31];
    vectorised(
        #[inline(always)]
        || {
            let mut same = 0;
            for lane in 0..LANES {
                same |= u32::from(addresses[lane] == first) << lane;
            }
            same & mask
        },
    )
}

/// Calls `each` for every address of a warp with a lane's mask of those that have it, as long as lanes share addresses and it
/// answers true. Whether all lanes have been served: where most addresses differ, lanes one by one are faster.
#[inline(always)]
pub(super) fn each_address(addresses: &Row<u64>, mask: u32, mut each: impl FnMut(u64, u32) -> bool) -> bool {
    let mut left = mask;
    while left != 0 {
        let here = lanes_at_first(addresses, left);
        if here.count_ones() < left.count_ones().min(2)
            || !each(addresses[left.trailing_zeros() as usize], here)
        {
            return false;
        }
        left &= !here;
    }
    true
}

/// Reads. Lanes of `out` outside the mask are left unchanged.
pub(crate) fn load(
    m: &mut Machine<'_>,
    shape: Shape,
    addresses: &Row<u64>,
    mask: u32,
    out: &mut Words,
) -> Result<(), Fault> {
    if shape.strong {
        m.acquire();
    }
    match shape.space {
        Space::Global | Space::Const => global::load(m, shape, addresses, mask, out),
        Space::Shared => shared::load(m, shape, addresses, mask, out),
        Space::Local => local::load(m, shape.size, addresses, mask, out),
        Space::Param => parameters(m, shape.size, addresses, mask, out),
        Space::Generic => each_window(addresses, mask, |space, addresses, mask| {
            load(m, Shape { space, ..shape }, addresses, mask, out)
        }),
    }
}

/// Writes.
pub(crate) fn store(
    m: &mut Machine<'_>,
    shape: Shape,
    addresses: &Row<u64>,
    mask: u32,
    data: &Words,
) -> Result<(), Fault> {
    match shape.space {
        Space::Global => global::store(m, shape, addresses, mask, data),
        Space::Shared => shared::store(m, shape, addresses, mask, data),
        Space::Local => local::store(m, shape.size, addresses, mask, data),
        Space::Const | Space::Param => {
            let lane = mask.trailing_zeros() as usize;
            fault(FindingKind::ReadOnly, lane, addresses[lane], "store to read-only memory")
        }
        Space::Generic => each_window(addresses, mask, |space, addresses, mask| {
            store(m, Shape { space, ..shape }, addresses, mask, data)
        }),
    }
}

/// The state space of a generic address.
pub(crate) fn window_of(address: u64) -> Space {
    match address & !(WINDOW - 1) {
        SHARED_BASE => Space::Shared,
        LOCAL_BASE => Space::Local,
        PARAMETER_BASE => Space::Param,
        _ => Space::Global,
    }
}

/// Splits a generic access by window.
pub(crate) fn each_window(
    addresses: &Row<u64>,
    mask: u32,
    mut run: impl FnMut(Space, &Row<u64>, u32) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut left = mask;
    while left != 0 {
        let space = window_of(addresses[left.trailing_zeros() as usize]);
        let here = lanes(left).filter(|l| window_of(addresses[*l]) == space).fold(0, |set, l| set | 1 << l);
        if space == Space::Global {
            run(space, addresses, here)?;
        } else {
            run(space, &addresses.map(|a| a & (WINDOW - 1)), here)?;
        }
        left &= !here;
    }
    Ok(())
}

/// Kernel parameters: the same bytes for every thread.
fn parameters(
    m: &mut Machine<'_>,
    size: u32,
    addresses: &Row<u64>,
    mask: u32,
    out: &mut Words,
) -> Result<(), Fault> {
    Span::of(addresses, mask, size).check_alignment(addresses, mask, size)?;
    for lane in lanes(mask) {
        let Some(bytes) = usize::try_from(addresses[lane])
            .ok()
            .and_then(|at| m.launch.parameters.get(at..at.checked_add(size as usize)?))
        else {
            return fault(
                FindingKind::LocalOutOfRange,
                lane,
                addresses[lane],
                "past the end of the kernel's parameters",
            );
        };
        for (i, chunk) in bytes.chunks(4).enumerate() {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            out[i][lane] = u32::from_le_bytes(word);
        }
    }
    Ok(())
}
