//! Exponential and sigmoid of sixteen numbers at a time.

use super::lanes::Lanes;

/// `1.5·2²³ + 127`. An `f32` of that size has no fraction bits, and its lowest bit counts ones: adding this number rounds
/// to an integer, and leaves the integer plus the exponent's bias of 127 in the lowest bits.
const ROUND: f32 = 12_582_912.0 + 127.0;

/// `2^f ≈ 1 + f·Q(f)` for `|f| ≤ 1/2`. `Q` interpolates at the Chebyshev nodes; the relative error of `2^f` is 1e-8.
#[expect(clippy::approx_constant, reason = "the first coefficient is close to ln 2, but not equal")]
const Q: [f32; 6] =
    [0.693_147_2, 0.240_226_5, 0.055_503_57, 0.009_618_083, 0.001_339_086_4, 0.000_154_531_63];

/// For arguments below, the exact result is subnormal, and [`exp`] gives 0.
const LOWEST: f32 = -87.336_54;

/// The largest argument of [`exp`].
const HIGHEST: f32 = 88.0;

/// `exp(x)` with a relative error of at most `(2 + 1.25·|x|)·2⁻²⁴` where the result is a normal number; 0 where it would be
/// subnormal. NaN stays NaN. For `x` above 88 the result is meaningless.
///
/// The error: `x·log₂e` is rounded twice (the constant and the product), which gives `1.25·|x|·2⁻²⁴` in the exponent; the
/// polynomial contributes `2⁻²⁶`, and its last operations round numbers of at most 0.42 and √2. An error that grows with
/// `|x|` is acceptable for weights: rounding the score once more has the same effect.
#[inline(always)]
pub(in crate::cpu) fn exp<L: Lanes>(l: L, x: L::V) -> L::V {
    let y = l.mul(x, l.splat(std::f32::consts::LOG2_E));
    let shifted = l.add(y, l.splat(ROUND));
    let f = l.sub(y, l.sub(shifted, l.splat(ROUND)));
    let mut q = l.splat(Q[5]);
    for coefficient in [Q[4], Q[3], Q[2], Q[1], Q[0], 1.0] {
        q = l.mul_add(q, f, l.splat(coefficient));
    }
    // A product, because adding the bits would turn some NaNs into numbers.
    let power = l.low_bits_to_exponent(shifted);
    l.if_less(x, l.splat(LOWEST), l.splat(0.0), l.mul(q, power))
}

/// `1/(1 + exp(−x))` with an absolute error of at most `2⁻²³`, and 0 for `x` below -88: a product with `x` goes to 0. NaN
/// stays NaN.
#[inline(always)]
pub(in crate::cpu) fn sigmoid<L: Lanes>(l: L, x: L::V) -> L::V {
    let (zero, one) = (l.splat(0.0), l.splat(1.0));
    let inverse = l.add(one, exp(l, l.sub(zero, x)));
    l.if_less(x, l.splat(-HIGHEST), zero, l.div(one, inverse))
}

/// [`sigmoid`] of `x` and of `-x`, whose sum is 1, from one exponential. Where one is small it has the relative error of [`exp`].
#[inline(always)]
pub(in crate::cpu) fn sigmoids<L: Lanes>(l: L, x: L::V) -> [L::V; 2] {
    let (zero, one) = (l.splat(0.0), l.splat(1.0));
    let exponential = exp(l, l.sub(zero, x));
    let p = l.if_less(x, l.splat(-HIGHEST), zero, l.div(one, l.add(one, exponential)));
    // A difference from 1 is exact up to 1/2; the exponential is below 1 for positive numbers alone.
    let rest = l.if_less(x, zero, l.sub(one, p), l.mul(exponential, p));
    [p, rest]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::vector::instructions::{Instructions, Kernel};
    use crate::cpu::vector::lanes::{LANES, Row};

    struct Exp(Row);

    impl Kernel for Exp {
        type Output = [Row; 4];

        #[inline(always)]
        fn run<L: Lanes>(self, l: L) -> [Row; 4] {
            let mut out = [[0.0; LANES]; 4];
            let x = l.load(&self.0);
            let [p, rest] = sigmoids(l, x);
            for (out, numbers) in out.iter_mut().zip([exp(l, x), sigmoid(l, x), p, rest]) {
                l.store(out, numbers);
            }
            out
        }
    }

    /// Every 997th `f32`: the tests of the library are not optimised.
    const STEP: u32 = 997;

    #[test]
    fn exp_and_sigmoid_are_within_their_error_bounds() {
        for instructions in Instructions::available() {
            let mut worst = [0.0f64; 3];
            for start in (0..=u32::MAX).step_by(STEP as usize * LANES) {
                let xs: Row = std::array::from_fn(|i| f32::from_bits(start.wrapping_add(STEP * i as u32)));
                let [exps, sigmoids, ps, rests] = instructions.run(Exp(xs));
                let pairs = ps.into_iter().zip(rests);
                for (((&x, got), sigmoid), (p, rest)) in xs.iter().zip(exps).zip(sigmoids).zip(pairs) {
                    let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
                    if x.is_nan() {
                        assert!([got, sigmoid, p, rest].iter().all(|x| x.is_nan()));
                        continue;
                    }
                    assert_eq!(p.to_bits(), sigmoid.to_bits(), "sigmoid({x})");
                    let exact_rest = 1.0 / (1.0 + f64::from(x).exp());
                    let bound = if x < 0.0 { 4.0 } else { 4.0 + 1.25 * f64::from(x) } * 2f64.powi(-24);
                    let error = (f64::from(rest) - exact_rest).abs() - f64::from(f32::MIN_POSITIVE);
                    worst[2] = worst[2].max(error / (exact_rest * bound));
                    worst[1] = worst[1].max((f64::from(sigmoid) - exact).abs() * 2f64.powi(23));
                    assert!(x >= -HIGHEST || sigmoid == 0.0, "sigmoid({x}) = {sigmoid}");
                    let exact = f64::from(x).exp();
                    if x < LOWEST {
                        assert!(
                            got == 0.0 && exact < 1.001 * f64::from(f32::MIN_POSITIVE),
                            "exp({x}) = {got}"
                        );
                    } else if x <= HIGHEST {
                        let bound = (2.0 + 1.25 * f64::from(x).abs()) * 2f64.powi(-24);
                        worst[0] = worst[0].max((f64::from(got) / exact - 1.0).abs() / bound);
                    }
                }
            }
            assert!(worst.iter().all(|&share| share <= 1.0), "{instructions:?}: {worst:?} of the bounds");
        }
    }
}
