//! When two results count as equal.

use std::cell::RefCell;

use longseq::{DType, Element};

use crate::case::{Failure, Rules};
use crate::data::largest_of;

/// Half the distance from 1 to the next `f32`: the relative error of one rounding.
pub const U: f64 = 1.0 / (1u64 << 24) as f64;

/// The most that the squared error may be of the squared reference, both summed over a whole output, for `f32`
/// (a relative root mean square of 1e-5).
pub const NMSE: f64 = 1e-10;

/// How many mismatches a failure prints.
const PRINTED: usize = 10;

/// The most `f32` additions in the chain of any term of a sum over `length`, on a device that adds up blocks of 1024 and
/// then the blocks; each costs a rounding of at most `U` of the sum of magnitudes (Higham, "Accuracy and
/// Stability of Numerical Algorithms", 2nd ed., §4.2).
pub fn additions(length: usize) -> f64 {
    (length.min(1024) + length.div_ceil(1024)) as f64
}

/// The most roundings that a sum over any `length` may cost: sums are computed by parts or by pairs. (In a chain, the sum of a
/// million equal numbers is off by a hundred thousand.)
pub fn roundings(length: usize) -> f64 {
    length.min(400) as f64
}

/// The relative error of one rounding to a storage type, and the absolute error where it is subnormal.
pub fn rounding(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::F16 => (2f64.powi(-11), 2f64.powi(-25)),
        DType::Bf16 => (2f64.powi(-8), 2f64.powi(-134)),
        _ => (0.0, f64::from(f32::MIN_POSITIVE)),
    }
}

/// One comparison of an output with the reference, as [`recorded`] returns it.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The output.
    pub name: String,
    /// The number of elements compared.
    pub elements: usize,
    /// The largest error among elements whose reference is finite.
    pub largest_error: f64,
    /// The largest ratio of an element's error to the error allowed for it.
    pub share_of_bound: f64,
    /// The sum of squared errors over the sum of squared references; `None` where it is not checked.
    pub nmse: Option<f64>,
}

thread_local! {
    static RECORD: RefCell<Option<Vec<Comparison>>> = const { RefCell::new(None) };
}

/// Runs `work` and returns, with its result, the comparisons that it made on this thread.
pub fn recorded<R>(work: impl FnOnce() -> R) -> (R, Vec<Comparison>) {
    RECORD.set(Some(Vec::new()));
    let result = work();
    (result, RECORD.take().unwrap_or_default())
}

/// How close a result must come.
#[derive(Debug, Clone)]
pub struct Bound {
    /// The error that `f32` arithmetic may make, for each element or, with one number, for all.
    pub absolute: Vec<f64>,
    /// Check the squared error of the whole output too: for data without cancellation.
    pub nmse: bool,
    /// The most that it may be of the squared reference.
    pub most_nmse: f64,
    /// Where the reference is infinite, NaN will do: a weight may be 0 in `f32` alone.
    pub any_infinity: bool,
}

impl Bound {
    /// The same bound for every element.
    pub fn uniform(absolute: f64, nmse: bool) -> Self {
        Self::of_each(vec![absolute], nmse)
    }

    /// A bound for each element.
    pub fn of_each(absolute: Vec<f64>, nmse: bool) -> Self {
        Self { absolute, nmse, most_nmse: NMSE, any_infinity: false }
    }

    /// Sets the most that the squared error may be of the squared reference.
    pub fn with_most_nmse(self, most_nmse: f64) -> Self {
        Self { most_nmse, ..self }
    }

    /// Sets whether NaN will do where the reference is infinite.
    pub fn with_any_infinity(self, any_infinity: bool) -> Self {
        Self { any_infinity, ..self }
    }
}

/// Compares a floating-point output with the reference.
///
/// A storage type narrower than `f32` may add twice the error of rounding the exact result to it once, which is the
/// error of the plainest implementation that stores it.
///
/// # Errors
/// The first mismatches.
pub fn compare<T: Element>(
    name: &str,
    got: &[T],
    reference: &[f64],
    bound: &Bound,
    rules: Rules,
) -> Result<(), Failure> {
    if got.len() != reference.len() {
        return Err(Failure::new(format!("{name}: {} elements instead of {}", got.len(), reference.len())));
    }
    let (relative, subnormal) = rounding(T::DTYPE);
    let (mut mismatches, mut wrong) = (String::new(), 0);
    let (mut squared_error, mut squared_reference) = (0.0, 0.0);
    let (mut largest_error, mut share_of_bound) = (0.0f64, 0.0f64);
    for (i, (got, &reference)) in got.iter().zip(reference).enumerate() {
        let got = f64::from(got.to_f32());
        let absolute = bound.absolute[if bound.absolute.len() == 1 { 0 } else { i }];
        let allowed = absolute + 2.0 * (relative * reference.abs() + subnormal);
        let agrees = if reference.is_nan() {
            got.is_nan() || !rules.nan
        } else if reference.is_infinite() {
            got == reference || (bound.any_infinity || !rules.nan) && !got.is_finite()
        } else if got == f64::INFINITY.copysign(reference) {
            // Right where the storage type ends, and where it is in reach of the error allowed.
            let end = f64::from(largest_of(T::DTYPE)) * (1.0 + relative);
            reference.abs() + allowed >= end
        } else {
            let error = (got - reference).abs();
            squared_error += error.powi(2);
            squared_reference += reference.powi(2);
            largest_error = largest_error.max(error);
            share_of_bound = share_of_bound.max(if error == 0.0 { 0.0 } else { error / allowed });
            error <= allowed
        };
        if !agrees {
            wrong += 1;
            if wrong <= PRINTED {
                mismatches +=
                    &format!("\n  [{i}] {got:e}, reference {reference:e}, allowed error {allowed:.1e}");
            }
        }
    }
    RECORD.with_borrow_mut(|record| {
        if let Some(comparisons) = record {
            let nmse = bound.nmse.then(|| squared_error / squared_reference.max(f64::MIN_POSITIVE));
            let (name, elements) = (name.to_owned(), got.len());
            comparisons.push(Comparison { name, elements, largest_error, share_of_bound, nmse });
        }
    });
    if wrong > 0 {
        return Err(Failure::new(format!("{name}: {wrong} of {} elements differ:{mismatches}", got.len())));
    }
    let allowed = bound.most_nmse + (2.0 * relative).powi(2);
    if bound.nmse && squared_error > allowed * squared_reference + f64::from(f32::MIN_POSITIVE) {
        let nmse = squared_error / squared_reference;
        return Err(Failure::new(format!(
            "{name}: normalised mean squared error {nmse:.1e}, above {allowed:.1e}"
        )));
    }
    Ok(())
}

/// Compares integers exactly.
///
/// # Errors
/// The first mismatch.
pub fn compare_exact<T: PartialEq + std::fmt::Debug>(
    name: &str,
    got: &[T],
    reference: &[T],
) -> Result<(), Failure> {
    match got.iter().zip(reference).position(|(got, reference)| got != reference) {
        _ if got.len() != reference.len() => {
            Err(Failure::new(format!("{name}: {} elements instead of {}", got.len(), reference.len())))
        }
        None => Ok(()),
        Some(i) => Err(Failure::new(format!("{name}[{i}]: {:?}, reference {:?}", got[i], reference[i]))),
    }
}
