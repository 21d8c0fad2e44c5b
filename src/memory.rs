//! The buffers of a backend, and views of them.

use crate::element::Scalar;
use crate::error::{Error, Result};

/// A kind of memory: the type that owns data there, and the type that a view borrows.
///
/// The inputs of every operation are generic over it, so that one struct serves host slices, `wgpu` buffers and CUDA
/// memory. Model code names it through [`DeviceOps::Memory`](crate::DeviceOps::Memory).
pub trait Memory: Sized + 'static {
    /// A buffer that owns its data.
    type Buffer<T: Scalar>;
    /// What a view borrows: a slice on the host, a buffer of the device elsewhere.
    type Data<T: Scalar>: ?Sized + 'static;

    /// The data of a buffer.
    fn data<T: Scalar>(buffer: &Self::Buffer<T>) -> &Self::Data<T>;

    /// The data of a buffer, for writing.
    fn data_mut<T: Scalar>(buffer: &mut Self::Buffer<T>) -> &mut Self::Data<T>;

    /// The number of elements, not bytes.
    fn length<T: Scalar>(data: &Self::Data<T>) -> usize;
}

/// Borrowed data for reading: a whole buffer, or consecutive elements of it.
pub struct View<'a, S: Memory, T: Scalar> {
    pub(crate) data: &'a S::Data<T>,
    pub(crate) start: usize,
    pub(crate) length: usize,
}

/// Borrowed data for writing: a whole buffer, or consecutive elements of it.
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
    /// A view of all the data.
    pub fn new(data: &'a S::Data<T>) -> Self {
        Self { data, start: 0, length: S::length(data) }
    }

    /// A view of `length` elements from `start` on.
    ///
    /// # Errors
    /// [`Error::Shape`] if they reach past the end of this view.
    pub fn slice(self, start: usize, length: usize) -> Result<Self> {
        let start = sub_start(self.start, self.length, start, length)?;
        Ok(Self { start, length, ..self })
    }

    /// The borrowed data, in which this view begins at [`start`](Self::start).
    pub fn data(&self) -> &'a S::Data<T> {
        self.data
    }

    /// The index in the data at which this view begins, in elements.
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
    /// A view of all the data.
    pub fn new(data: &'a mut S::Data<T>) -> Self {
        let length = S::length(data);
        Self { data, start: 0, length }
    }

    /// A view of `length` elements from `start` on.
    ///
    /// # Errors
    /// [`Error::Shape`] if they reach past the end of this view.
    pub fn slice(self, start: usize, length: usize) -> Result<Self> {
        let start = sub_start(self.start, self.length, start, length)?;
        Ok(Self { start, length, ..self })
    }

    /// The same view with a shorter lifetime.
    pub fn reborrow(&mut self) -> ViewMut<'_, S, T> {
        ViewMut { data: self.data, start: self.start, length: self.length }
    }

    /// The borrowed data, in which this view begins at [`start`](Self::start).
    pub fn data(&self) -> &S::Data<T> {
        self.data
    }

    /// The borrowed data, for writing.
    pub fn data_mut(&mut self) -> &mut S::Data<T> {
        self.data
    }

    /// The index in the data at which this view begins, in elements.
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

/// The index in the data at which a slice of a view begins.
fn sub_start(view_start: usize, view_length: usize, start: usize, length: usize) -> Result<usize> {
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
