//! Memory of the device, and its bindings.

use std::sync::{Arc, Mutex};

use crate::device::of_another_device;
use crate::element::Scalar;
use crate::error::{Error, Result};
use crate::gpu::lock;
use crate::webgpu::binding::Binding;
use crate::webgpu::memory::{Owner, Region, WgpuBuffer};
use crate::webgpu::placement::Placement;
use crate::webgpu::recording::Command;
use crate::webgpu::state::Wgpu;
use crate::webgpu::suspects::Access;
use crate::webgpu::tally::Asked;

impl Wgpu {
    /// A buffer of `size` bytes, all zero.
    pub(crate) fn allocate(&self, operation: &'static str, size: u64) -> Result<wgpu::Buffer> {
        let limit = self.limits().max_buffer_size;
        if size > limit {
            return Err(Error::Limit { operation, argument: "buffer", needed: size, limit });
        }
        self.shared.scopes.tally.add(Asked::Buffer);
        self.scoped(operation, size, || {
            self.wgpu_device().create_buffer(&wgpu::BufferDescriptor {
                label: Some(operation),
                size,
                usage: wgpu::BufferUsages::STORAGE
                    | wgpu::BufferUsages::COPY_SRC
                    | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        })
    }

    /// A buffer of `length` elements, all zero.
    pub(crate) fn zeroed<T: Scalar>(&self, operation: &'static str, length: usize) -> Result<WgpuBuffer<T>> {
        // A multiple of 16 bytes, because the kernels read vec4s.
        let size = (length as u64).saturating_mul(size_of::<T>() as u64);
        let size = size.checked_next_multiple_of(16).unwrap_or(u64::MAX).max(16);
        Ok(WgpuBuffer::allocated(self.allocate(operation, size)?, length, &self.shared.owner))
    }

    /// A buffer that holds `data`.
    pub(crate) fn upload_slice<T: Scalar>(
        &self,
        operation: &'static str,
        data: &[T],
    ) -> Result<WgpuBuffer<T>> {
        let buffer = self.zeroed(operation, data.len())?;
        let bytes: &[u8] = bytemuck::cast_slice(data);
        let whole = bytes.len() / 4 * 4;
        self.shared.scopes.tally.add(Asked::Upload);
        self.scoped(operation, bytes.len() as u64, || {
            let queue = &self.shared.queue;
            queue.write_buffer(buffer.buffer(), 0, &bytes[..whole]);
            if whole < bytes.len() {
                // Writes are multiples of 4 bytes.
                let mut last = [0; 4];
                last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
                queue.write_buffer(buffer.buffer(), whole as u64, &last);
            }
        })?;
        // The device keeps a copy of the data until the next submission has run.
        self.hold(bytes.len() as u64);
        Ok(buffer)
    }

    /// For tests: a handle whose buffers are parts of one if their bytes are such ones, from `start` bytes on, each an element after the one
    /// before.
    #[doc(hidden)]
    pub fn within(&self, buffer: wgpu::Buffer, start: u64, is_within: fn(&[u8]) -> bool) -> Self {
        self.with_placement(Placement::Within(buffer, Mutex::new(start), is_within))
    }

    /// For tests: a handle of whose buffers with any elements the `nth`, counted from 1, is memory of another device.
    #[doc(hidden)]
    pub fn elsewhere(&self, other: &Self, nth: i64) -> Self {
        let (device, owner) = (other.wgpu_device().clone(), other.shared.owner.clone());
        self.with_placement(Placement::Elsewhere(device, owner, Mutex::new(nth)))
    }

    /// For tests: whether a buffer of this handle is on another device by now.
    #[doc(hidden)]
    pub fn is_elsewhere(&self) -> bool {
        matches!(self.placement.as_deref(), Some(Placement::Elsewhere(_, _, left)) if *lock(left) <= 0)
    }

    fn with_placement(&self, placement: Placement) -> Self {
        Self { placement: Some(Arc::new(placement)), ..self.forked() }
    }

    /// A buffer that holds `data`, where tests put it; `None` where it is one of its own.
    pub(super) fn placed<T: Scalar>(&self, data: &[T]) -> Result<Option<WgpuBuffer<T>>> {
        let size = size_of::<T>() as u64;
        match self.placement.as_deref() {
            Some(Placement::Within(buffer, used, is_within)) if is_within(bytemuck::cast_slice(data)) => {
                let mut used = lock(used);
                let offset = used.next_multiple_of(size);
                *used = offset + (data.len() as u64 + 1) * size;
                let part = WgpuBuffer::from_buffer(buffer.clone(), offset, data.len())?;
                self.upload_to("upload", &part.region(), data)?;
                Ok(Some(part))
            }
            Some(Placement::Elsewhere(device, owner, left)) if !data.is_empty() => {
                let mut left = lock(left);
                *left -= 1;
                if *left != 0 {
                    return Ok(None);
                }
                let buffer = device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("another device's"),
                    size: (data.len() as u64 * size).next_multiple_of(16),
                    usage: wgpu::BufferUsages::STORAGE
                        | wgpu::BufferUsages::COPY_SRC
                        | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                });
                Ok(Some(WgpuBuffer::allocated(buffer, data.len(), owner)))
            }
            _ => Ok(None),
        }
    }

