//! The reference's gradients: against central differences of the reference's forward pass, and against published ones.

mod decoupled;
mod din;
mod interest_channels;
mod lookup;
mod sdim;
mod selected;
mod selected_tables;
mod target_attention;
mod tin;
mod update_rows;

use longseq_check::golden::Golden;

/// The step of a difference. Inputs are multiples of 2⁻⁸ below 2, so that their sum with it is an `f32`. The error of a central
/// difference is about the square of the step, 4e-9, plus the rounding of `f64` divided by it, 1e-12.
const STEP: f32 = 1.0 / 16384.0;

/// How far a gradient may be from a difference, relative to the largest of the tensor (and to 1, of gradients that are small).
const DIFFERENCE: f64 = 1e-6;

/// How far a published gradient may be from ours, relative to the largest of the tensor: they computed in `f32`, in several passes.
const PUBLISHED: f64 = 1e-5;

/// Numbers from a seed: multiples of 2⁻⁸ from -1 to 1.
struct Numbers(u64);

impl Numbers {
    /// The next 31 bits (a linear congruence with Knuth's constants).
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn next(&mut self) -> f32 {
        (self.bits() % 513) as f32 / 256.0 - 1.0
    }

    fn f32(&mut self, length: usize) -> Vec<f32> {
        (0..length).map(|_| self.next()).collect()
    }

    fn f64(&mut self, length: usize) -> Vec<f64> {
        self.f32(length).into_iter().map(f64::from).collect()
    }

    fn ids(&mut self, length: usize, below: u32) -> Vec<u32> {
        (0..length).map(|_| (self.bits() % u64::from(below)) as u32).collect()
    }
}

/// A named tensor of the inputs, to be changed.
type Tensor<'a> = (&'static str, &'a mut Vec<f32>);

/// Compares gradients with central differences of `loss` for every number of every tensor that `tensors` names.
fn compare_with_differences<I>(
    inputs: &mut I,
    tensors: fn(&mut I) -> Vec<Tensor<'_>>,
    loss: impl Fn(&I) -> f64,
    gradients: &[(&str, Vec<f64>)],
) -> Result<(), String> {
    let names: Vec<&str> = tensors(inputs).iter().map(|tensor| tensor.0).collect();
    assert_eq!(names, gradients.iter().map(|gradient| gradient.0).collect::<Vec<_>>());
    for (place, (name, gradient)) in gradients.iter().enumerate() {
        let length = tensors(inputs)[place].1.len();
        let mut at = |index: usize, change: f32| {
            let value = &mut tensors(inputs)[place].1[index];
            let before = *value;
            *value += change;
            assert_eq!(*value - before, change, "{name}[{index}]: {before} + {change} is not an f32");
            let loss = loss(inputs);
            tensors(inputs)[place].1[index] = before;
            loss
        };
        let difference = |index| (at(index, STEP) - at(index, -STEP)) / (2.0 * f64::from(STEP));
        let differences: Vec<f64> = (0..length).map(difference).collect();
        compare(name, gradient, &differences, DIFFERENCE, 1.0)?;
    }
    Ok(())
}

/// Compares a gradient with another, within `tolerance` of the largest number of the other or of `least`.
fn compare(name: &str, got: &[f64], expected: &[f64], tolerance: f64, least: f64) -> Result<(), String> {
    if got.len() != expected.len() {
        return Err(format!("{name}: {} numbers for {}", got.len(), expected.len()));
    }
    let largest = expected.iter().fold(least, |largest, x| largest.max(x.abs()));
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (got - expected).abs();
        if error.is_nan() || error > tolerance * largest {
            return Err(format!("{name}[{index}]: {got} for {expected} (the largest: {largest})"));
        }
    }
    Ok(())
}

/// Compares a gradient with that of a golden file.
#[track_caller]
fn assert_published(golden: &Golden, name: &str, got: &[f64]) {
    assert_published_beside(golden, name, got, 0.0);
}

/// The same, where rounding errors are relative to `least` even if every number is smaller.
#[track_caller]
fn assert_published_beside(golden: &Golden, name: &str, got: &[f64], least: f64) {
    compare(name, got, &golden.f64(name), PUBLISHED, least).unwrap();
}

/// `⟨a, b⟩`: the loss whose gradient to `a` is `b`.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The rows of a jagged buffer with `tail` rows of nobody.
fn jagged(lengths: &[usize], tail: usize) -> longseq::Jagged {
    let exact = longseq::Jagged::from_lengths(lengths).expect("lengths");
    let offsets = exact.offsets().expect("one user after the other");
    longseq::Jagged::new(offsets, exact.rows() + tail).expect("offsets")
}

fn batch(histories: &[usize], targets: &[usize], tail: usize) -> longseq::Batch {
    longseq::Batch::new(jagged(histories, tail), jagged(targets, tail)).expect("a batch")
}

/// The argument of a shape error.
#[track_caller]
fn shape_argument<T: std::fmt::Debug>(result: longseq::Result<T>) -> &'static str {
    match result.unwrap_err() {
        longseq::Error::Shape { argument, .. } => argument,
        other => panic!("{other}"),
    }
}

/// A sparse gradient as a table of `rows` rows; checks its form.
#[track_caller]
fn dense(gradient: &longseq::reference::SparseGradientReference, rows: usize, width: usize) -> Vec<f64> {
    assert!(gradient.ids.is_sorted_by(|a, b| a < b), "{:?}", gradient.ids);
    assert_eq!(gradient.rows.len(), gradient.ids.len() * width);
    let mut dense = vec![0.0; rows * width];
    for (row, &id) in gradient.rows.chunks(width).zip(&gradient.ids) {
        dense[id as usize * width..(id as usize + 1) * width].copy_from_slice(row);
    }
    dense
}
