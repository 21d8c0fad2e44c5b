//! Sizes, numbers, ids and batches from bytes, with no regard for what is valid but mostly so.

use arbitrary::{Result, Unstructured};
use longseq::{Batch, Jagged};

/// Numbers that matter to arithmetic.
const SPECIAL: [f32; 16] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    f32::MAX,
    f32::MIN,
    f32::MIN_POSITIVE,
    1e-45,
    1e19,
    -1e-20,
    2.5e38,
    -2.5e38,
    16_777_217.0,
];

/// A size: mostly small.
pub(super) fn size(bytes: &mut Unstructured<'_>) -> Result<usize> {
    match bytes.arbitrary::<u8>()? {
        255 => bytes.arbitrary(),
        254 => Ok(1 << bytes.int_in_range(0..=63)?),
        small => Ok(usize::from(small % 12)),
    }
}

/// A length: mostly the right one.
pub(super) fn length(bytes: &mut Unstructured<'_>, right: usize) -> Result<usize> {
    let right = right.min(4096);
    Ok(match bytes.arbitrary::<u8>()? {
        255 => bytes.int_in_range(0..=64)?,
        254 => right + 1,
        253 => right.saturating_sub(1),
        _ => right,
    })
}

/// A product that a small buffer can have.
pub(super) fn product(sizes: &[usize]) -> usize {
    sizes.iter().fold(1usize, |product, &size| product.saturating_mul(size))
}

/// What numbers may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Numbers {
    /// Finite, and at most 8.
    Mild,
    /// These, infinities and NaN: no result that is finite in `f64` exceeds `f32`.
    NotFinite,
    /// Any.
    Any,
}

impl Numbers {
    pub(super) fn new(bytes: &mut Unstructured<'_>) -> Result<Self> {
        Ok(match bytes.arbitrary::<u8>()? % 4 {
            0 => Self::Any,
            2 => Self::NotFinite,
            _ => Self::Mild,
        })
    }
}

/// A number.
pub(super) fn number(bytes: &mut Unstructured<'_>, kind: Numbers) -> Result<f32> {
    let byte: u8 = bytes.arbitrary()?;
    Ok(match (byte, kind) {
        (200..=215, Numbers::Any) => SPECIAL[usize::from(byte - 200)],
        (200..=203, Numbers::NotFinite) => SPECIAL[usize::from(byte - 200) % 3 + 4],
        (216..=220, Numbers::Any) => f32::from_bits(bytes.arbitrary()?),
        _ => (f32::from(byte) - 128.0) / 16.0,
    })
}

pub(super) fn numbers(bytes: &mut Unstructured<'_>, kind: Numbers, right: usize) -> Result<Vec<f32>> {
    let length = length(bytes, right)?;
    (0..length).map(|_| number(bytes, kind)).collect()
}

/// Ids, mostly below `limit`.
pub(super) fn ids(bytes: &mut Unstructured<'_>, right: usize, limit: usize) -> Result<Vec<u32>> {
    let id = |bytes: &mut Unstructured<'_>| match bytes.arbitrary::<u8>()? {
        255 => bytes.arbitrary(),
        id => Ok(u32::from(id) % limit.clamp(1, 1 << 20) as u32),
    };
    let length = length(bytes, right)?;
    (0..length).map(|_| id(bytes)).collect()
}

/// Offsets, mostly valid ones.
pub(super) fn jagged(bytes: &mut Unstructured<'_>, users: usize) -> Result<Option<Jagged>> {
    let mut offsets = vec![0u64];
    for _ in 0..users {
        let next = match bytes.arbitrary::<u8>()? {
            255 => bytes.arbitrary()?,
            length => offsets[offsets.len() - 1].saturating_add(u64::from(length % 9)),
        };
        offsets.push(next);
    }
    let rows = offsets.last().map_or(0, |&last| last.min(4096) as usize) + bytes.int_in_range(0..=2)?;
    Ok(Jagged::new(&offsets, rows).ok())
}

pub(super) fn batch(bytes: &mut Unstructured<'_>) -> Result<Option<Batch>> {
    let users = bytes.int_in_range(0..=4)?;
    let (histories, targets) = (jagged(bytes, users)?, jagged(bytes, users)?);
    Ok(histories.zip(targets).and_then(|(histories, targets)| Batch::new(histories, targets).ok()))
}
