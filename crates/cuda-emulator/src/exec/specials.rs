//! "Special Registers" that are constant during a warp's execution.

use super::code::Special;
use super::machine::Machine;
use super::registers::{LANES, Row};

/// The value of a special register that is the same in all lanes.
pub(super) fn uniform_special(m: &Machine<'_>, special: Special) -> u64 {
    let c = &m.launch.config;
    let index = m.launch.block_index(m.block);
    u64::from(match special {
        Special::ThreadExtent(i) => c.block[i as usize],
        Special::Block(i) => index[i as usize],
        Special::BlockExtent(i) => c.grid[i as usize],
        Special::Warp => m.warp as u32,
        Special::WarpExtent => m.launch.threads().div_ceil(32),
        Special::Multiprocessor => (m.block % u64::from(m.launch.options.multiprocessors.max(1))) as u32,
        Special::MultiprocessorExtent => m.launch.options.multiprocessors,
        Special::DynamicSharedBytes => c.dynamic_shared_bytes,
        Special::TotalSharedBytes => m.launch.code.dynamic_shared + c.dynamic_shared_bytes,
        Special::Grid => m.launch.first_run,
        _ => 0,
    })
}

/// The values of a special register in all lanes.
pub(super) fn special_row(m: &Machine<'_>, special: Special) -> Row<u32> {
    std::array::from_fn(|lane| {
        let thread = (m.warp * LANES + lane) as u32;
        let bit = 1u32 << lane;
        match special {
            Special::Thread(i) => m.launch.thread_index(thread)[i as usize],
            Special::Lane => lane as u32,
            Special::MaskEqual => bit,
            Special::MaskLess => bit - 1,
            Special::MaskLessEqual => bit | (bit - 1),
            Special::MaskGreater => !(bit | (bit - 1)),
            Special::MaskGreaterEqual => !(bit - 1),
            uniform => uniform_special(m, uniform) as u32,
        }
    })
}
