//! Loads and stores of a warp, whatever the space. Data travel as rows of words: row 0 holds bytes 0 to 3 of each
//! lane's access.

use super::fault::{Fault, fault};
use super::finding::FindingKind;
use super::machine::Machine;
use super::memory_map::{LOCAL_BASE, PARAMETER_BASE, SHARED_BASE, WINDOW};
use super::registers::{FULL, LANES, Row, lanes};
use super::{global, local, shared};
use crate::ptx::Space;

/// Up to 16 bytes a lane.
pub(crate) type Words = [Row<u32>; 4];

/// What is the same for all lanes of an access.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) space: Space,
    /// Bytes a lane: 1, 2, 4, 8 or 16.
    pub(crate) size: u32,
    /// `.volatile`, `.relaxed`, `.acquire`, `.release` and atomics: they do not race with each other.
    pub(crate) strong: bool,
}

/// Finds a lane whose address is not a multiple of the size.
#[inline(always)]
pub(crate) fn check_alignment(addresses: &Row<u64>, mask: u32, size: u32) -> Result<(), Fault> {
    let mut low = 0;
    for lane in 0..LANES {
        low |= if mask >> lane & 1 == 1 { addresses[lane] } else { 0 };
    }
    if low & u64::from(size - 1) == 0 {
        return Ok(());
    }
    let lane = lanes(mask).find(|l| addresses[*l] & u64::from(size - 1) != 0).unwrap_or(0);
    fault(FindingKind::Misaligned, lane, addresses[lane], format!("not a multiple of {size} bytes"))
}

/// Whether all lanes are active and lie one after the other.
#[inline(always)]
pub(crate) fn is_contiguous(addresses: &Row<u64>, mask: u32, size: u32) -> bool {
    let mut off = 0;
    for lane in 0..LANES {
        off |= addresses[lane] ^ addresses[0].wrapping_add(lane as u64 * u64::from(size));
    }
    mask == FULL && off == 0
}

/// Reads; `out` keeps what it had in lanes outside the mask.
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
            fault(FindingKind::ReadOnly, lane, addresses[lane], "a store to read-only memory")
        }
        Space::Generic => each_window(addresses, mask, |space, addresses, mask| {
            store(m, Shape { space, ..shape }, addresses, mask, data)
        }),
    }
}

/// The space of a generic address.
pub(crate) fn window_of(address: u64) -> Space {
    match address & !(WINDOW - 1) {
        SHARED_BASE => Space::Shared,
        LOCAL_BASE => Space::Local,
        PARAMETER_BASE => Space::Param,
        _ => Space::Global,
    }
}

/// Splits generic accesses by window.
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
    check_alignment(addresses, mask, size)?;
    for lane in lanes(mask) {
        let Some(bytes) = usize::try_from(addresses[lane])
            .ok()
            .and_then(|at| m.launch.parameters.get(at..at.checked_add(size as usize)?))
        else {
            return fault(
                FindingKind::LocalOutOfRange,
                lane,
                addresses[lane],
                "beyond the kernel's parameters",
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
