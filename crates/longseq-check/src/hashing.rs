//! Rows hashed while they are encoded, on a CUDA device.

use longseq::*;

use crate::case::Failure;
use crate::data::{self, Data};

/// Rows on which hashing is delicate.
#[derive(Debug, Clone, Copy)]
pub enum Numbers {
    /// Standard normal.
    Normal,
    /// Small integers: sums are zero though their terms are not.
    Whole,
    /// Rows of zeros, rows near the largest and the smallest number, and rows with one that is not finite.
    Extreme,
}

impl Numbers {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Normal, Self::Whole, Self::Extreme];

    fn fill<T: Element>(self, width: usize, rows: &mut [T], rotations: &mut [f32]) {
        match self {
            Self::Normal => {}
            Self::Whole => {
                rows.iter_mut().for_each(|x| *x = T::from_f32(x.to_f32().round()));
                rotations.iter_mut().for_each(|r| *r = r.round());
            }
            Self::Extreme => {
                for (place, row) in rows.chunks_mut(width).enumerate() {
                    let scale = [0.0, 1e-30, 1.0, 1e38, 1e-38, 3e4][place % 6];
                    row.iter_mut().for_each(|x| *x = T::from_f32(x.to_f32().clamp(-3.0, 3.0) * scale));
                    if place % 7 == 0 {
                        row[place % width] = T::from_f32([f32::NAN, f32::INFINITY][place % 2]);
                    }
                }
            }
        }
    }
}

/// [`check_hashing`] of every storage type and all kinds of numbers, where kernels differ by width and bits.
///
/// # Errors
/// The case that differs.
///
/// # Panics
/// Where a call fails.
#[inline(never)]
pub fn check_all(gpu: &Cuda) -> Result<(), Failure> {
    for (count, width, groups, bits) in [(4000, 64, 16, 3), (700, 128, 32, 3), (700, 20, 5, 7)] {
        let op = Sdim::new(width).with_groups(groups, bits);
        for numbers in Numbers::ALL {
            check_hashing::<f32>(gpu, &op, count, numbers)?;
            check_hashing::<half::f16>(gpu, &op, count, numbers)?;
            check_hashing::<half::bf16>(gpu, &op, count, numbers)?;
        }
    }
    Ok(())
}

/// Encoding from rotations gives the same bits as encoding from the signatures that `sdim_signatures` gives for the rows.
///
/// # Errors
/// The case that differs.
///
/// # Panics
/// Where a call fails.
pub fn check_hashing<T: Element>(
    gpu: &Cuda,
    op: &Sdim,
    count: usize,
    numbers: Numbers,
) -> Result<(), Failure> {
    let mut rng = data::rng(2);
    let mut rows = data::rows::<T>(&mut rng, Data::Normal, count, op.width);
    let mut rotations = op.rotations(1).expect("sizes");
    numbers.fill(op.width, &mut rows, &mut rotations);
    let (rows, rotations) = (gpu.upload(&rows).expect("memory"), gpu.upload(&rotations).expect("memory"));
    let mut signatures = gpu.zeros::<u16>(count * op.groups).expect("memory");
    let out = gpu.view_mut(&mut signatures);
    gpu.sdim_signatures_into(op, gpu.view(&rows), gpu.view(&rotations), out).expect("a call");
    let jagged = gpu.jagged(&Jagged::from_lengths(&[count]).expect("a length")).expect("memory");
    let table = |hash| {
        let inputs = SdimEncodeInputs::new(gpu.view(&rows), hash);
        let table = gpu.sdim_encode(op, &jagged, inputs).expect("a call");
        let table = gpu.download(gpu.view(&table)).expect("a download");
        // As bits, with all NaN alike.
        table.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect::<Vec<_>>()
    };
    let (hashed, given) = (Hash::Rotations(gpu.view(&rotations)), Hash::Signatures16(gpu.view(&signatures)));
    if table(hashed) != table(given) {
        return Err(Failure::new(format!("{op:?}, {:?}, {numbers:?}", T::DTYPE)));
    }
    Ok(())
}
