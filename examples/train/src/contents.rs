//! What items are about, as frozen rows of 8-bit numbers: MUSE searches in them.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Result, Tensor};

use crate::Outcome;

/// The width of a row.
const WIDTH: usize = 128;

/// The contents of the bundled log's movies.
pub(crate) fn bundled() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/content/movielens.i8")
}

/// A row for each item.
#[derive(Clone)]
pub(crate) struct Contents {
    /// `[items, width]` of `u8`: the bits of 8-bit integers with a sign.
    codes: Tensor,
}

impl Contents {
    /// Reads a file of 128 bytes for each item, 8-bit integers with a sign, items in the order in which the log first names them.
    ///
    /// # Errors
    /// If the file cannot be read, is not as long as that, or has a row of zeros, which has no direction.
    pub(crate) fn open(path: &Path, items: usize) -> Outcome<Self> {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        if bytes.len() != items * WIDTH {
            return Err(format!(
                "{}: expected {WIDTH} bytes for each of the log's {items} items, got {} bytes",
                path.display(),
                bytes.len()
            )
            .into());
        }
        if let Some(item) = bytes.chunks_exact(WIDTH).position(|row| row.iter().all(|&x| x == 0)) {
            return Err(
                format!("{}: item {item} has a row of zeros, which is like nothing", path.display()).into()
            );
        }
        Ok(Self::new(bytes, items, WIDTH)?)
    }

    /// Rows of 8-bit integers with a sign.
    pub(crate) fn new(codes: Vec<u8>, items: usize, width: usize) -> Result<Self> {
        Ok(Self { codes: Tensor::from_vec(codes, (items, width), &Device::Cpu)? })
    }

    /// The width of a row.
    pub(crate) fn width(&self) -> Result<usize> {
        self.codes.dim(1)
    }

    /// The rows of these items, `[ids, width]` of `u8`.
    pub(crate) fn codes(&self, ids: &Tensor) -> Result<Tensor> {
        self.codes.index_select(ids, 0)
    }

    /// The rows of these items as numbers, `[ids, width]`.
    pub(crate) fn numbers(&self, ids: &Tensor) -> Result<Tensor> {
        let bits = self.codes(ids)?.to_dtype(DType::F32)?;
        // 128 and more are negative.
        let negative = bits.ge(128.0)?.to_dtype(DType::F32)?;
        bits.sub(&(negative * 256.0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_contents_are_those_of_the_bundled_log() {
        let log = crate::data::Log::movielens().unwrap();
        let contents = Contents::open(&bundled(), log.items).unwrap();
        let ids = Tensor::from_slice(&[0u32, 9065], 2, &Device::Cpu).unwrap();
        let rows = contents.numbers(&ids).unwrap().to_vec2::<f32>().unwrap();
        for row in rows {
            // Each row is scaled so that its largest number is 127.
            assert_eq!(row.iter().fold(0f32, |most, x| most.max(x.abs())), 127.0);
        }
        let error = Contents::open(&bundled(), 9000).err().unwrap().to_string();
        assert!(error.contains("9000 items, got 1160448 bytes"), "{error}");
    }

    #[test]
    fn bits_are_integers_with_a_sign() {
        let contents = Contents::new([0i8, 1, 127, -1, -127, -128].map(|x| x as u8).to_vec(), 2, 3).unwrap();
        let ids = Tensor::from_slice(&[1u32, 0], 2, &Device::Cpu).unwrap();
        let rows = contents.numbers(&ids).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(rows, [[-1.0, -127.0, -128.0], [0.0, 1.0, 127.0]]);
    }
}
