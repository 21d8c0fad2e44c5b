//! Embedding tables, on the host or on a device.

use longseq::*;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::data::{self, Data, Ids};

/// How a table stores its rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Storage {
    /// As `f32`.
    F32,
    /// As `f16`.
    F16,
    /// As `bf16`.
    Bf16,
    /// As 8-bit codes with a scale and an offset per row.
    Int8,
}

impl Storage {
    /// All of them.
    pub const ALL: [Storage; 4] = [Storage::F32, Storage::F16, Storage::Bf16, Storage::Int8];

    /// Its name on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Storage::F32 => "f32",
            Storage::F16 => "f16",
            Storage::Bf16 => "bf16",
            Storage::Int8 => "int8",
        }
    }
}

/// The rows of a table, on the host or on a device.
pub enum Stored<S: Memory> {
    /// As `f32`.
    F32(S::Buffer<f32>),
    /// As `f16`.
    F16(S::Buffer<half::f16>),
    /// As `bf16`.
    Bf16(S::Buffer<half::bf16>),
    /// As 8-bit codes.
    Int8 {
        /// `[rows, width]` codes.
        codes: S::Buffer<i8>,
        /// A factor per row.
        scale: S::Buffer<f32>,
        /// A term per row.
        offset: S::Buffer<f32>,
    },
}

/// A table, on the host or on a device.
pub struct Owned<S: Memory> {
    /// The number of rows.
    pub rows: usize,
    /// The width of a row.
    pub width: usize,
    /// The rows.
    pub data: Stored<S>,
}

/// A table of normal numbers.
pub fn table(rng: &mut StdRng, data: Data, storage: Storage, rows: usize, width: usize) -> Owned<Host> {
    let data = match storage {
        Storage::F32 => Stored::F32(data::rows(rng, data, rows, width).into()),
        Storage::F16 => Stored::F16(data::rows(rng, data, rows, width).into()),
        Storage::Bf16 => Stored::Bf16(data::rows(rng, data, rows, width).into()),
        Storage::Int8 => Stored::Int8 {
            codes: (0..rows * width).map(|_| rng.random()).collect(),
            scale: (0..rows).map(|_| rng.random_range(0.001..0.02)).collect(),
            offset: data::rows(rng, Data::Normal, rows, 1).into(),
        },
    };
    Owned { rows, width, data }
}

impl Owned<Host> {
    /// The table on a backend.
    ///
    /// # Errors
    /// The device's own.
    pub fn upload<B: Backend>(&self, backend: &B) -> Result<Owned<B::Memory>> {
        let data = match &self.data {
            Stored::F32(data) => Stored::F32(backend.upload(data)?),
            Stored::F16(data) => Stored::F16(backend.upload(data)?),
            Stored::Bf16(data) => Stored::Bf16(backend.upload(data)?),
            Stored::Int8 { codes, scale, offset } => Stored::Int8 {
                codes: backend.upload(codes)?,
                scale: backend.upload(scale)?,
                offset: backend.upload(offset)?,
            },
        };
        Ok(Owned { rows: self.rows, width: self.width, data })
    }

    /// The largest magnitude of a number.
    pub fn max_abs(&self) -> f64 {
        match &self.data {
            Stored::F32(data) => data::max_abs(data),
            Stored::F16(data) => data::max_abs(data),
            Stored::Bf16(data) => data::max_abs(data),
            Stored::Int8 { scale, offset, .. } => 128.0 * data::max_abs(scale) + data::max_abs(offset),
        }
    }
}

/// The table as an operation's input; `backend` is where it lives.
pub fn view<'a, B: Backend>(backend: &B, table: &'a Owned<B::Memory>) -> Table<'a, B::Memory> {
    let data = match &table.data {
        Stored::F32(data) => TableData::F32(backend.view(data)),
        Stored::F16(data) => TableData::F16(backend.view(data)),
        Stored::Bf16(data) => TableData::Bf16(backend.view(data)),
        Stored::Int8 { codes, scale, offset } => TableData::Int8 {
            codes: backend.view(codes),
            scale: backend.view(scale),
            offset: backend.view(offset),
        },
    };
    Table::new(table.rows, table.width, data)
}

/// The tables as an operation's input.
pub fn views<'a, B: Backend>(backend: &B, tables: &'a [Owned<B::Memory>]) -> Vec<Table<'a, B::Memory>> {
    tables.iter().map(|table| view(backend, table)).collect()
}

/// A row of a table, decoded; zeros for an id outside.
pub(crate) fn read_row(table: &Table<'_, Host>, id: u32) -> Vec<f64> {
    let id = id as usize;
    if id >= table.rows {
        return vec![0.0; table.width];
    }
    let range = id * table.width..(id + 1) * table.width;
    match &table.data {
        TableData::F32(rows) => rows[range].iter().map(|&x| x.into()).collect(),
        TableData::F16(rows) => rows[range].iter().map(|x| x.to_f64()).collect(),
        TableData::Bf16(rows) => rows[range].iter().map(|x| x.to_f64()).collect(),
        TableData::Int8 { codes, scale, offset } => {
            let decode = |&code: &i8| f64::from(scale[id]) * f64::from(code) + f64::from(offset[id]);
            codes[range].iter().map(decode).collect()
        }
        _ => Vec::new(),
    }
}

/// Uploads tables.
///
/// # Errors
/// The device's own.
pub fn upload_all<B: Backend>(backend: &B, tables: &[Owned<Host>]) -> Result<Vec<Owned<B::Memory>>> {
    tables.iter().map(|table| table.upload(backend)).collect()
}

/// Bytes of tables.
pub fn table_bytes<T>(rows: &[usize], widths: &[usize]) -> u64 {
    rows.iter().zip(widths).map(|(rows, width)| (rows * width * size_of::<T>()) as u64).sum()
}

/// `[rows, F]` ids, each below its feature's number of rows.
pub fn feature_ids(rng: &mut StdRng, ids: Ids, count: usize, table_rows: &[usize]) -> Vec<u32> {
    let columns: Vec<Vec<u32>> = table_rows.iter().map(|&rows| data::ids(rng, ids, count, rows)).collect();
    (0..count).flat_map(|row| columns.iter().map(move |column| column[row])).collect()
}
