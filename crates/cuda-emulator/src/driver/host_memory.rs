//! Page-locked host memory ("Memory Management": `cuMemHostAlloc`, `cuMemFreeHost`).
//!
//! It is ordinary host memory, which the emulator does not map into the device.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeMap;
use std::sync::Mutex;

use super::abi::{CUresult, Host, Out};
use super::capture;
use super::entry::{Call, entry, release};
use super::objects::lock;
use crate::control::AllocationKind;
use crate::error::CudaError;

/// The live blocks, and how many there have ever been.
#[derive(Debug)]
struct Blocks {
    made: u64,
    /// Size and number of each block, by address.
    live: BTreeMap<u64, (u64, u64)>,
}

static BLOCKS: Mutex<Blocks> = Mutex::new(Blocks { made: 0, live: BTreeMap::new() });

/// A block. The number distinguishes it from a later one at the same address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) address: u64,
    number: u64,
}

/// The live block that holds an address.
pub(super) fn block(address: u64) -> Option<Block> {
    let blocks = lock(&BLOCKS);
    let (&start, &(bytes, number)) = blocks.live.range(..=address).next_back()?;
    (address < start + bytes).then_some(Block { address: start, number })
}

/// The contents of new host memory: a recognisable pattern, because programs must not rely on any value.
const FRESH: u8 = 0xA5;

const PAGE: usize = 4096;

/// `CU_MEMHOSTALLOC_PORTABLE`, `_DEVICEMAP` and `_WRITECOMBINED`.
const KNOWN_FLAGS: u32 = 0x7;

fn allocate(call: &Call, out: Out<Host>, bytes: usize) -> Result<(), CudaError> {
    let context = call.context()?;
    capture::forbid_unsafe(call, &call.session)?;
    if out.is_null() || bytes == 0 {
        return Err(call.misuse(CudaError::InvalidValue, "the size is zero or the output pointer is null"));
    }
    let layout = Layout::from_size_align(bytes, PAGE).map_err(|_| CudaError::OutOfMemory)?;
    // SAFETY: the size is not zero.
    let memory = unsafe { alloc(layout) };
    if memory.is_null() {
        return Err(CudaError::OutOfMemory);
    }
    // SAFETY: the block was just allocated with this size.
    unsafe { memory.write_bytes(FRESH, bytes) };
    let mut blocks = lock(&BLOCKS);
    blocks.made += 1;
    let number = blocks.made;
    blocks.live.insert(memory as u64, (bytes as u64, number));
    drop(blocks);
    let mut allocations = lock(&call.session.allocations);
    allocations.add(context.handle, AllocationKind::Host, memory as u64, bytes as u64);
    out.set(Host(memory.cast()))
}

/// Frees a block; returns whether there was one.
pub(super) fn free(address: u64) -> bool {
    let Some((bytes, _)) = lock(&BLOCKS).live.remove(&address) else { return false };
    let Ok(layout) = Layout::from_size_align(bytes as usize, PAGE) else { return false };
    // SAFETY: the block was allocated above with this layout and is no longer in the table.
    unsafe { dealloc(address as *mut u8, layout) };
    true
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostAlloc(out: Out<Host>, bytes: usize, flags: u32) -> CUresult {
    entry("cuMemHostAlloc", |call| {
        if flags & !KNOWN_FLAGS != 0 {
            return Err(call.misuse(CudaError::InvalidValue, format!("unknown flags {flags:#x}")));
        }
        allocate(call, out, bytes)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocHost_v2(out: Out<Host>, bytes: usize) -> CUresult {
    entry("cuMemAllocHost_v2", |call| allocate(call, out, bytes))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(memory: Host) -> CUresult {
    release("cuMemFreeHost", |call| {
        let context = call.any_context()?;
        capture::forbid_unsafe(call, &call.session)?;
        // Waits for the copies that may use the memory.
        context.session.queue.finish(call, Some(&context));
        let address = memory.0 as u64;
        let known = lock(&call.session.allocations).live.remove(&(true, address)).is_some();
        if !known || !free(address) {
            return Err(
                call.misuse(CudaError::InvalidValue, format!("{address:#x} is not page-locked memory"))
            );
        }
        context.check()
    })
}