    /// Uploads a list of words and binds all of it.
    pub(crate) fn list(&self, operation: &'static str, words: &[u32]) -> Result<Binding> {
        let buffer = self.upload_slice(operation, words)?;
        self.bind(operation, "plan", &buffer.region())
    }

    /// Binds a view.
    ///
    /// # Errors
    /// [`Error::Limit`] if it is larger than the device's largest binding.
    pub(crate) fn bind<T: Scalar>(
        &self,
        operation: &'static str,
        argument: &'static str,
        view: &Region<'_, T>,
    ) -> Result<Binding> {
        if view.length == 0 {
            return Ok(self.nothing());
        }
        self.check_device(operation, argument, view)?;
        let alignment = u64::from(self.limits().min_storage_buffer_offset_alignment);
        let offset = view.offset / alignment * alignment;
        let size = (view.offset + view.bytes() - offset).next_multiple_of(4);
        let limit = self.limits().max_storage_buffer_binding_size;
        if size > limit {
            return Err(Error::Limit { operation, argument, needed: size, limit });
        }
        let base = ((view.offset - offset) / size_of::<T>() as u64) as u32;
        let (buffer, bytes) = (view.buffer.clone(), view.watched().into_iter().collect());
        Ok(Binding { buffer, offset, size, base, is_scratch: false, bytes, keeps: false })
    }

    /// How many rows of `width` elements the device binds at a time, wherever the first one starts.
    pub(crate) fn rows_per_binding<T: Scalar>(&self, width: usize) -> usize {
        let limits = self.limits();
        let alignment = u64::from(limits.min_storage_buffer_offset_alignment);
        let bytes = limits.max_storage_buffer_binding_size - alignment;
        // Kernels index elements with 32 bits.
        (bytes / (width * size_of::<T>()) as u64).min(u64::from(u32::MAX) / width as u64) as usize
    }

    /// A binding for an input that the call does not have.
    pub(crate) fn nothing(&self) -> Binding {
        Binding::of_call(self.shared.nothing.clone(), false)
    }

    /// A binding for an output that the call does not have. Each is new: a pass may not bind the same words for writing twice.
    pub(crate) fn no_output(&self, operation: &'static str) -> Result<Binding> {
        self.scratch(operation, 4)
    }

    /// Scratch memory of `words` 4-byte words, all zero.
    pub(crate) fn scratch(&self, operation: &'static str, words: u64) -> Result<Binding> {
        let size = self.scratch_size(operation, words)?;
        let buffer = self.scratch_buffer(operation, size)?;
        Ok(Binding { size, ..Binding::of_call(buffer, true) })
    }

    /// The bytes that scratch memory of `words` words takes.
    ///
    /// # Errors
    /// [`Error::Limit`] if the device binds no such memory.
    pub(crate) fn scratch_size(&self, operation: &'static str, words: u64) -> Result<u64> {
        let size = words.saturating_mul(4).next_multiple_of(16).max(16);
        let limit = self.largest_scratch();
        if size > limit {
            return Err(Error::Limit { operation, argument: "scratch memory", needed: size, limit });
        }
        Ok(size)
    }

    /// The most bytes of scratch memory that a kernel binds.
    pub(crate) fn largest_scratch(&self) -> u64 {
        self.limits().max_storage_buffer_binding_size.min(self.limits().max_buffer_size)
    }

    /// Zeroes `words` words from a binding's first element on.
    pub(crate) fn clear(&self, operation: &'static str, binding: &Binding, words: usize) {
        // What stands for nothing cannot be written.
        if words == 0 {
            return;
        }
        let offset = binding.offset + u64::from(binding.base) * 4;
        let (buffer, bytes) = (binding.buffer.clone(), words as u64 * 4);
        let is_watched = !binding.bytes.is_empty();
        let accesses = Access::write(&buffer, is_watched.then_some(offset..offset + bytes)).collect();
        self.record(operation, Command::Clear { buffer, offset, bytes, accesses });
    }

    /// Fails for a view of another device's memory. Of the caller's own buffers, only the device can tell.
    pub(crate) fn check_device<T: Scalar>(
        &self,
        operation: &'static str,
        argument: &'static str,
        view: &Region<'_, T>,
    ) -> Result<()> {
        self.check_owner(operation, argument, view.owner)
    }

    /// Fails for what another device owns.
    pub(crate) fn check_owner(
        &self,
        operation: &'static str,
        argument: &'static str,
        owner: Option<&Owner>,
    ) -> Result<()> {
        if owner.is_none_or(|owner| *owner == self.shared.owner) {
            return Ok(());
        }
        Err(of_another_device(operation, argument))
    }
}
