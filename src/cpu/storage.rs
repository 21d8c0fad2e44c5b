//! Calls of generic kernels through functions that are not generic.
//!
//! A generic function is compiled by each crate that calls it, for its own types. The kernels are large and the storage
//! types are three, so this crate compiles them, once: `compiled_here!` calls them with a concrete type (in the default
//! floating-point mode, as every call computes), and the functions below give a call's views that type.

use crate::element::{Element, Scalar};
use crate::host::Host;
use crate::memory::{View, ViewMut};
use crate::ops::*;

/// Calls `$function` for the storage type of `$T`, which the types of the arguments call `Stored`.
macro_rules! compiled_here {
    ($T:ident, $function:ident($($name:ident: $type:ty = $value:expr),* $(,)?)) => {
        match <$T as $crate::element::Element>::DTYPE {
            $crate::element::DType::F32 => {
                $crate::cpu::storage::compiled_here!(f32, f32, $function($($name: $type = $value),*))
            }
            $crate::element::DType::F16 => {
                $crate::cpu::storage::compiled_here!(f16, half::f16, $function($($name: $type = $value),*))
            }
            $crate::element::DType::Bf16 => {
                $crate::cpu::storage::compiled_here!(bf16, half::bf16, $function($($name: $type = $value),*))
            }
        }
    };
    ($label:ident, $stored:ty, $function:ident($($name:ident: $type:ty = $value:expr),*)) => {{
        type Stored = $stored;
        fn $label($($name: $type),*) -> $crate::error::Result<()> {
            $crate::cpu::vector::with_default_floats(|| $function($($name),*))
        }
        $label($($value),*)
    }};
}
pub(super) use compiled_here;

/// The same view; `T` and `U` are the same type.
pub(super) fn view<T: Scalar, U: Scalar>(view: View<'_, Host, T>) -> View<'_, Host, U> {
    Host::view(bytemuck::cast_slice(view.as_slice()))
}

/// The same view; `T` and `U` are the same type.
pub(super) fn view_mut<T: Scalar, U: Scalar>(view: ViewMut<'_, Host, T>) -> ViewMut<'_, Host, U> {
    Host::view_mut(bytemuck::cast_slice_mut(view.into_slice()))
}

/// Gives the views of a struct of inputs or outputs the storage type of the kernel.
pub(super) trait WithStorage<U: Element> {
    /// The same struct with `U` for its storage type.
    type Same;

    /// The same views.
    fn stored(self) -> Self::Same;
}

macro_rules! stored {
    ($($struct:ident { $($changed:ident: $cast:expr),*; $($kept:ident),* })*) => {$(
        impl<'a, T: Element, U: Element> WithStorage<U> for $struct<'a, Host, T> {
            type Same = $struct<'a, Host, U>;

            fn stored(self) -> $struct<'a, Host, U> {
                let Self { $($changed,)* $($kept,)* } = self;
                $(let $changed = $cast($changed);)*
                $struct { $($changed,)* $($kept,)* }
            }
        }
    )*};
}
stored! {
    TargetAttentionInputs { queries: view, keys: view, values: |values: Option<_>| values.map(view); bias }
    TargetAttentionOutputs { out: view_mut; lse }
    PartialAttention { out: view; lse }
    SdimEncodeInputs { history: view; hash }
    SdimQueryInputs { targets: |targets: Option<_>| targets.map(view); table, hash }
    SdimAttendInputs { history: view, targets: |targets: Option<_>| targets.map(view); history_hash, target_hash }
    DinLayer { weight: view; bias, activation }
}
