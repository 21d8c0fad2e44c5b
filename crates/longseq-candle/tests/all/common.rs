//! Numbers to test with, and comparisons.

use candle_core::{DType, Device, Result, Tensor, Var};

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

/// A tensor of them.
pub(crate) fn random(shape: &[usize], seed: u64) -> Result<Tensor> {
    Tensor::from_vec(numbers(shape.iter().product(), seed), shape, &Device::Cpu)
}

/// Ids below `rows`.
pub(crate) fn ids(shape: &[usize], rows: u32, seed: u64) -> Result<Tensor> {
    let ids =
        numbers(shape.iter().product(), seed).into_iter().map(|x| ((x + 1.0) / 2.0 * rows as f32) as u32);
    Tensor::from_vec(ids.map(|id| id.min(rows - 1)).collect::<Vec<_>>(), shape, &Device::Cpu)
}

/// All elements, in `f64`.
pub(crate) fn flat(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
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

/// A loss that depends on every number of a tensor in another way.
pub(crate) fn loss(out: &Tensor) -> Result<Tensor> {
    let weights = random(out.dims(), 99)?.to_dtype(out.dtype())?;
    out.mul(&weights)?.sum_all()
}

/// Gradients of the loss of `f` by each of its inputs, in `f64`.
pub(crate) fn gradients(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<Vec<Vec<f64>>> {
    let vars: Vec<Var> = inputs.iter().map(Var::from_tensor).collect::<Result<_>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let grads = loss(&f(&tensors)?)?.backward()?;
    let zeros = |var: &Var| var.zeros_like();
    vars.iter().map(|var| flat(&grads.get(var).cloned().map_or_else(|| zeros(var), Ok)?)).collect()
}

/// The same of some of the numbers, from differences of the loss, whose products are added in `f64`: for a step of `h`, right to about `h² + ε/h`, with the rounding error `ε` of
/// the inputs' type.
pub(crate) fn differences(
    inputs: &[Tensor],
    h: f64,
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<Vec<Vec<f64>>> {
    let value = |inputs: &[Tensor]| -> Result<f64> {
        let out = f(inputs)?;
        let weights = flat(&random(out.dims(), 99)?)?;
        Ok(flat(&out)?.iter().zip(weights).map(|(x, w)| x * w).sum())
    };
    let mut all = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        let numbers = flat(input)?;
        let mut grads = Vec::new();
        for place in moved_places(numbers.len()) {
            let moved = |by: f64| -> Result<(f64, f64)> {
                let mut numbers = numbers.clone();
                numbers[place] += by;
                let moved = Tensor::from_vec(numbers, input.shape(), &Device::Cpu)?;
                let mut inputs = inputs.to_vec();
                inputs[index] = moved.to_dtype(input.dtype())?;
                // Where rounding left it.
                Ok((flat(&inputs[index])?[place], value(&inputs)?))
            };
            let ((left, low), (right, high)) = (moved(-h)?, moved(h)?);
            grads.push((high - low) / (right - left));
        }
        all.push(grads);
    }
    Ok(all)
}

/// Which of an input's numbers are moved: 16 at most, because each takes two forward passes.
fn moved_places(count: usize) -> impl Iterator<Item = usize> {
    (0..count).step_by(count.div_ceil(16).max(1))
}

/// Compares gradients with the differences of the numbers that were moved.
#[track_caller]
pub(crate) fn assert_differences(what: &str, gradients: &[Vec<f64>], near: &[Vec<f64>], bound: f64) {
    for (index, (got, near)) in gradients.iter().zip(near).enumerate() {
        let moved: Vec<f64> = moved_places(got.len()).map(|place| got[place]).collect();
        assert_near(&format!("{what}: differences of {index}"), &moved, near, bound);
    }
}

/// Compares result and gradients of ours with candle's of the same in its operations, in `f64`.
pub(crate) fn check_eager(
    what: &str,
    inputs: &[Tensor],
    ours: impl Fn(&[Tensor]) -> Result<Tensor>,
    eager: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<()> {
    let wide: Vec<Tensor> = inputs.iter().map(|input| input.to_dtype(DType::F64)).collect::<Result<_>>()?;
    assert_near(&format!("{what}: out"), &flat(&ours(inputs)?)?, &flat(&eager(&wide)?)?, 1e-5);
    for (index, (got, exact)) in gradients(inputs, ours)?.iter().zip(gradients(&wide, eager)?).enumerate() {
        assert_near(&format!("{what}: gradient {index}"), got, &exact, 2e-5);
    }
    Ok(())
}

/// The same, and with differences: for smooth functions.
pub(crate) fn check_gradients(
    what: &str,
    inputs: &[Tensor],
    ours: impl Fn(&[Tensor]) -> Result<Tensor>,
    eager: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<()> {
    check_eager(what, inputs, &ours, eager)?;
    let near = differences(inputs, 1e-2, &ours)?;
    assert_differences(what, &gradients(inputs, &ours)?, &near, 5e-3);
    Ok(())
}

/// The same for functions that choose, or have corners: the differences are those of `eager`, in `f64` and by so small a step that nothing else is chosen.
/// What a search chooses must be fixed in `eager`.
pub(crate) fn check_chosen(
    what: &str,
    inputs: &[Tensor],
    ours: impl Fn(&[Tensor]) -> Result<Tensor>,
    eager: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<()> {
    check_eager(what, inputs, &ours, &eager)?;
    let wide: Vec<Tensor> = inputs.iter().map(|input| input.to_dtype(DType::F64)).collect::<Result<_>>()?;
    let near = differences(&wide, 1e-5, eager)?;
    assert_differences(what, &gradients(inputs, &ours)?, &near, 2e-5);
    Ok(())
}
