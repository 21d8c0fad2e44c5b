//! SDIM's tables as bytes: for a disk, or for another process.

use bytemuck::PodCastError;

use crate::element::{DType, Element};
use crate::error::{Error, Result};
use crate::host::reserve;
use crate::ops::sdim::parameters::Sdim;
use crate::ops::shape::expect;

const READ: &str = "sdim_read_tables";
const SAVE: &str = "sdim_save_tables";

/// The bytes of the head: a cache line, so that tables in an aligned buffer are aligned.
const HEAD: usize = 64;

const MAGIC: [u8; 8] = *b"LSQSDIM\0";

/// What this library writes, and the only version so far.
const VERSION: u32 = 1;

/// Tables in the bytes that [`Sdim::save_tables`] made, not copied.
///
/// The bytes are little-endian: a head of 64, then the elements of `[B, G, 2^τ, d]`.
///
/// | bytes | |
/// |---|---|
/// | 0..8 | `LSQSDIM`, 0 |
/// | 8..12 | version: 1 |
/// | 12..16 | storage type: 0 `f32`, 1 `f16`, 2 `bf16` |
/// | 16..24, 24..32, 32..36 | `d`, `G`, `τ` |
/// | 36..40 | 1 if bucket rows are normalised, otherwise 0 |
/// | 40..48 | `B`: users |
/// | 48..52 | CRC-32 of the rotations' bytes, those of no bytes where signatures were given |
/// | 52..56 | CRC-32 of the elements' bytes |
/// | 56..60 | CRC-32 of bytes 0..56 |
/// | 60..64 | 0 |
///
/// ```
/// use longseq::prelude::*;
/// use longseq::{Cpu, Hash, Host, Jagged, SavedTables, Sdim, SdimEncodeInputs};
///
/// let op = Sdim::new(8);
/// let rotations = op.rotations(42)?;
/// let backend = Cpu::new();
/// let histories = backend.jagged(&Jagged::from_lengths(&[3, 2])?)?;
/// let inputs = SdimEncodeInputs::new(Host::view(&[1.0_f32; 5 * 8]), Hash::Rotations(Host::view(&rotations)));
/// let tables = backend.sdim_encode(&op, &histories, inputs)?;
///
/// let bytes = op.save_tables(&rotations, &tables[..])?;
///
/// // Later, elsewhere:
/// let saved = SavedTables::read(&bytes)?;
/// assert_eq!(saved.users(), 2);
/// let tables = backend.upload(saved.tables::<f32>(&op, &rotations)?)?;
/// # let _ = tables;
/// // Tables say nothing to a model that hashes otherwise:
/// assert!(saved.tables::<f32>(&op, &op.rotations(43)?).is_err());
/// # Ok::<(), longseq::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct SavedTables<'a> {
    op: Sdim,
    users: usize,
    dtype: DType,
    rotations: u32,
    elements: &'a [u8],
}

impl Sdim {
    /// The tables `[B, G, 2^τ, d]` of users as bytes, which [`SavedTables`] reads: with these parameters and a checksum of the rotations,
    /// so that they are not read with others. Where signatures were given to `encode`, `rotations` is empty.
    ///
    /// # Errors
    /// [`Error::Parameter`] and [`Error::Unsupported`] for invalid parameters, and on big-endian machines; [`Error::Shape`] if rotations
    /// or tables have another length; [`Error::OutOfMemory`].
    pub fn save_tables<T: Element>(&self, rotations: &[f32], tables: &[T]) -> Result<Vec<u8>> {
        check_endian(SAVE)?;
        self.check_saved_rotations(SAVE, rotations)?;
        // That of one user is at least one element.
        let users = tables.len() / self.table_length(1)?;
        self.check_table(SAVE, users, tables.len())?;
        let elements: &[u8] = bytemuck::cast_slice(tables);
        let mut bytes = reserve(SAVE, HEAD + elements.len())?;
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(code(T::DTYPE).to_le_bytes());
        bytes.extend((self.width as u64).to_le_bytes());
        bytes.extend((self.groups as u64).to_le_bytes());
        bytes.extend((self.bits as u32).to_le_bytes());
        bytes.extend(u32::from(self.normalise).to_le_bytes());
        bytes.extend((users as u64).to_le_bytes());
        bytes.extend(checksum(bytemuck::cast_slice(rotations)).to_le_bytes());
        bytes.extend(checksum(elements).to_le_bytes());
        bytes.extend(checksum(&bytes).to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend_from_slice(elements);
        Ok(bytes)
    }

    /// Rotations of this shape, or none.
    fn check_saved_rotations(&self, operation: &'static str, rotations: &[f32]) -> Result<()> {
        self.validate(operation)?;
        if rotations.is_empty() {
            return Ok(());
        }
        expect(operation, "rotations", rotations.len(), &self.rotation_shape()).map(drop)
    }
}

impl<'a> SavedTables<'a> {
    /// Reads the head, and checks that the bytes are whole.
    ///
    /// # Errors
    /// [`Error::Parameter`] naming `bytes` if they were not written by [`Sdim::save_tables`], by a later version, or have changed since;
    /// [`Error::Unsupported`] on big-endian machines.
    pub fn read(bytes: &'a [u8]) -> Result<Self> {
        check_endian(READ)?;
        let Some((head, elements)) = bytes.split_at_checked(HEAD) else {
            return Err(wrong("bytes", format!("a head of {HEAD} bytes"), format!("{} bytes", bytes.len())));
        };
        if head[..8] != MAGIC {
            return Err(wrong("bytes", "those of tables of SDIM".into(), format!("{:?}", &head[..8])));
        }
        let version = u32_at(head, 8);
        if version != VERSION {
            return Err(wrong("bytes", format!("version {VERSION}"), format!("version {version}")));
        }
        let (expected, got) = (u32_at(head, 56), checksum(&head[..56]));
        if expected != got || head[60..] != [0; 4] {
            return Err(changed("head", expected, got));
        }
        let dtype =
            [DType::F32, DType::F16, DType::Bf16].into_iter().find(|&dtype| code(dtype) == u32_at(head, 12));
        let dtype = dtype.ok_or_else(|| {
            wrong("bytes", "a storage type from 0 to 2".into(), u32_at(head, 12).to_string())
        })?;
        let op = Sdim {
            width: size_at(head, 16)?,
            groups: size_at(head, 24)?,
            bits: u32_at(head, 32) as usize,
            normalise: u32_at(head, 36) != 0,
        };
        let users = size_at(head, 40)?;
        let expected = op.table_length(users)?.checked_mul(size_of_element(dtype));
        if expected != Some(elements.len()) {
            let expected = format!("the tables of {users} users of {op:?} after the head");
            return Err(wrong("bytes", expected, format!("{} bytes", elements.len())));
        }
        let (expected, got) = (u32_at(head, 52), checksum(elements));
        if expected != got {
            return Err(changed("tables", expected, got));
        }
        Ok(Self { op, users, dtype, rotations: u32_at(head, 48), elements })
    }

