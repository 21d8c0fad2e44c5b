//! Signatures where nothing is rounded: every bit must be the reference's.

use longseq::*;

use crate::by_dtype;
use crate::case::{Failure, Rules};
use crate::data::{self, Data};
use crate::mutant::{Fault, Mutant};

/// Rows, width, groups, bits.
const SHAPES: [(usize, usize, usize, usize); 6] = [
    (5000, 64, 16, 3),
    (1000, 128, 32, 3),
    (2000, 16, 8, 10),
    (500, 33, 5, 1),
    (300, 257, 3, 7),
    (100, 4, 520, 2),
];

/// Signatures of rows of small whole numbers under rotations of small whole numbers. Every sum of their products is exact in `f32`, in any
/// order, so no bit is left to rounding; some sums are 0 though their terms are not, and make no bit.
fn check_rows<B: Backend, T: Element>(backend: &B, op: &Sdim, count: usize) -> Result<(), Failure> {
    let mut rng = data::rng(3);
    let mut rows = data::rows::<T>(&mut rng, Data::Scaled(2.0), count, op.width);
    rows.iter_mut().for_each(|x| *x = T::from_f32(x.to_f32().round()));
    let mut rotations = op.rotations(5)?;
    rotations.iter_mut().for_each(|r| *r = (2.0 * *r).round());
    let expected = reference::sdim_signatures(op, &rows, &rotations)?;
    let (rows, rotations) = (backend.upload(&rows)?, backend.upload(&rotations)?);
    let mut words = backend.upload(&vec![u16::MAX; expected.len()])?;
    let out = backend.view_mut(&mut words);
    backend.sdim_signatures_into(op, backend.view(&rows), backend.view(&rotations), out)?;
    let got = backend.download(backend.view(&words))?;
    let Some(i) = got.iter().zip(&expected).position(|(&got, &expected)| u32::from(got) != expected) else {
        return Ok(());
    };
    let (row, group, got, expected) = (i / op.groups, i % op.groups, got[i], expected[i]);
    let dtype = T::DTYPE;
    Err(Failure::new(format!(
        "{op:?}, {dtype:?}: row {row}, group {group}: {got:#b}, expected {expected:#b}"
    )))
}

fn check_shapes<B: Backend>(backend: &B, rules: Rules) -> Result<(), Failure> {
    for (count, width, groups, bits) in SHAPES {
        // Software devices take long for many rows.
        let count = if rules.sampled { count.div_ceil(10) } else { count };
        let op = Sdim::new(width).with_groups(groups, bits);
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            by_dtype!(dtype, T => check_rows::<B, T>(backend, &op, count))?;
        }
    }
    Ok(())
}

pub(super) fn hashes_whole_numbers_exactly<B: Backend>(backend: &B, rules: Rules) {
    check_shapes(backend, rules).unwrap_or_else(|failure| panic!("{failure}"));
}

/// # Panics
/// Where signatures that differ in their bits pass.
pub(super) fn wrong_bits_are_caught() {
    for fault in [Fault::ZeroIsPositive, Fault::BitsReversed] {
        assert!(check_shapes(&Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed");
    }
}
