//! Buffers and views in device memory.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use crate::element::Scalar;
use crate::error::{Error, Result};
use crate::memory::{Memory, View, ViewMut};

/// The memory of a `wgpu` device.
#[derive(Debug, Clone, Copy)]
pub struct WgpuMemory;

impl Memory for WgpuMemory {
    type Buffer<T: Scalar> = WgpuBuffer<T>;
    type Data<T: Scalar> = WgpuBuffer<T>;

    fn data<T: Scalar>(buffer: &WgpuBuffer<T>) -> &WgpuBuffer<T> {
        buffer
    }

    fn data_mut<T: Scalar>(buffer: &mut WgpuBuffer<T>) -> &mut WgpuBuffer<T> {
        buffer
    }

    fn length<T: Scalar>(data: &WgpuBuffer<T>) -> usize {
        data.length
    }
}

/// Marks what belongs to one device. Buffers of `wgpu` do not say whose they are, and those of another instance may have the
/// same number as one of ours.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owner(Arc<()>);

impl PartialEq for Owner {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Elements of type `T` in a `wgpu::Buffer`, or in a part of one.
///
/// 16-bit and 8-bit elements are packed in the order of their indices, little-endian: the bytes are those of a Rust slice.
#[derive(Debug)]
pub struct WgpuBuffer<T: Scalar> {
    buffer: wgpu::Buffer,
    /// In bytes.
    offset: u64,
    length: usize,
    /// Whose it is; `None` if the caller made it.
    owner: Option<Owner>,
    element: PhantomData<T>,
}

/// The elements of a view, without the lifetimes and checks of [`View`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Region<'a, T: Scalar> {
    pub(crate) buffer: &'a wgpu::Buffer,
    /// In bytes.
    pub(crate) offset: u64,
    pub(crate) length: usize,
    pub(crate) owner: Option<&'a Owner>,
    element: PhantomData<T>,
}

impl<T: Scalar> WgpuBuffer<T> {
    /// Uses `length` elements of the caller's own buffer from `offset` bytes on, without copying them.
    ///
    /// The buffer must have been created with the usages `STORAGE`, `COPY_SRC` and `COPY_DST`, by the device that the backend
    /// runs on: one of another instance of `wgpu` cannot be recognised. Several of these may share one `wgpu::Buffer` if their bytes do not overlap.
    ///
    /// # Errors
    /// [`Error::Shape`] if a usage is missing, `offset` is not a multiple of the element's size, or the elements reach past the
    /// end of the buffer, whose size is rounded down to a multiple of 4 bytes.
    pub fn from_buffer(buffer: wgpu::Buffer, offset: u64, length: usize) -> Result<Self> {
        let wrong = |argument, expected: String, got: String| {
            Err(Error::Shape { operation: "WgpuBuffer::from_buffer", argument, expected, got })
        };
        let needed =
            wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        if !buffer.usage().contains(needed) {
            return wrong("buffer", format!("the usages {needed:?}"), format!("{:?}", buffer.usage()));
        }
        let size = size_of::<T>() as u64;
        if !offset.is_multiple_of(size) {
            return wrong("offset", format!("a multiple of {size} bytes"), offset.to_string());
        }
        // Sizes of bindings are multiples of 4 bytes: the bytes after the last multiple cannot be bound.
        let whole = buffer.size() / 4 * 4;
        let end = (length as u64).checked_mul(size).and_then(|bytes| bytes.checked_add(offset));
        if end.is_none_or(|end| end > whole) {
            let got = format!("{length} elements of {size} bytes from byte {offset}");
            return wrong("length", format!("elements within the buffer's {whole} bytes"), got);
        }
        Ok(Self { buffer, offset, length, owner: None, element: PhantomData })
    }

    /// For buffers that this crate allocated, which are large enough.
    pub(crate) fn allocated(buffer: wgpu::Buffer, length: usize, owner: &Owner) -> Self {
        Self { buffer, offset: 0, length, owner: Some(owner.clone()), element: PhantomData }
    }

    /// The `wgpu` buffer, for the caller's own passes. Call [`Wgpu::flush`](crate::Wgpu::flush) before submitting
    /// work that reads what this backend wrote.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// The offset of the first element in the `wgpu` buffer, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn region(&self) -> Region<'_, T> {
        self.part(0, self.length)
    }

    fn part(&self, start: usize, length: usize) -> Region<'_, T> {
        let offset = self.offset + (start * size_of::<T>()) as u64;
        Region { buffer: &self.buffer, offset, length, owner: self.owner.as_ref(), element: PhantomData }
    }
}

impl<'a, T: Scalar> Region<'a, T> {
    pub(crate) fn of(view: View<'a, WgpuMemory, T>) -> Self {
        view.data().part(view.start(), view.len())
    }

    pub(crate) fn of_mut(view: &'a ViewMut<'_, WgpuMemory, T>) -> Self {
        view.data().part(view.start(), view.len())
    }

    /// Where its bytes are in the buffer, unless the caller made that, who may write it unseen.
    pub(crate) fn watched(&self) -> Option<Range<u64>> {
        self.owner.map(|_| self.offset..self.offset + self.bytes())
    }

    /// The size of the elements in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        (self.length * size_of::<T>()) as u64
    }

    /// Rows `first..first + count` of `width` elements. The caller ensures that they are within the region.
    pub(crate) fn rows(&self, first: usize, count: usize, width: usize) -> Self {
        let offset = self.offset + (first * width * size_of::<T>()) as u64;
        Self { offset, length: count * width, ..*self }
    }
}
