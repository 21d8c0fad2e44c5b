//! Where data live: the buffer and view types of a backend.

use crate::element::Scalar;

/// A kind of memory: its owned buffers and its borrowed views, typed by what they hold.
///
/// The inputs of every operation are generic over it, so that one struct serves host slices, `wgpu` buffers
/// and CUDA memory. Model code names it through [`Backend::Memory`](crate::Backend::Memory) and the aliases
/// [`Buffer`](crate::Buffer), [`View`](crate::View) and [`ViewMut`](crate::ViewMut).
pub trait Memory: 'static {
    /// Owns its data.
    type Buffer<T: Scalar>;
    /// Borrows data to read.
    type View<'a, T: Scalar>: Copy + Length;
    /// Borrows data to write.
    type ViewMut<'a, T: Scalar>: Length;
}

/// How many elements a view covers.
pub trait Length {
    /// The number of elements, not bytes.
    fn length(&self) -> usize;
}

/// Host memory: vectors and slices. The memory of the reference and of [`Cpu`](crate::Cpu).
#[derive(Debug, Clone, Copy)]
pub struct Host;

impl Memory for Host {
    type Buffer<T: Scalar> = Vec<T>;
    type View<'a, T: Scalar> = &'a [T];
    type ViewMut<'a, T: Scalar> = &'a mut [T];
}

impl<T> Length for &[T] {
    fn length(&self) -> usize {
        self.len()
    }
}

impl<T> Length for &mut [T] {
    fn length(&self) -> usize {
        self.len()
    }
}
