//! When two results count as equal.

use longseq::{DType, Element};

use super::{Failure, Rules};

/// Half the distance from 1 to the next `f32`: the relative error of one rounding.
pub const U: f64 = 1.0 / (1u64 << 24) as f64;

/// The most that the squared error may be of the squared reference, both summed over a whole output, for `f32`
/// (a relative root mean square of 1e-5).
pub const NMSE: f64 = 1e-10;

/// How many mismatches a failure prints.
const PRINTED: usize = 10;

/// `f32` additions that one number of a sum over `length` goes through, at most, in a device that adds up blocks of
/// 1024 and then the blocks; each costs a rounding of at most `U` of the sum of magnitudes (Higham, "Accuracy and
/// Stability of Numerical Algorithms", 2nd ed., §4.2).
pub fn additions(length: usize) -> f64 {
    (length.min(1024) + length.div_ceil(1024)) as f64
}

/// The relative error of one rounding to a storage type, and the absolute error where it is subnormal.
pub fn rounding(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::F16 => (2f64.powi(-11), 2f64.powi(-25)),
        DType::Bf16 => (2f64.powi(-8), 0.0),
        _ => (0.0, f64::from(f32::MIN_POSITIVE)),
    }
}

/// How close a result must come.
pub struct Bound {
    /// The error that `f32` arithmetic may make, for each element or, with one number, for all.
    pub absolute: Vec<f64>,
    /// Check the squared error of the whole output too: for data without cancellation.
    pub nmse: bool,
}

impl Bound {
    /// The same bound for every element.
    pub fn uniform(absolute: f64, nmse: bool) -> Self {
        Self { absolute: vec![absolute], nmse }
    }
}

/// Compares a floating-point output with the reference.
///
/// A storage type narrower than `f32` may add twice the error of rounding the exact result to it once, which is the
/// error of the plainest implementation that stores it.
pub fn compare<T: Element>(
    name: &str,
    got: &[T],
    reference: &[f64],
    bound: &Bound,
    rules: Rules,
) -> Result<(), Failure> {
    if got.len() != reference.len() {
        return Err(Failure(format!("{name}: {} elements instead of {}", got.len(), reference.len())));
    }
    let (relative, subnormal) = rounding(T::DTYPE);
    let (mut mismatches, mut wrong) = (String::new(), 0);
    let (mut squared_error, mut squared_reference) = (0.0, 0.0);
    for (i, (got, &reference)) in got.iter().zip(reference).enumerate() {
        let got = f64::from(got.to_f32());
        let absolute = bound.absolute[if bound.absolute.len() == 1 { 0 } else { i }];
        let allowed = absolute + 2.0 * (relative * reference.abs() + subnormal);
        let agrees = if reference.is_nan() {
            got.is_nan() || !rules.nan
        } else if reference.is_infinite() {
            got == reference
        } else {
            squared_error += (got - reference).powi(2);
            squared_reference += reference.powi(2);
            (got - reference).abs() <= allowed
        };
        if !agrees {
            wrong += 1;
            if wrong <= PRINTED {
                mismatches +=
                    &format!("\n  [{i}] {got:e}, reference {reference:e}, allowed error {allowed:.1e}");
            }
        }
    }
    if wrong > 0 {
        return Err(Failure(format!("{name}: {wrong} of {} elements differ:{mismatches}", got.len())));
    }
    let allowed = NMSE + (2.0 * relative).powi(2);
    if bound.nmse && squared_error > allowed * squared_reference + f64::from(f32::MIN_POSITIVE) {
        let nmse = squared_error / squared_reference;
        return Err(Failure(format!(
            "{name}: normalised mean squared error {nmse:.1e}, above {allowed:.1e}"
        )));
    }
    Ok(())
}

/// Compares integers exactly.
pub fn compare_exact<T: PartialEq + std::fmt::Debug>(
    name: &str,
    got: &[T],
    reference: &[T],
) -> Result<(), Failure> {
    match got.iter().zip(reference).position(|(got, reference)| got != reference) {
        _ if got.len() != reference.len() => {
            Err(Failure(format!("{name}: {} elements instead of {}", got.len(), reference.len())))
        }
        None => Ok(()),
        Some(i) => Err(Failure(format!("{name}[{i}]: {:?}, reference {:?}", got[i], reference[i]))),
    }
}
