//! "Occupancy".

use super::abi::{CUresult, Handle, Out};
use super::entry::{Call, entry};
use super::module::{self, Function};
use crate::error::CudaError;
use crate::report::{Limits, Occupancy};

/// `CUoccupancyB2DSize`: dynamic shared memory as a function of the block size.
type SharedOfBlock = extern "C" fn(threads: i32) -> usize;

fn blocks(call: &Call, function: &Function, threads: u32, dynamic: usize) -> u32 {
    let device = call.session.device();
    let fixed = function.kernel().static_shared_bytes() as usize;
    let shared = u32::try_from(dynamic.saturating_add(fixed)).unwrap_or(u32::MAX);
    if threads > function.kernel().max_threads().min(1024) {
        return 0;
    }
    Occupancy::new(&Limits::from(&device), threads, function.registers(), shared).blocks
}

fn active_blocks(
    call: &Call,
    out: Out<i32>,
    function: Handle,
    threads: i32,
    dynamic: usize,
    flags: u32,
) -> Result<(), CudaError> {
    let function = module::function(call, function)?;
    let threads = u32::try_from(threads).unwrap_or(0);
    // CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE (1) has no effect here.
    if threads == 0 || flags & !1 != 0 {
        return Err(
            call.misuse(CudaError::InvalidValue, "the block size is not positive or the flags are invalid")
        );
    }
    out.set(blocks(call, &function, threads, dynamic) as i32)
}

fn best_block(
    call: &Call,
    grid: Out<i32>,
    block: Out<i32>,
    function: Handle,
    shared_of: Option<SharedOfBlock>,
    dynamic: usize,
    limit: i32,
) -> Result<(), CudaError> {
    let function = module::function(call, function)?;
    let most = function.kernel().max_threads().min(1024);
    let most = u32::try_from(limit).ok().filter(|limit| *limit > 0).map_or(most, |limit| limit.min(most));
    let shared = |threads: u32| shared_of.map_or(dynamic, |shared_of| shared_of(threads as i32));
    // The largest block among those with the most resident threads.
    let sizes = (1..=most).rev().filter(|threads| threads.is_multiple_of(32) || *threads == most);
    let resident = |threads: u32| threads * blocks(call, &function, threads, shared(threads));
    let (mut best, mut best_resident) = (0, 0);
    for threads in sizes {
        let resident = resident(threads);
        if resident > best_resident {
            (best, best_resident) = (threads, resident);
        }
    }
    if best == 0 {
        return Err(call.misuse(CudaError::InvalidValue, "no block size fits on a multiprocessor"));
    }
    grid.set((best_resident / best * call.session.device().multiprocessors) as i32)?;
    block.set(best as i32)
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    out: Out<i32>,
    function: Handle,
    threads: i32,
    dynamic: usize,
) -> CUresult {
    entry("cuOccupancyMaxActiveBlocksPerMultiprocessor", |call| {
        active_blocks(call, out, function, threads, dynamic, 0)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    out: Out<i32>,
    function: Handle,
    threads: i32,
    dynamic: usize,
    flags: u32,
) -> CUresult {
    entry("cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags", |call| {
        active_blocks(call, out, function, threads, dynamic, flags)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxPotentialBlockSize(
    grid: Out<i32>,
    block: Out<i32>,
    function: Handle,
    shared_of: Option<SharedOfBlock>,
    dynamic: usize,
    limit: i32,
) -> CUresult {
    entry("cuOccupancyMaxPotentialBlockSize", |call| {
        best_block(call, grid, block, function, shared_of, dynamic, limit)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxPotentialBlockSizeWithFlags(
    grid: Out<i32>,
    block: Out<i32>,
    function: Handle,
    shared_of: Option<SharedOfBlock>,
    dynamic: usize,
    limit: i32,
    flags: u32,
) -> CUresult {
    entry("cuOccupancyMaxPotentialBlockSizeWithFlags", |call| {
        if flags & !1 != 0 {
            return Err(call.misuse(CudaError::InvalidValue, format!("invalid occupancy flags {flags:#x}")));
        }
        best_block(call, grid, block, function, shared_of, dynamic, limit)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyAvailableDynamicSMemPerBlock(
    out: Out<usize>,
    function: Handle,
    wanted: i32,
    threads: i32,
) -> CUresult {
    entry("cuOccupancyAvailableDynamicSMemPerBlock", |call| {
        let function = module::function(call, function)?;
        let (wanted, threads) = (u32::try_from(wanted).unwrap_or(0), u32::try_from(threads).unwrap_or(0));
        if wanted == 0 || threads == 0 || blocks(call, &function, threads, 0) < wanted {
            return Err(
                call.misuse(CudaError::InvalidValue, "that many blocks do not fit on a multiprocessor")
            );
        }
        let limits = Limits::from(&call.session.device());
        let a_block = limits.shared / wanted / limits.shared_unit * limits.shared_unit;
        let free = a_block.saturating_sub(limits.shared_reserved).min(limits.shared_per_block);
        out.set(free.saturating_sub(function.kernel().static_shared_bytes()) as usize)
    })
}
