//! A range of a buffer as a kernel binds it.

use std::ops::Range;

use crate::element::Element;
use crate::webgpu::shader::Format;

/// A range of a buffer as a kernel binds it.
#[derive(Debug, Clone)]
pub(crate) struct Binding {
    pub(crate) buffer: wgpu::Buffer,
    /// In bytes.
    pub(crate) offset: u64,
    /// In bytes.
    pub(crate) size: u64,
    /// The index of the first element: bindings start at multiples of the device's alignment, views anywhere.
    pub(crate) base: u32,
    /// Whether this is scratch memory of the call, for the trace.
    pub(crate) is_scratch: bool,
    /// The bytes of a view that kernels use and that outlive the call; none of memory that the call has made, or that the caller made,
    /// who may write it unseen.
    pub(crate) bytes: Vec<Range<u64>>,
    /// Whether kernels that write it keep some of what it holds, or depend on it.
    pub(crate) keeps: bool,
}

impl Binding {
    /// A buffer that only one call uses.
    pub(crate) fn of_call(buffer: wgpu::Buffer, is_scratch: bool) -> Self {
        let size = buffer.size();
        Self { buffer, offset: 0, size, base: 0, is_scratch, bytes: vec![], keeps: false }
    }

    /// Whether both bind some of the same bytes.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.buffer == other.buffer
            && self.offset < other.offset + other.size
            && other.offset < self.offset + self.size
    }

    /// How rows of `width` elements are read: as vec4s if all of them start at a multiple of four elements.
    pub(crate) fn format_of_rows<T: Element>(&self, width: usize) -> Format {
        Format::of::<T>(self.has_whole_vec4s(width))
    }

    /// Whether all rows of `width` elements start at a multiple of four elements and consist of whole vec4s.
    pub(crate) fn has_whole_vec4s(&self, width: usize) -> bool {
        self.base.is_multiple_of(4) && width.is_multiple_of(4)
    }
}
