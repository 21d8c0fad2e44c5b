//! Rows, signs and keys that a search compares, on the host or on a device.

use longseq::half::{bf16, f16};
use longseq::*;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::case::Failure;
use crate::data::{self, Data};

/// How rows of numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Compared {
    /// As `f32`.
    F32,
    /// As `f16`.
    F16,
    /// As `bf16`.
    Bf16,
    /// As 8-bit codes with a scale and an offset per row.
    Int8,
    /// As 8-bit codes without.
    Codes,
}

impl Compared {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::F32, Self::F16, Self::Bf16, Self::Int8, Self::Codes];

    /// Those that have cosines.
    pub const WITH_COSINES: [Self; 4] = [Self::F32, Self::F16, Self::Bf16, Self::Codes];

    /// Its name on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 | Self::Codes => "int8",
        }
    }

    /// The bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Int8 | Self::Codes => 1,
        }
    }
}

/// What is compared.
pub(super) enum Stored<S: Memory> {
    F32(S::Buffer<f32>),
    F16(S::Buffer<f16>),
    Bf16(S::Buffer<bf16>),
    Int8 { codes: S::Buffer<i8>, scale: S::Buffer<f32>, offset: S::Buffer<f32> },
    Codes(S::Buffer<i8>),
    Signs(S::Buffer<u32>),
    Keys(S::Buffer<u32>),
}

/// Packed signs, with anything past the width.
pub(super) fn signs(rng: &mut StdRng, count: usize, bits: usize) -> HostBuffer<u32> {
    (0..count * bits.div_ceil(32)).map(|_| rng.random()).collect()
}

impl Stored<Host> {
    /// Rows of numbers.
    pub(super) fn new(rng: &mut StdRng, stored: Compared, data: Data, count: usize, width: usize) -> Self {
        match stored {
            Compared::F32 => Self::F32(data::rows(rng, data, count, width).into()),
            Compared::F16 => Self::F16(data::rows(rng, data, count, width).into()),
            Compared::Bf16 => Self::Bf16(data::rows(rng, data, count, width).into()),
            Compared::Codes => Self::Codes((0..count * width).map(|_| rng.random()).collect()),
            Compared::Int8 => Self::Int8 {
                codes: (0..count * width).map(|_| rng.random()).collect(),
                scale: (0..count).map(|_| rng.random_range(0.001..0.02)).collect(),
                offset: data::rows(rng, Data::Normal, count, 1).into(),
            },
        }
    }

    /// Makes some rows zeros and some equal to earlier ones.
    pub(super) fn spoil(&mut self, width: usize, zeros: bool, repeated: bool) {
        fn each<T: Scalar>(rows: &mut [T], width: usize, zeros: bool, repeated: bool) {
            for i in 0..rows.len() / width {
                if zeros && i % 5 == 2 {
                    rows[i * width..(i + 1) * width].fill(bytemuck::Zeroable::zeroed());
                }
                if repeated && i % 4 == 3 {
                    rows.copy_within(i / 2 * width..(i / 2 + 1) * width, i * width);
                }
            }
        }
        match self {
            Self::F32(rows) => each(rows, width, zeros, repeated),
            Self::F16(rows) => each(rows, width, zeros, repeated),
            Self::Bf16(rows) => each(rows, width, zeros, repeated),
            Self::Int8 { codes, scale, offset } => {
                each(codes, width, zeros, repeated);
                each(scale, 1, false, repeated);
                each(offset, 1, zeros, repeated);
            }
            Self::Codes(codes) => each(codes, width, zeros, repeated),
            Self::Signs(words) | Self::Keys(words) => each(words, width, zeros, repeated),
        }
    }

    /// These on a backend.
    pub(super) fn upload<B: Backend>(&self, backend: &B) -> Result<Stored<B::Memory>> {
        Ok(match self {
            Self::F32(rows) => Stored::F32(backend.upload(rows)?),
            Self::F16(rows) => Stored::F16(backend.upload(rows)?),
            Self::Bf16(rows) => Stored::Bf16(backend.upload(rows)?),
            Self::Int8 { codes, scale, offset } => Stored::Int8 {
                codes: backend.upload(codes)?,
                scale: backend.upload(scale)?,
                offset: backend.upload(offset)?,
            },
            Self::Codes(codes) => Stored::Codes(backend.upload(codes)?),
            Self::Signs(words) => Stored::Signs(backend.upload(words)?),
            Self::Keys(keys) => Stored::Keys(backend.upload(keys)?),
        })
    }

    /// The largest magnitude of a number.
    pub(super) fn max_abs(&self) -> f64 {
        match self {
            Self::F32(rows) => data::max_abs(rows),
            Self::F16(rows) => data::max_abs(rows),
            Self::Bf16(rows) => data::max_abs(rows),
            Self::Int8 { scale, offset, .. } => 128.0 * data::max_abs(scale) + data::max_abs(offset),
            Self::Codes(_) => 128.0,
            Self::Signs(_) | Self::Keys(_) => 0.0,
        }
    }

    /// What a row holds, as bytes.
    pub(super) fn row_bytes(&self, row: usize, width: usize) -> Vec<u8> {
        fn part<T: Scalar>(rows: &[T], row: usize, width: usize) -> Vec<u8> {
            bytemuck::cast_slice(&rows[row * width..(row + 1) * width]).to_vec()
        }
        match self {
            Self::F32(rows) => part(rows, row, width),
            Self::F16(rows) => part(rows, row, width),
            Self::Bf16(rows) => part(rows, row, width),
            Self::Int8 { codes, scale, offset } => {
                [part(codes, row, width), part(scale, row, 1), part(offset, row, 1)].concat()
            }
            Self::Codes(codes) => part(codes, row, width),
            Self::Signs(words) | Self::Keys(words) => part(words, row, width),
        }
    }
}

impl<S: Memory> Stored<S> {
    /// These as an operation's input.
    pub(super) fn view<B: Backend<Memory = S>>(&self, backend: &B) -> SearchRows<'_, S> {
        match self {
            Self::F32(rows) => SearchRows::F32(backend.view(rows)),
            Self::F16(rows) => SearchRows::F16(backend.view(rows)),
            Self::Bf16(rows) => SearchRows::Bf16(backend.view(rows)),
            Self::Int8 { codes, scale, offset } => SearchRows::Int8 {
                codes: backend.view(codes),
                scale: backend.view(scale),
                offset: backend.view(offset),
            },
            Self::Codes(codes) => SearchRows::Codes(backend.view(codes)),
            Self::Signs(words) => SearchRows::Signs(backend.view(words)),
            Self::Keys(keys) => SearchRows::Keys(backend.view(keys)),
        }
    }

    /// Packs the signs of rows of floats.
    pub(super) fn pack<B: Backend<Memory = S>>(
        &self,
        backend: &B,
        op: &Signs,
        rotations: View<'_, S, f32>,
        out: ViewMut<'_, S, u32>,
    ) -> Result<(), Failure> {
        match self {
            Self::F16(rows) => backend.pack_signs_into(op, backend.view(rows), rotations, out)?,
            Self::Bf16(rows) => backend.pack_signs_into(op, backend.view(rows), rotations, out)?,
            Self::F32(rows) => backend.pack_signs_into(op, backend.view(rows), rotations, out)?,
            _ => return Err(Failure::new("only floats are packed")),
        }
        Ok(())
    }
}
