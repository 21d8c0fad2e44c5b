//! What a call of one backend needs, taken out of what [`AnyBackend`](crate::AnyBackend) is given: views of any memory become views of
//! the backend's own.

use crate::any::memory::{AnyBatch, AnyJagged, AnyMemory, Kind};
use crate::device::of_another_device;
use crate::element::Scalar;
use crate::error::Result;
use crate::host::reserve;
use crate::memory::{View, ViewMut};

/// An argument of a call, or a part of one, that becomes the same for memory `S`.
pub(super) trait Open<S: Kind> {
    /// The same for `S`.
    type Opened;

    /// Takes it out. Errors name the operation and the argument.
    ///
    /// # Errors
    /// [`Error::Parameter`](crate::Error::Parameter) if it is of another kind of memory.
    fn open(self, operation: &'static str, argument: &'static str) -> Result<Self::Opened>;
}

/// Opened inputs, with the lists that their slices borrow, which the call needs a place for.
pub(super) struct Held<I, K> {
    /// The inputs, with empty slices.
    pub(super) rest: I,
    /// The opened lists.
    pub(super) lists: K,
}

impl<'a, S: Kind, T: Scalar> Open<S> for View<'a, AnyMemory, T> {
    type Opened = View<'a, S, T>;

    fn open(self, operation: &'static str, argument: &'static str) -> Result<Self::Opened> {
        let data = S::buffer(self.data).ok_or_else(|| of_another_device(operation, argument))?;
        Ok(View { data, start: self.start, length: self.length })
    }
}

impl<'a, S: Kind, T: Scalar> Open<S> for ViewMut<'a, AnyMemory, T> {
    type Opened = ViewMut<'a, S, T>;

    fn open(self, operation: &'static str, argument: &'static str) -> Result<Self::Opened> {
        let data = S::buffer_mut(self.data).ok_or_else(|| of_another_device(operation, argument))?;
        Ok(ViewMut { data, start: self.start, length: self.length })
    }
}

impl<'a, S: Kind> Open<S> for &'a AnyJagged {
    type Opened = &'a S::Jagged;

    fn open(self, operation: &'static str, argument: &'static str) -> Result<Self::Opened> {
        S::jagged(self).ok_or_else(|| of_another_device(operation, argument))
    }
}

impl<'a, S: Kind> Open<S> for &'a AnyBatch {
    type Opened = &'a S::Batch;

    fn open(self, operation: &'static str, argument: &'static str) -> Result<Self::Opened> {
        S::batch(self).ok_or_else(|| of_another_device(operation, argument))
    }
}

/// A number is the same for every memory.
impl<S: Kind> Open<S> for usize {
    type Opened = usize;

    fn open(self, _: &'static str, _: &'static str) -> Result<usize> {
        Ok(self)
    }
}

impl<S: Kind, I: Open<S>> Open<S> for Option<I> {
    type Opened = Option<I::Opened>;

    fn open(self, operation: &'static str, argument: &'static str) -> Result<Self::Opened> {
        self.map(|item| item.open(operation, argument)).transpose()
    }
}

impl<S: Kind, I: Open<S>> Open<S> for Vec<I> {
    type Opened = Vec<I::Opened>;

    fn open(self, operation: &'static str, argument: &'static str) -> Result<Self::Opened> {
        open_all(self, operation, argument)
    }
}

impl<S: Kind, I: Open<S> + Copy> Open<S> for &[I] {
    type Opened = Vec<I::Opened>;

    fn open(self, operation: &'static str, argument: &'static str) -> Result<Self::Opened> {
        open_all(self.iter().copied(), operation, argument)
    }
}

/// Opens each item of a list.
pub(super) fn open_all<S: Kind, I: Open<S>>(
    items: impl IntoIterator<Item = I, IntoIter: ExactSizeIterator>,
    operation: &'static str,
    argument: &'static str,
) -> Result<Vec<I::Opened>> {
    let items = items.into_iter();
    let mut opened = reserve(operation, items.len())?;
    for item in items {
        opened.push(item.open(operation, argument)?);
    }
    Ok(opened)
}

/// What errors name a field of an argument: the field alone, `argument.field` for the arguments in brackets, or, with a star, the argument.
macro_rules! name {
    ($argument:ident, $field:ident, *) => {
        $argument
    };
    ($argument:ident, $field:ident, []) => {
        stringify!($field)
    };
    ($argument:ident, $field:ident, [$($prefix:literal),+]) => {
        match $argument {
            $($prefix => concat!($prefix, ".", stringify!($field)),)+
            _ => stringify!($field),
        }
    };
}
pub(super) use name;

/// Opens structs of views field by field. A field that is left out does not compile. `T` is a storage type; in brackets, or a star, are
/// the [names](name) of fields.
macro_rules! opens {
    ($($type:ident $(<$element:ident>)? { $($field:ident),* } as $names:tt;)*) => {$(
        impl<'a, S: $crate::any::memory::Kind $(, $element: $crate::element::Element)?> $crate::any::open::Open<S>
            for $type<'a, $crate::any::memory::AnyMemory $(, $element)?>
        {
            type Opened = $type<'a, S $(, $element)?>;

            #[allow(unused_variables, reason = "few names depend on the argument")]
            fn open(
                self,
                operation: &'static str,
                argument: &'static str,
            ) -> $crate::error::Result<Self::Opened> {
                Ok($type {
                    $($field: $crate::any::open::Open::<S>::open(
                        self.$field,
                        operation,
                        $crate::any::open::name!(argument, $field, $names),
                    )?),*
                })
            }
        }
    )*};
}
pub(super) use opens;

/// The same for structs with slices, which are after the semicolon and become lists that [`Held`] lends.
macro_rules! opens_lists {
    ($(
        $type:ident $(<$element:ident>)? { $($field:ident),*; $($slice:ident),* } as $names:tt,
        of $item:ident $(<$item_element:ident>)?;
    )*) => {$(
        impl<'a, S: $crate::any::memory::Kind $(, $element: $crate::element::Element)?> $crate::any::open::Open<S>
            for $type<'a, $crate::any::memory::AnyMemory $(, $element)?>
        {
            type Opened = $crate::any::open::Held<
                $type<'a, S $(, $element)?>,
                [Vec<$item<'a, S $(, $item_element)?>>; [$(stringify!($slice)),*].len()],
            >;

            #[allow(unused_variables, reason = "few names depend on the argument")]
            fn open(
                self,
                operation: &'static str,
                argument: &'static str,
            ) -> $crate::error::Result<Self::Opened> {
                use $crate::any::open::{Held, Open, name};
                Ok(Held {
                    rest: $type {
                        $($field: Open::<S>::open(self.$field, operation, name!(argument, $field, $names))?,)*
                        $($slice: &[],)*
                    },
                    lists: [
                        $(Open::<S>::open(self.$slice, operation, name!(argument, $slice, $names))?),*
                    ],
                })
            }
        }

        impl<'a, S: $crate::any::memory::Kind $(, $element: $crate::element::Element)?> $crate::any::open::Held<
            $type<'a, S $(, $element)?>,
            [Vec<$item<'a, S $(, $item_element)?>>; [$(stringify!($slice)),*].len()],
        > {
            /// The inputs for the call.
            pub(super) fn lend(&self) -> $type<'_, S $(, $element)?> {
                let [$($slice),*] = &self.lists;
                $type { $($slice,)* ..self.rest }
            }
        }
    )*};
}
pub(super) use opens_lists;
