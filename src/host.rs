//! Host memory.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

use crate::element::Scalar;
use crate::error::{Error, Result};
use crate::memory::{Memory, View, ViewMut};

/// Host memory, viewed as slices. The memory of [`reference`](crate::reference) and of [`Cpu`](crate::Cpu).
#[derive(Debug, Clone, Copy)]
pub struct Host;

impl Memory for Host {
    type Buffer<T: Scalar> = HostBuffer<T>;
    type Data<T: Scalar> = [T];

    fn data<T: Scalar>(buffer: &HostBuffer<T>) -> &[T] {
        buffer
    }

    fn data_mut<T: Scalar>(buffer: &mut HostBuffer<T>) -> &mut [T] {
        buffer
    }

    fn length<T: Scalar>(data: &[T]) -> usize {
        data.len()
    }
}

/// Elements in host memory, used as a slice. The buffer is cache-line aligned, so that reading a row whose size is a
/// multiple of a cache line never touches an extra line.
#[derive(Clone)]
pub struct HostBuffer<T: Scalar> {
    lines: Vec<Line>,
    length: usize,
    element: PhantomData<T>,
}

/// One cache line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Line {
    /// Elements that fit in one line, followed by zeros.
    fn of<T: Scalar>(elements: &[T]) -> Self {
        let mut line = Self::zeroed();
        let bytes: &[u8] = bytemuck::cast_slice(elements);
        line.0[..bytes.len()].copy_from_slice(bytes);
        line
    }
}

impl<T: Scalar> HostBuffer<T> {
    /// The number of elements per line.
    const PER_LINE: usize = size_of::<Line>() / size_of::<T>();

    /// A copy of a slice.
    pub(crate) fn copy_of(operation: &'static str, data: &[T]) -> Result<Self> {
        let mut lines = Self::reserve_lines(operation, data.len())?;
        lines.extend(data.chunks(Self::PER_LINE).map(Line::of));
        Ok(Self { lines, length: data.len(), element: PhantomData })
    }

    /// A buffer of zeros.
    pub(crate) fn zeroed(operation: &'static str, length: usize) -> Result<Self> {
        let mut lines = Self::reserve_lines(operation, length)?;
        lines.resize(length.div_ceil(Self::PER_LINE), Line::zeroed());
        Ok(Self { lines, length, element: PhantomData })
    }

    fn reserve_lines(operation: &'static str, length: usize) -> Result<Vec<Line>> {
        reserve(operation, length.div_ceil(Self::PER_LINE)).map_err(|_| out_of_memory::<T>(operation, length))
    }
}

/// An empty vector with capacity for `length` elements.
pub(crate) fn reserve<T>(operation: &'static str, length: usize) -> Result<Vec<T>> {
    let mut vector = Vec::new();
    vector.try_reserve_exact(length).map_err(|_| out_of_memory::<T>(operation, length))?;
    Ok(vector)
}

/// A vector of `length` equal elements.
pub(crate) fn filled<T: Clone>(operation: &'static str, length: usize, element: T) -> Result<Vec<T>> {
    let mut vector = reserve(operation, length)?;
    vector.resize(length, element);
    Ok(vector)
}

/// The error if `length` elements cannot be allocated.
fn out_of_memory<T>(operation: &'static str, length: usize) -> Error {
    Error::OutOfMemory { operation, bytes: (length as u64).saturating_mul(size_of::<T>() as u64) }
}

impl<T: Scalar> Deref for HostBuffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.length]
    }
}

impl<T: Scalar> DerefMut for HostBuffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.length]
    }
}

impl<T: Scalar> From<Vec<T>> for HostBuffer<T> {
    fn from(data: Vec<T>) -> Self {
        let lines = data.chunks(Self::PER_LINE).map(Line::of).collect();
        Self { lines, length: data.len(), element: PhantomData }
    }
}

impl<T: Scalar> FromIterator<T> for HostBuffer<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        Self::from(elements.into_iter().collect::<Vec<T>>())
    }
}

impl<T: Scalar> fmt::Debug for HostBuffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl Host {
    /// A view of a slice or vector.
    pub fn view<T: Scalar>(slice: &[T]) -> View<'_, Host, T> {
        View::new(slice)
    }

    /// A mutable view of a slice or vector.
    pub fn view_mut<T: Scalar>(slice: &mut [T]) -> ViewMut<'_, Host, T> {
        ViewMut::new(slice)
    }
}

impl<'a, T: Scalar> View<'a, Host, T> {
    /// The elements.
    pub fn as_slice(&self) -> &'a [T] {
        &self.data[self.start..self.start + self.length]
    }
}

impl<'a, T: Scalar> ViewMut<'a, Host, T> {
    /// The elements.
    pub fn into_slice(self) -> &'a mut [T] {
        &mut self.data[self.start..self.start + self.length]
    }
}

impl<T: Scalar> Deref for View<'_, Host, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.as_slice()
    }
}

impl<T: Scalar> Deref for ViewMut<'_, Host, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.data[self.start..self.start + self.length]
    }
}

impl<T: Scalar> DerefMut for ViewMut<'_, Host, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.reborrow().into_slice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_keep_their_elements_and_are_aligned() {
        for length in [0, 1, 15, 16, 17, 31, 1000] {
            let data: Vec<f32> = (0..length).map(|i| i as f32).collect();
            let mut buffer = HostBuffer::copy_of("test", &data).expect("memory");
            assert_eq!(*buffer, data[..]);
            assert!(buffer.as_ptr().addr().is_multiple_of(64));
            buffer.iter_mut().for_each(|value| *value = 0.0);
            assert_eq!(*buffer, *HostBuffer::zeroed("test", length).expect("memory"));
            let bytes: Vec<i8> = (0..length).map(|i| i as i8).collect();
            assert_eq!(*HostBuffer::copy_of("test", &bytes).expect("memory"), bytes[..]);
        }
    }

    #[test]
    fn too_much_memory_is_an_error() {
        let result = HostBuffer::<f32>::zeroed("test", usize::MAX);
        assert!(matches!(result, Err(Error::OutOfMemory { operation: "test", .. })));
    }
}