    /// The parameters that the tables were saved with.
    pub fn op(&self) -> Sdim {
        self.op
    }

    /// `B`: the number of users.
    pub fn users(&self) -> usize {
        self.users
    }

    /// How the tables are stored.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The tables `[B, G, 2^τ, d]`, for a model with these parameters and rotations. Whether bucket rows are normalised is the query's
    /// business: it may differ from what was saved.
    ///
    /// # Errors
    /// [`Error::Parameter`] naming what differs: `op` if it has another width, groups or bits, `rotations`, the storage type, or `bytes`
    /// if the elements are not aligned (the bytes of a mapped file are); [`Error::Shape`] if the rotations have another length.
    pub fn tables<T: Element>(&self, op: &Sdim, rotations: &[f32]) -> Result<&'a [T]> {
        let saved = self.op.with_normalise(op.normalise);
        if saved != *op {
            return Err(wrong("op", format!("{saved:?}, with which they were saved"), format!("{op:?}")));
        }
        op.check_saved_rotations(READ, rotations)?;
        let got = checksum(bytemuck::cast_slice(rotations));
        if got != self.rotations {
            let expected = format!("those that they were saved with, of CRC-32 {:08x}", self.rotations);
            return Err(wrong("rotations", expected, format!("{got:08x}")));
        }
        if T::DTYPE != self.dtype {
            let (expected, got) = (format!("{:?}", self.dtype), T::NAME.into());
            return Err(wrong("the storage type", expected, got));
        }
        if self.elements.is_empty() {
            return Ok(&[]);
        }
        bytemuck::try_cast_slice(self.elements).map_err(|error: PodCastError| {
            let expected = format!("elements at an address of {} bytes", align_of::<T>());
            wrong("bytes", expected, error.to_string())
        })
    }
}

fn code(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Bf16 => 2,
    }
}

