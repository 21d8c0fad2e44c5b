//! Numbers to test with, and comparisons.

use burn::tensor::kind::Basic;
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use longseq_burn::longseq::Result;

/// Numbers between -1 and 1 that look random, the same for the same seed (SplitMix64).
pub(crate) fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// An input of a function that is tested: its numbers in a row, which may be a leaf of a graph, and its shape.
#[derive(Clone)]
pub(crate) struct Given {
    pub(crate) numbers: Tensor<1>,
    shape: Vec<usize>,
}

impl Given {
    pub(crate) fn new(numbers: Vec<f32>, shape: &[usize]) -> Self {
        let data = TensorData::new(numbers, [shape.iter().product::<usize>()]);
        Self { numbers: Tensor::from_data(data, (&Device::flex(), DType::F32)), shape: shape.to_vec() }
    }

    /// The tensor, of its rank.
    pub(crate) fn tensor<const D: usize>(&self) -> Tensor<D> {
        let shape: [usize; D] = self.shape.clone().try_into().expect("the rank");
        self.numbers.clone().reshape(shape)
    }

    pub(crate) fn cast(&self, dtype: FloatDType) -> Self {
        Self { numbers: self.numbers.clone().cast(dtype), shape: self.shape.clone() }
    }

    /// The same as a leaf that gets a gradient.
    pub(crate) fn leaf(&self) -> Self {
        self.leaf_on(&Device::flex())
    }

    /// The same on a device.
    pub(crate) fn leaf_on(&self, device: &Device) -> Self {
        let (data, device) = (self.numbers.to_data(), device.clone().autodiff());
        let numbers = Tensor::<1>::from_data(data, (&device, self.numbers.dtype())).require_grad();
        Self { numbers, shape: self.shape.clone() }
    }

    /// The same in `f64`.
    pub(crate) fn wide(&self) -> Self {
        self.cast(FloatDType::F64)
    }

    fn moved(&self, place: usize, by: f64) -> (f64, Self) {
        let mut numbers: Vec<f32> = self.numbers.to_data().iter().collect();
        numbers[place] = (f64::from(numbers[place]) + by) as f32;
        (numbers[place].into(), Self::new(numbers, &self.shape))
    }
}

/// Random numbers in this shape.
pub(crate) fn random(shape: &[usize], seed: u64) -> Given {
    Given::new(numbers(shape.iter().product(), seed), shape)
}

/// A tensor of integers, of burn's own type of them.
pub(crate) fn ints<const D: usize>(values: Vec<i64>, shape: [usize; D]) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

/// The same of another type.
pub(crate) fn ints_of<const D: usize>(values: Vec<i64>, shape: [usize; D], dtype: DType) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values, shape), (&Device::flex(), dtype))
}

/// Ids below `rows`.
pub(crate) fn ids<const D: usize>(shape: [usize; D], rows: u32, seed: u64) -> Tensor<D, Int> {
    let id = |x: f32| i64::from((((x + 1.0) / 2.0 * rows as f32) as u32).min(rows - 1));
    ints(numbers(shape.iter().product(), seed).into_iter().map(id).collect(), shape)
}

/// All elements, in `f64`.
pub(crate) fn flat<const D: usize, K: Basic>(tensor: &Tensor<D, K>) -> Vec<f64> {
    tensor.to_data().iter().collect()
}

/// All elements of a tensor of integers.
pub(crate) fn flat_ints<const D: usize>(tensor: &Tensor<D, Int>) -> Vec<u32> {
    tensor.to_data().iter().collect()
}

/// A tensor's numbers in a row.
pub(crate) fn row<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let count: usize = tensor.dims().iter().product();
    tensor.reshape([count])
}

/// Offsets of rows of these numbers.
pub(crate) fn offsets(lengths: &[usize]) -> Vec<u32> {
    let mut end = 0;
    std::iter::once(0)
        .chain(lengths.iter().map(|&length| {
            end += length as u32;
            end
        }))
        .collect()
}

/// Checks that two lists differ by no more than `bound` times the largest number (or 1).
#[track_caller]
pub(crate) fn assert_near(what: &str, got: &[f64], exact: &[f64], bound: f64) {
    assert_eq!(got.len(), exact.len(), "{what}");
    let largest = exact.iter().fold(1.0f64, |largest, x| largest.max(x.abs()));
    for (index, (got, exact)) in got.iter().zip(exact).enumerate() {
        let near = (got - exact).abs() <= bound * largest;
        assert!(near, "{what}[{index}]: {got}, exact {exact}, bound {}", bound * largest);
    }
}

