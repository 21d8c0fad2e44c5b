//! Buffers and views in device memory.

use std::marker::PhantomData;

use crate::element::Scalar;
use crate::error::{Error, Result};
use crate::memory::{Length, Memory};

/// The memory of a `wgpu` device.
#[derive(Debug, Clone, Copy)]
pub struct WgpuMemory;

impl Memory for WgpuMemory {
    type Buffer<T: Scalar> = WgpuBuffer<T>;
    type View<'a, T: Scalar> = WgpuView<'a, T>;
    type ViewMut<'a, T: Scalar> = WgpuViewMut<'a, T>;
}

/// Elements of type `T` in a `wgpu::Buffer`, or in a part of one.
///
/// 16-bit and 8-bit elements lie packed, in the order of their indices, little end first: the bytes are those of a
/// Rust slice.
#[derive(Debug)]
pub struct WgpuBuffer<T: Scalar> {
    buffer: wgpu::Buffer,
    /// In bytes.
    offset: u64,
    length: usize,
    element: PhantomData<T>,
}

/// A part of a [`WgpuBuffer`], to read.
#[derive(Debug, Clone, Copy)]
pub struct WgpuView<'a, T: Scalar> {
    pub(crate) buffer: &'a wgpu::Buffer,
    /// In bytes.
    pub(crate) offset: u64,
    pub(crate) length: usize,
    element: PhantomData<T>,
}

/// A part of a [`WgpuBuffer`], to write.
#[derive(Debug)]
pub struct WgpuViewMut<'a, T: Scalar> {
    view: WgpuView<'a, T>,
    exclusive: PhantomData<&'a mut T>,
}

impl<T: Scalar> WgpuBuffer<T> {
    /// Takes `length` elements of the caller's own buffer, from `offset` bytes on, without copying them.
    ///
    /// The buffer must have been made with the usages `STORAGE`, `COPY_SRC` and `COPY_DST`, by the device that the
    /// backend runs on. Several of these may share one `wgpu::Buffer`, where their bytes do not overlap.
    ///
    /// # Errors
    /// [`Error::Shape`] where a usage is missing, `offset` is not a multiple of the element's size, or the elements
    /// reach beyond the buffer, whose size counts in whole 4 bytes.
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
        // A binding counts in words of 4 bytes: a last odd half or byte of the buffer cannot be bound.
        let whole = buffer.size() / 4 * 4;
        let end = (length as u64).checked_mul(size).and_then(|bytes| bytes.checked_add(offset));
        if end.is_none_or(|end| end > whole) {
            let got = format!("{length} elements of {size} bytes from byte {offset}");
            return wrong("length", format!("elements within the buffer's {whole} bytes"), got);
        }
        Ok(Self { buffer, offset, length, element: PhantomData })
    }

    /// For buffers this crate allocated, which are large enough by construction.
    pub(crate) fn allocated(buffer: wgpu::Buffer, length: usize) -> Self {
        Self { buffer, offset: 0, length, element: PhantomData }
    }

    /// The `wgpu` buffer, for the caller's own passes. Call [`Wgpu::flush`](crate::Wgpu::flush) before submitting
    /// work that reads what this backend wrote.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Where in it the first element lies, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn view(&self) -> WgpuView<'_, T> {
        WgpuView { buffer: &self.buffer, offset: self.offset, length: self.length, element: PhantomData }
    }

    pub(crate) fn view_mut(&mut self) -> WgpuViewMut<'_, T> {
        WgpuViewMut { view: self.view(), exclusive: PhantomData }
    }

    pub(crate) fn slice(&self, start: usize, length: usize) -> Result<WgpuView<'_, T>> {
        self.view().slice("slice", start, length)
    }

    pub(crate) fn slice_mut(&mut self, start: usize, length: usize) -> Result<WgpuViewMut<'_, T>> {
        Ok(WgpuViewMut { view: self.view().slice("slice_mut", start, length)?, exclusive: PhantomData })
    }
}

impl<T: Scalar> Length for WgpuBuffer<T> {
    fn length(&self) -> usize {
        self.length
    }
}

impl<'a, T: Scalar> WgpuView<'a, T> {
    fn slice(&self, operation: &'static str, start: usize, length: usize) -> Result<Self> {
        if start.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(Error::Shape {
                operation,
                argument: "start + length",
                expected: format!("at most {}, the length of the buffer", self.length),
                got: format!("{start} + {length}"),
            });
        }
        let offset = self.offset + (start * size_of::<T>()) as u64;
        Ok(Self { buffer: self.buffer, offset, length, element: PhantomData })
    }

    /// How many bytes the elements take.
    pub(crate) fn bytes(&self) -> u64 {
        (self.length * size_of::<T>()) as u64
    }

    /// Rows `first..first + count` of `width` elements, which the caller knows to be within the view.
    pub(crate) fn rows(&self, first: usize, count: usize, width: usize) -> Self {
        let offset = self.offset + (first * width * size_of::<T>()) as u64;
        Self { offset, length: count * width, ..*self }
    }
}

impl<T: Scalar> WgpuViewMut<'_, T> {
    /// The same part, as the launch code handles it.
    pub(crate) fn as_view(&self) -> WgpuView<'_, T> {
        self.view
    }
}

impl<T: Scalar> Length for WgpuView<'_, T> {
    fn length(&self) -> usize {
        self.length
    }
}

impl<T: Scalar> Length for WgpuViewMut<'_, T> {
    fn length(&self) -> usize {
        self.view.length
    }
}