fn size_of_element(dtype: DType) -> usize {
    match dtype {
        DType::F32 => 4,
        DType::F16 | DType::Bf16 => 2,
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

fn u32_at(head: &[u8], start: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&head[start..start + 4]);
    u32::from_le_bytes(word)
}

fn size_at(head: &[u8], start: usize) -> Result<usize> {
    let size = u64::from(u32_at(head, start)) | u64::from(u32_at(head, start + 4)) << 32;
    let limit = usize::MAX as u64;
    usize::try_from(size).map_err(|_| Error::Limit {
        operation: READ,
        argument: "bytes",
        needed: size,
        limit,
    })
}

/// Elements are read where they are.
fn check_endian(operation: &'static str) -> Result<()> {
    if cfg!(target_endian = "little") {
        return Ok(());
    }
    let (what, supported) = ("a big-endian machine".into(), "little-endian ones".into());
    Err(Error::Unsupported { operation, what, supported })
}

fn wrong(argument: &'static str, expected: String, got: String) -> Error {
    Error::Parameter { operation: READ, argument, expected, got }
}

fn changed(what: &str, expected: u32, got: u32) -> Error {
    wrong("bytes", format!("a {what} of CRC-32 {expected:08x}, as when it was saved"), format!("{got:08x}"))
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;
    use crate::host::HostBuffer;

    /// Of two users.
    fn saved<T: Element>(op: &Sdim) -> (Vec<f32>, Vec<T>, Vec<u8>) {
        let rotations = op.rotations(7).expect("valid parameters");
        let length = op.table_length(2).expect("valid parameters");
        let tables: Vec<T> = (0..length).map(|i| T::from_f32(i as f32 - 3.0)).collect();
        let bytes = op.save_tables(&rotations, &tables).expect("tables of two users");
        (rotations, tables, bytes)
    }

    fn comes_back<T: Element>() {
        for op in [Sdim::new(3), Sdim::new(1).with_groups(2, 9).with_normalise(false)] {
            let (rotations, tables, bytes) = saved::<T>(&op);
            let mut aligned = HostBuffer::<u8>::zeroed("a test", bytes.len()).expect("memory");
            aligned.copy_from_slice(&bytes);
            let read = SavedTables::read(&aligned).expect("whole bytes");
            assert_eq!((read.op(), read.users(), read.dtype()), (op, 2, T::DTYPE));
            assert_eq!(read.tables::<T>(&op, &rotations), Ok(&tables[..]));
            let other = op.with_normalise(!op.normalise);
            assert_eq!(read.tables::<T>(&other, &rotations), Ok(&tables[..]));
        }
    }

    #[test]
    fn tables_come_back_in_every_storage_type() {
        comes_back::<f32>();
        comes_back::<f16>();
        comes_back::<bf16>();
    }

    #[test]
    fn tables_of_nobody_are_aligned_anywhere() {
        let op = Sdim::new(2);
        let bytes = op.save_tables::<f32>(&[], &[]).expect("tables of no users");
        for start in 0..4 {
            let moved = [&vec![0; start][..], &bytes].concat();
            let read = SavedTables::read(&moved[start..]).expect("whole bytes");
            assert_eq!(read.tables::<f32>(&op, &[]), Ok(&[][..]));
        }
    }

    #[test]
    fn every_changed_bit_and_length_is_refused() {
        let (_, _, bytes) = saved::<f16>(&Sdim::new(2).with_groups(1, 2));
        for bit in 0..bytes.len() * 8 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            let error = SavedTables::read(&other).expect_err("a changed bit");
            assert!(matches!(error, Error::Parameter { argument: "bytes", .. }), "bit {bit}: {error}");
        }
        for length in 0..bytes.len() {
            let error = SavedTables::read(&bytes[..length]).expect_err("not all of it");
            assert!(matches!(error, Error::Parameter { argument: "bytes", .. }), "{length}: {error}");
        }
    }

    /// Heads whose checksum is right say anything.
    #[test]
    fn sizes_beyond_memory_are_refused() {
        let (_, _, bytes) = saved::<f32>(&Sdim::new(2));
        for (start, value) in
            [(12, 3), (16, 0), (16, u64::MAX), (24, 1 << 40), (32, 17), (32, 0), (40, u64::MAX), (40, 3)]
        {
            let mut other = bytes.clone();
            let width = if [12, 32].contains(&start) { 4 } else { 8 };
            other[start..start + width].copy_from_slice(&value.to_le_bytes()[..width]);
            let head = checksum(&other[..56]).to_le_bytes();
            other[56..60].copy_from_slice(&head);
            SavedTables::read(&other).expect_err("other sizes");
        }
    }

    #[test]
    fn tables_of_another_model_are_refused_by_name() {
        let op = Sdim::new(2);
        let (rotations, tables, bytes) = saved::<f32>(&op);
        let read = SavedTables::read(&bytes).expect("whole bytes");
        let argument = |result: Result<&[f32]>| match result {
            Err(Error::Parameter { argument, .. } | Error::Shape { argument, .. }) => argument,
            other => panic!("{other:?}"),
        };
        assert_eq!(argument(read.tables(&Sdim::new(3), &rotations)), "op");
        assert_eq!(argument(read.tables(&op.with_groups(16, 4), &rotations)), "op");
        assert_eq!(argument(read.tables(&op, &op.rotations(8).expect("valid"))), "rotations");
        assert_eq!(argument(read.tables(&op, &rotations[1..])), "rotations");
        assert_eq!(argument(read.tables(&op, &[])), "rotations");
        assert!(matches!(
            read.tables::<bf16>(&op, &rotations),
            Err(Error::Parameter { argument: "the storage type", .. })
        ));
        let shorter = op.save_tables(&rotations, &tables[1..]);
        assert!(matches!(shorter, Err(Error::Shape { argument: "table", .. })), "{shorter:?}");
        // One byte further on, no `f32` is where it can be read.
        let shifted = [&[0][..], &bytes].concat();
        let read = SavedTables::read(&shifted[1..]).expect("whole bytes");
        assert_eq!(argument(read.tables(&op, &rotations)), "bytes");
    }
}