/// A loss that depends on every number of a tensor in another way; of 16 bits, in `f32`.
pub(crate) fn loss(out: Tensor<1>) -> Tensor<1> {
    let out = match out.dtype() {
        DType::F64 => out,
        _ => out.cast(FloatDType::F32),
    };
    let [count] = out.dims();
    let data = TensorData::new(numbers(count, 99), [count]);
    let weights = Tensor::<1>::from_data(data, (&out.device(), out.dtype()));
    (out * weights).sum()
}

/// Gradients of the loss of `f` by each of its inputs, in `f64`.
pub(crate) fn gradients(
    inputs: &[Given],
    f: impl Fn(&[Given]) -> Result<Tensor<1>>,
) -> Result<Vec<Vec<f64>>> {
    gradients_on(&Device::flex(), inputs, f)
}

/// The same on a device.
pub(crate) fn gradients_on(
    device: &Device,
    inputs: &[Given],
    f: impl Fn(&[Given]) -> Result<Tensor<1>>,
) -> Result<Vec<Vec<f64>>> {
    let leaves: Vec<Given> = inputs.iter().map(|input| input.leaf_on(device)).collect();
    let grads = loss(f(&leaves)?).backward();
    let of = |leaf: &Given| match leaf.numbers.grad(&grads) {
        Some(grad) => flat(&grad),
        None => vec![0.0; leaf.numbers.dims()[0]],
    };
    Ok(leaves.iter().map(of).collect())
}

/// The same from differences of the loss, whose products are added in `f64`: for a step of `h`, right to about `h² + 1e-6/h`.
pub(crate) fn differences(
    inputs: &[Given],
    h: f64,
    f: impl Fn(&[Given]) -> Result<Tensor<1>>,
) -> Result<Vec<Vec<f64>>> {
    let value = |inputs: &[Given]| -> Result<f64> {
        let out = flat(&f(inputs)?);
        let weights = numbers(out.len(), 99);
        Ok(out.iter().zip(weights).map(|(x, w)| x * f64::from(w)).sum())
    };
    let mut all = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        let mut grads = Vec::new();
        for place in 0..input.numbers.dims()[0] {
            let at = |by: f64| -> Result<(f64, f64)> {
                let (at, moved) = input.moved(place, by);
                let mut inputs = inputs.to_vec();
                inputs[index] = moved;
                Ok((at, value(&inputs)?))
            };
            let ((left, low), (right, high)) = (at(-h)?, at(h)?);
            grads.push((high - low) / (right - left));
        }
        all.push(grads);
    }
    Ok(all)
}

/// Compares result and gradients of ours with burn's of the same in its operations, in `f64`.
pub(crate) fn check_eager(
    what: &str,
    inputs: &[Given],
    ours: impl Fn(&[Given]) -> Result<Tensor<1>>,
    eager: impl Fn(&[Given]) -> Result<Tensor<1>>,
) -> Result<()> {
    let wide: Vec<Given> = inputs.iter().map(Given::wide).collect();
    assert_near(&format!("{what}: out"), &flat(&ours(inputs)?), &flat(&eager(&wide)?), 1e-5);
    for (index, (got, exact)) in gradients(inputs, ours)?.iter().zip(gradients(&wide, eager)?).enumerate() {
        assert_near(&format!("{what}: gradient {index}"), got, &exact, 2e-5);
    }
    Ok(())
}

/// The same, and with differences: for smooth functions.
pub(crate) fn check_gradients(
    what: &str,
    inputs: &[Given],
    ours: impl Fn(&[Given]) -> Result<Tensor<1>>,
    eager: impl Fn(&[Given]) -> Result<Tensor<1>>,
) -> Result<()> {
    check_eager(what, inputs, &ours, eager)?;
    let near = differences(inputs, 1e-2, &ours)?;
    for (index, (got, near)) in gradients(inputs, &ours)?.iter().zip(near).enumerate() {
        assert_near(&format!("{what}: differences of {index}"), got, &near, 5e-3);
    }
    Ok(())
}
