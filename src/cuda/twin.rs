//! Twins: Rust structs with the same name, fields and layout as a struct in `kernels/`.

/// Declares twins. `contracts/` compares name, field names, order, types and offsets with the CUDA source.
macro_rules! twins {
    ($(
        $(#[$meta:meta])*
        $visibility:vis struct $name:ident {
            $($(#[$field_meta:meta])* $field_visibility:vis $field:ident: $type:ty,)*
        }
    )*) => {$(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, ::bytemuck::Pod, ::bytemuck::Zeroable)]
        $visibility struct $name {
            $($(#[$field_meta])* $field_visibility $field: $type,)*
        }

        #[cfg(test)]
        impl $crate::cuda::twin::Twin for $name {
            const NAME: &'static str = stringify!($name);

            fn fields() -> Vec<$crate::cuda::twin::Field> {
                vec![$($crate::cuda::twin::Field {
                    name: stringify!($field).into(),
                    kind: stringify!($type).into(),
                    offset: std::mem::offset_of!($name, $field),
                },)*]
            }
        }
    )*};
}

pub(super) use twins;

/// A struct that a kernel reads, as Rust declares it.
#[cfg(test)]
pub(super) trait Twin: Sized {
    const NAME: &'static str;

    fn fields() -> Vec<Field>;
}

/// A field of a struct: its type as written, and its offset in bytes.
#[cfg(test)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) offset: usize,
}
