//! Copies to memory that is in use, in the order of the calls.

use std::ops::Range;

use crate::device::expect_length;
use crate::element::Scalar;
use crate::error::Result;
use crate::webgpu::launch::{THREADS, groups_of};
use crate::webgpu::memory::Region;
use crate::webgpu::params::{Params, params};
use crate::webgpu::recording::Command;
use crate::webgpu::shader::{Kernel, Slot};
use crate::webgpu::state::Wgpu;
use crate::webgpu::suspects::Access;

/// The bytes that are copied at a time through scratch memory.
const PART: usize = 64 << 20;

params! {
    /// Twin of the struct in shaders/shared/copy_bytes.wgsl.
    struct CopyBytesParams {
        source_start: u32,
        copied_start: u32,
        bytes: u32,
        words: u32,
    }
}

fn kernel() -> Kernel {
    Kernel {
        name: "shared/copy_bytes",
        params: &CopyBytesParams::BLOCK,
        threads: THREADS,
        sources: &[include_str!("../../shaders/shared/copy_bytes.wgsl")],
        constants: vec![],
        slots: vec![Slot::plain("source", "u32"), Slot::write("copied", "u32")],
    }
}

pub(super) fn variants() -> Vec<Kernel> {
    vec![kernel()]
}

impl Wgpu {
    /// Copies data of the host to memory that recorded calls may use.
    pub(super) fn upload_to<T: Scalar>(
        &self,
        operation: &'static str,
        to: &Region<'_, T>,
        data: &[T],
    ) -> Result<()> {
        expect_length(operation, "data", data.len(), to.length)?;
        self.check_device(operation, "out", to)?;
        if data.is_empty() {
            return Ok(());
        }
        // The queue writes before it runs what is recorded, so it writes to memory that nothing recorded uses.
        let staging = self.upload_slice(operation, data)?;
        self.call(|gpu| gpu.copy_elements(operation, &staging.region(), to))?;
        self.hold(to.bytes());
        Ok(())
    }

    /// Copies elements that do not overlap, as many as both regions have.
    pub(super) fn copy_elements<T: Scalar>(
        &self,
        operation: &'static str,
        from: &Region<'_, T>,
        to: &Region<'_, T>,
    ) -> Result<()> {
        self.check_device(operation, "from", from)?;
        self.check_device(operation, "to", to)?;
        let is_whole = [from.offset, to.offset, to.bytes()].iter().all(|bytes| bytes.is_multiple_of(4));
        let is_shared = from.buffer == to.buffer;
        if is_whole && !is_shared {
            let accesses = (from.watched(), to.watched());
            self.copy_words(
                operation,
                (from.buffer, from.offset),
                (to.buffer, to.offset),
                to.bytes(),
                accesses,
            );
            return Ok(());
        }
        let most = (PART / size_of::<T>()).min(self.rows_per_binding::<T>(1));
        for first in (0..to.length).step_by(most) {
            let count = most.min(to.length - first);
            let (from, to) = (from.rows(first, count, 1), to.rows(first, count, 1));
            self.part(|| self.copy_part(operation, &from, &to, (is_whole, is_shared)))?;
        }
        Ok(())
    }

    /// Copies elements of which some share words with others, or that are in the buffer they go to. A device copies whole words, and
    /// only from one buffer to another.
    fn copy_part<T: Scalar>(
        &self,
        operation: &'static str,
        from: &Region<'_, T>,
        to: &Region<'_, T>,
        (is_whole, is_shared): (bool, bool),
    ) -> Result<()> {
        let (source, first) = if is_shared {
            let start = from.offset / 4 * 4;
            let bytes = (from.offset + from.bytes()).next_multiple_of(4) - start;
            let scratch = self.scratch(operation, bytes / 4)?;
            let accesses = (from.watched(), None);
            self.copy_words(operation, (from.buffer, start), (&scratch.buffer, 0), bytes, accesses);
            (scratch, from.offset - start)
        } else {
            let bound = self.bind(operation, "from", from)?;
            let first = u64::from(bound.base) * size_of::<T>() as u64;
            (bound, first)
        };
        if is_whole {
            self.copy_words(
                operation,
                (&source.buffer, source.offset + first),
                (to.buffer, to.offset),
                to.bytes(),
                (source.bytes.first().cloned(), to.watched()),
            );
            return Ok(());
        }
        let target = self.bind(operation, "to", to)?;
        let to_byte = target.base * size_of::<T>() as u32;
        let words = (to_byte + to.bytes() as u32).div_ceil(4) - to_byte / 4;
        let params = CopyBytesParams {
            source_start: first as u32,
            copied_start: to_byte,
            bytes: to.bytes() as u32,
            words,
        };
        self.dispatch(operation, &kernel(), &params, &[&source, &target], groups_of(words as usize))
    }

    /// Copies whole words from one buffer to another, of which the bytes `(read, written)` outlive the call.
    fn copy_words(
        &self,
        operation: &'static str,
        (from, from_offset): (&wgpu::Buffer, u64),
        (to, to_offset): (&wgpu::Buffer, u64),
        bytes: u64,
        (read, written): (Option<Range<u64>>, Option<Range<u64>>),
    ) {
        if bytes > 0 {
            let accesses = Access::read(from, read).chain(Access::write(to, written)).collect();
            let (from, to) = (from.clone(), to.clone());
            self.record(operation, Command::Copy { from, from_offset, to, to_offset, bytes, accesses });
        }
    }
}
