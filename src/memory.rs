//! Where data live: the buffers of a backend, and views of them.

use crate::element::Scalar;
use crate::error::{Error, Result};

/// A kind of memory: what owns data there, and what a view borrows.
///
/// The inputs of every operation are generic over it, so that one struct serves host slices, `wgpu` buffers
/// and CUDA memory. Model code names it as [`Backend::Memory`](crate::DeviceOps::Memory).
pub trait Memory: Sized + 'static {
    /// Owns its data.
    type Buffer<T: Scalar>;
    /// What a view borrows: a slice on the host, a buffer of the device elsewhere.
    type Data<T: Scalar>: ?Sized + 'static;

    /// The data of a buffer.
    fn data<T: Scalar>(buffer: &Self::Buffer<T>) -> &Self::Data<T>;

    /// The data of a buffer, to write.
    fn data_mut<T: Scalar>(buffer: &mut Self::Buffer<T>) -> &mut Self::Data<T>;

    /// The number of elements, not bytes.
    fn length<T: Scalar>(data: &Self::Data<T>) -> usize;
}

/// Borrowed data to read: all of it or a part.
pub struct View<'a, S: Memory, T: Scalar> {
    pub(crate) data: &'a S::Data<T>,
    pub(crate) start: usize,
    pub(crate) length: usize,
}

/// Borrowed data to write: all of it or a part.
pub struct ViewMut<'a, S: Memory, T: Scalar> {
    pub(crate) data: &'a mut S::Data<T>,
    pub(crate) start: usize,
    pub(crate) length: usize,
}

impl<S: Memory, T: Scalar> Clone for View<'_, S, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S: Memory, T: Scalar> Copy for View<'_, S, T> {}

impl<'a, S: Memory, T: Scalar> View<'a, S, T> {
    /// All of the data.
    pub fn new(data: &'a S::Data<T>) -> Self {
        Self { data, start: 0, length: S::length(data) }
    }

    /// A part: `length` elements from `start` on.
    ///
    /// # Errors
    /// [`Error::Shape`] where that reaches beyond this view.
    pub fn slice(self, start: usize, length: usize) -> Result<Self> {
        let start = part(self.start, self.length, start, length)?;
        Ok(Self { start, length, ..self })
    }

    /// What is borrowed, of which this view is the part from [`start`](Self::start) on.
    pub fn data(&self) -> &'a S::Data<T> {
        self.data
    }

    /// Where in the data this view starts, in elements.
    pub fn start(&self) -> usize {
        self.start
    }

    /// The number of elements, not bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl<'a, S: Memory, T: Scalar> ViewMut<'a, S, T> {
    /// All of the data.
    pub fn new(data: &'a mut S::Data<T>) -> Self {
        let length = S::length(data);
        Self { data, start: 0, length }
    }

    /// A part: `length` elements from `start` on.
    ///
    /// # Errors
    /// [`Error::Shape`] where that reaches beyond this view.
    pub fn slice(self, start: usize, length: usize) -> Result<Self> {
        let start = part(self.start, self.length, start, length)?;
        Ok(Self { start, length, ..self })
    }

    /// The same view for a shorter time.
    pub fn reborrow(&mut self) -> ViewMut<'_, S, T> {
        ViewMut { data: self.data, start: self.start, length: self.length }
    }

    /// What is borrowed, of which this view is the part from [`start`](Self::start) on.
    pub fn data(&self) -> &S::Data<T> {
        self.data
    }

    /// What is borrowed, to write.
    pub fn data_mut(&mut self) -> &mut S::Data<T> {
        self.data
    }

    /// Where in the data this view starts, in elements.
    pub fn start(&self) -> usize {
        self.start
    }

    /// The number of elements, not bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// Where a part of a view starts in the data.
fn part(view_start: usize, view_length: usize, start: usize, length: usize) -> Result<usize> {
    if start.checked_add(length).is_some_and(|end| end <= view_length) {
        return Ok(view_start + start);
    }
    Err(Error::Shape {
        operation: "slice",
        argument: "start and length",
        expected: format!("a part of {view_length} elements"),
        got: format!("{length} elements from {start} on"),
    })
}
