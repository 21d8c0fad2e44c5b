//! Rows of numbers as a search reads them.

use crate::element::{Element, Scalar};
use crate::error::Result;
use crate::ops::SearchRows;
use crate::webgpu::binding::Binding;
use crate::webgpu::memory::{Region, WgpuMemory};
use crate::webgpu::shader::Format;
use crate::webgpu::state::Wgpu;

/// The name of the operation, for errors and the trace.
pub(super) const NAME: &str = "search";

/// Rows of numbers.
#[derive(Clone, Copy)]
pub(in crate::webgpu) enum Numbers<'a> {
    F32(Region<'a, f32>),
    F16(Region<'a, half::f16>),
    Bf16(Region<'a, half::bf16>),
    Codes(Region<'a, i8>),
    Int8 {
        codes: Region<'a, i8>,
        scale: Region<'a, f32>,
        offset: Region<'a, f32>,
    },
    /// Signs and keys, which hold no numbers.
    None,
}

/// Some rows as a kernel binds them.
pub(in crate::webgpu) struct BoundNumbers {
    pub(in crate::webgpu) data: Binding,
    pub(in crate::webgpu) scale: Binding,
    pub(in crate::webgpu) offset: Binding,
    pub(in crate::webgpu) stored: Stored,
}

/// How numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::webgpu) struct Stored {
    pub(in crate::webgpu) format: Format,
    /// Whether rows are 8-bit codes with a scale and an offset.
    pub(in crate::webgpu) int8: bool,
}

impl Stored {
    /// Those that have cosines.
    pub(in crate::webgpu) fn without_scales() -> impl Iterator<Item = Self> {
        let codes = [true, false].map(Format::int8);
        Format::ALL.into_iter().chain(codes).map(|format| Self { format, int8: false })
    }

    /// All of them.
    pub(in crate::webgpu) fn all() -> impl Iterator<Item = Self> {
        let int8 = [true, false].map(|vectors| Self { format: Format::int8(vectors), int8: true });
        Self::without_scales().chain(int8)
    }
}

impl<'a> Numbers<'a> {
    pub(in crate::webgpu) fn of(rows: &SearchRows<'a, WgpuMemory>) -> Self {
        match rows {
            SearchRows::F32(view) => Self::F32(Region::of(*view)),
            SearchRows::F16(view) => Self::F16(Region::of(*view)),
            SearchRows::Bf16(view) => Self::Bf16(Region::of(*view)),
            SearchRows::Codes(view) => Self::Codes(Region::of(*view)),
            SearchRows::Int8 { codes, scale, offset } => Self::Int8 {
                codes: Region::of(*codes),
                scale: Region::of(*scale),
                offset: Region::of(*offset),
            },
            SearchRows::Signs(_) | SearchRows::Keys(_) => Self::None,
        }
    }

    /// The buffers that hold them.
    pub(in crate::webgpu) fn buffers(&self) -> Vec<&'a wgpu::Buffer> {
        match self {
            Self::F32(rows) => vec![rows.buffer],
            Self::F16(rows) => vec![rows.buffer],
            Self::Bf16(rows) => vec![rows.buffer],
            Self::Codes(codes) => vec![codes.buffer],
            Self::Int8 { codes, scale, offset } => vec![codes.buffer, scale.buffer, offset.buffer],
            Self::None => vec![],
        }
    }

    /// How many rows the device binds at a time, with two more numbers for each.
    pub(in crate::webgpu) fn rows_per_binding(&self, gpu: &Wgpu, width: usize) -> usize {
        let rows = match self {
            Self::F32(_) => gpu.rows_per_binding::<f32>(width),
            Self::F16(_) | Self::Bf16(_) => gpu.rows_per_binding::<u16>(width),
            Self::Codes(_) | Self::Int8 { .. } => gpu.rows_per_binding::<i8>(width),
            Self::None => 0,
        };
        rows.min(gpu.rows_per_binding::<f32>(2))
    }

    /// Binds rows `first..first + count` of the `argument`.
    pub(in crate::webgpu) fn bind(
        &self,
        gpu: &Wgpu,
        (operation, argument): (&'static str, &'static str),
        (first, count): (usize, usize),
        width: usize,
    ) -> Result<BoundNumbers> {
        fn floats<T: Element>(
            gpu: &Wgpu,
            (operation, argument): (&'static str, &'static str),
            rows: Region<'_, T>,
            width: usize,
        ) -> Result<BoundNumbers> {
            let data = gpu.bind(operation, argument, &rows)?;
            let stored = Stored { format: data.format_of_rows::<T>(width), int8: false };
            Ok(BoundNumbers { data, scale: gpu.nothing(), offset: gpu.nothing(), stored })
        }
        let names = (operation, argument);
        match self {
            Self::F32(rows) => floats(gpu, names, rows.rows(first, count, width), width),
            Self::F16(rows) => floats(gpu, names, rows.rows(first, count, width), width),
            Self::Bf16(rows) => floats(gpu, names, rows.rows(first, count, width), width),
            Self::Codes(codes) => {
                let data = gpu.bind(operation, argument, &codes.rows(first, count, width))?;
                let stored = Stored { format: Format::int8(data.has_whole_vec4s(width)), int8: false };
                Ok(BoundNumbers { data, scale: gpu.nothing(), offset: gpu.nothing(), stored })
            }
            Self::Int8 { codes, scale, offset } => {
                let data = gpu.bind(operation, argument, &codes.rows(first, count, width))?;
                let stored = Stored { format: Format::int8(data.has_whole_vec4s(width)), int8: true };
                let number =
                    |name, numbers: &Region<'_, f32>| gpu.bind(operation, name, &part(numbers, first, count));
                Ok(BoundNumbers {
                    data,
                    scale: number("scale", scale)?,
                    offset: number("offset", offset)?,
                    stored,
                })
            }
            Self::None => {
                let (data, scale, offset) = (gpu.nothing(), gpu.nothing(), gpu.nothing());
                Ok(BoundNumbers {
                    data,
                    scale,
                    offset,
                    stored: Stored { format: Format::f32(true), int8: false },
                })
            }
        }
    }
}

/// Numbers `first..first + count`.
pub(in crate::webgpu) fn part<'a, T: Scalar>(
    numbers: &Region<'a, T>,
    first: usize,
    count: usize,
) -> Region<'a, T> {
    numbers.rows(first, count, 1)
}
