//! Checks of buffer sizes.

use crate::error::{Error, Result};

/// One dimension of a shape: its letter and its size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dim(&'static str, usize);

/// Names a dimension, for [`expect`].
pub(crate) const fn dim(letter: &'static str, size: usize) -> Dim {
    Dim(letter, size)
}

/// The number of elements of a shape, or [`Error::Limit`] if it exceeds the address space. A dimension of 0 excuses no other:
/// rows of any number must fit.
pub(crate) fn elements(operation: &'static str, argument: &'static str, shape: &[Dim]) -> Result<usize> {
    // Half the address space: no allocation is larger, and byte counts of 4-byte elements still fit in a u64.
    let limit = isize::MAX as usize;
    let product = shape.iter().try_fold(1usize, |product, dim| product.checked_mul(dim.1.max(1)));
    match product.filter(|&product| product <= limit) {
        Some(_) if shape.iter().any(|dim| dim.1 == 0) => Ok(0),
        Some(product) => Ok(product),
        None => Err(Error::Limit { operation, argument, needed: u64::MAX, limit: limit as u64 }),
    }
}

/// Checks that `length` elements are exactly `shape`, and returns their number.
pub(crate) fn expect(
    operation: &'static str,
    argument: &'static str,
    length: usize,
    shape: &[Dim],
) -> Result<usize> {
    let needed = elements(operation, argument, shape)?;
    if length == needed {
        return Ok(needed);
    }
    let letters: Vec<&str> = shape.iter().map(|dim| dim.0).collect();
    let sizes: Vec<String> = shape.iter().map(|dim| dim.1.to_string()).collect();
    Err(Error::Shape {
        operation,
        argument,
        expected: format!("[{}] = [{}], {needed} elements", letters.join(", "), sizes.join(", ")),
        got: format!("{length} elements"),
    })
}

/// A product of counts, at most `u64::MAX`.
pub(super) fn product(factors: &[u64]) -> u64 {
    factors.iter().copied().fold(1, u64::saturating_mul)
}

/// A sum of counts, at most `u64::MAX`.
pub(super) fn sum(terms: impl IntoIterator<Item = u64>) -> u64 {
    terms.into_iter().fold(0, u64::saturating_add)
}

/// The size of an element in bytes.
pub(super) const fn size<T>() -> u64 {
    size_of::<T>() as u64
}

/// Implements `Clone` and `Copy` for structs of views. (A derive would require `Copy` of the kind of memory.)
macro_rules! copy_views {
    ($($name:ident $(<$element:ident>)?),*) => {$(
        impl<S: crate::memory::Memory $(, $element: crate::element::Element)?> Clone for $name<'_, S $(, $element)?> {
            fn clone(&self) -> Self {
                *self
            }
        }
        impl<S: crate::memory::Memory $(, $element: crate::element::Element)?> Copy for $name<'_, S $(, $element)?> {}
    )*};
}
pub(super) use copy_views;
