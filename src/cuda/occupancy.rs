//! How many blocks of a kernel a device runs at a time.

use cudarc::driver::CudaContext;
use cudarc::driver::sys::CUdevice_attribute as Attribute;

use crate::cuda::driver::driver_error;
use crate::cuda::kernel::Kernel;
use crate::error::Result;

const WARP: usize = 32;
/// Partitions of a multiprocessor, each with its own registers.
const PARTITIONS: usize = 4;
/// Registers are given to warps, and shared memory to blocks, in units of so many registers and bytes.
const REGISTER_UNIT: usize = 256;
const SHARED_UNIT: usize = 128;

/// Warps that keep the four schedulers of a multiprocessor busy: each of a kernel that computes issues an instruction every 2.5 clocks.
const BUSY_WARPS: usize = 12;

/// The multiprocessors of a device (CUDA C++ Programming Guide, "Hardware Multithreading" and "Compute Capabilities").
#[derive(Debug, Clone, Copy)]
pub(super) struct Multiprocessors {
    pub(super) count: usize,
    /// Of each: the most threads and blocks, registers, and bytes of shared memory.
    threads: usize,
    blocks: usize,
    registers: usize,
    shared: usize,
    /// Bytes of shared memory that the system takes from each block.
    reserved: usize,
}

impl Multiprocessors {
    pub(super) fn of(operation: &'static str, context: &CudaContext) -> Result<Self> {
        let attribute = |which| {
            let value = context.attribute(which).map_err(|error| driver_error(operation, error))?;
            Ok(usize::try_from(value).unwrap_or(0))
        };
        Ok(Self {
            count: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.max(1),
            threads: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR)?,
            blocks: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR)?,
            registers: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR)?,
            shared: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?,
            reserved: attribute(Attribute::CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK)?,
        })
    }

    /// The same as [`resident`](Self::resident), but no more than keep the schedulers busy: further blocks only slow those down.
    pub(super) fn busy(&self, kernel: &Kernel, threads: usize, shared: usize) -> usize {
        let most = (BUSY_WARPS / threads.div_ceil(WARP).max(1)).max(1);
        self.resident(kernel, threads, shared).min(most * self.count)
    }

    /// The blocks of a kernel that all multiprocessors run at a time, of `threads` threads and `shared` bytes of dynamic shared
    /// memory; at least one for each. Registers are those of compute capability 8.0; static shared memory, of which
    /// kernels that are cut have little, is left out.
    pub(super) fn resident(&self, kernel: &Kernel, threads: usize, shared: usize) -> usize {
        let warps = threads.div_ceil(WARP).max(1);
        let a_warp = (kernel.registers as usize * WARP).next_multiple_of(REGISTER_UNIT).max(REGISTER_UNIT);
        let a_block = (shared + self.reserved).next_multiple_of(SHARED_UNIT).max(SHARED_UNIT);
        let limits = [
            self.threads / (warps * WARP),
            self.blocks,
            self.registers / PARTITIONS / a_warp * PARTITIONS / warps,
            self.shared / a_block,
        ];
        limits.into_iter().min().unwrap_or(1).max(1) * self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The figures of an A100, an L4 and an H100.
    const DEVICES: [Multiprocessors; 3] =
        [device(108, 2048, 32, 164), device(58, 1536, 24, 100), device(132, 2048, 32, 228)];

    const fn device(count: usize, threads: usize, blocks: usize, kilobytes: usize) -> Multiprocessors {
        Multiprocessors {
            count,
            threads,
            blocks,
            registers: 65_536,
            shared: kilobytes << 10,
            reserved: 1 << 10,
        }
    }

    #[test]
    fn the_scarcest_resource_limits_the_blocks() {
        // Registers per thread, threads, bytes of shared memory; blocks per multiprocessor.
        let table = [
            (32, 128, 0, [16, 12, 16]),
            (32, 32, 0, [32, 24, 32]),
            (128, 128, 0, [4, 4, 4]),
            (129, 128, 0, [3, 3, 3]),
            (76, 128, 30 << 10, [5, 3, 6]),
            (96, 128, 48 << 10, [3, 2, 4]),
            (120, 96, 99 << 10, [1, 1, 2]),
            (255, 1024, 200 << 10, [1, 1, 1]),
        ];
        for (registers, threads, shared, blocks) in table {
            let kernel = Kernel::new("", "", threads, registers);
            for (device, blocks) in DEVICES.iter().zip(blocks) {
                let resident = device.resident(&kernel, threads as usize, shared);
                let busy = device.busy(&kernel, threads as usize, shared);
                let warps = threads as usize / 32;
                assert!(busy <= resident && (busy == device.count || busy * warps <= 12 * device.count));
                assert_eq!(
                    resident,
                    blocks * device.count,
                    "{registers} registers, {threads} threads, {shared} bytes"
                );
            }
        }
    }
}
