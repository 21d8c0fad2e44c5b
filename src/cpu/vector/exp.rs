//! Exponential and sigmoid of sixteen numbers at a time.

use super::lanes::Lanes;

/// Above, a number in `f32` has no digits behind the point, and its lowest bits count ones: adding this rounds to an
/// integer and leaves it, plus an exponent's bias of 127, in the lowest bits.
const ROUND: f32 = 12_582_912.0 + 127.0;

/// `ln 2` in two parts; the first has few digits, so that its multiples by an exponent are exact.
const LN_2: [f32; 2] = [0.693_359_375, -2.121_944_4e-4];

/// `exp(r) ≈ 1 + r + r²·P(r)` for `|r| ≤ ln(2)/2`: `P` interpolates at the Chebyshev nodes, error 1e-8.
const P: [f32; 5] = [0.5, 0.166_665_78, 0.041_666_556, 0.008_363_173_5, 0.001_392_617_7];

/// Below, `exp` is subnormal and flushed to 0; above, it is taken for infinite.
const RANGE: [f32; 2] = [-87.336_54, 88.376_26];

/// Its exponential comes out as infinite.
const HUGE: f32 = 88.722_84;

/// `exp(x)`: the relative error is at most 2⁻²³ where the result is a normal number. Results below the least normal
/// number are 0, and those within a factor √2 of the largest are infinite. NaN stays NaN.
///
/// The error: reduction and polynomial are wrong by at most 2⁻²⁶ each, and the last three operations round sums of
/// at most 0.42, 0.42 and √2.
#[inline(always)]
pub(in crate::cpu) fn exp<L: Lanes>(l: L, x: L::V) -> L::V {
    let [low, high] = RANGE.map(|bound| l.splat(bound));
    let clamped = l.if_less(high, x, l.splat(HUGE), x);
    let shifted = l.mul_add(clamped, l.splat(std::f32::consts::LOG2_E), l.splat(ROUND));
    let n = l.sub(shifted, l.splat(ROUND));
    let r = l.mul_add(n, l.splat(-LN_2[0]), clamped);
    let r = l.mul_add(n, l.splat(-LN_2[1]), r);
    let mut p = l.splat(P[4]);
    for coefficient in [P[3], P[2], P[1], P[0]] {
        p = l.mul_add(p, r, l.splat(coefficient));
    }
    let p = l.mul_add(l.mul(r, r), p, r);
    let p = l.add(p, l.splat(1.0));
    let power = l.low_bits_to_exponent(shifted);
    l.if_less(x, low, l.splat(0.0), l.mul(p, power))
}

/// `1/(1 + exp(−x))`, within 3·2⁻²⁴ where it is a normal number; below that, 0.
#[inline(always)]
pub(in crate::cpu) fn sigmoid<L: Lanes>(l: L, x: L::V) -> L::V {
    let one = l.splat(1.0);
    l.div(one, l.add(one, exp(l, l.sub(l.splat(0.0), x))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::vector::{Instructions, Kernel, LANES, Row};

    struct Exp(Row);

    impl Kernel for Exp {
        type Output = [Row; 2];

        #[inline(always)]
        fn run<L: Lanes>(self, l: L) -> [Row; 2] {
            let mut out = [[0.0; LANES]; 2];
            let x = l.load(&self.0);
            l.store(&mut out[0], exp(l, x));
            l.store(&mut out[1], sigmoid(l, x));
            out
        }
    }

    /// Every 97th `f32` there is.
    #[test]
    fn exp_and_sigmoid_are_within_their_errors() {
        for instructions in Instructions::available() {
            let mut worst = [0.0f64; 2];
            for start in (0..=u32::MAX).step_by(97 * LANES) {
                let xs: Row = std::array::from_fn(|i| f32::from_bits(start.wrapping_add(97 * i as u32)));
                let [exps, sigmoids] = instructions.run(Exp(xs));
                for ((&x, got), sigmoid) in xs.iter().zip(exps).zip(sigmoids) {
                    let exact = f64::from(x).exp();
                    if x.is_nan() {
                        assert!(got.is_nan() && sigmoid.is_nan());
                    } else if x < RANGE[0] {
                        assert!(
                            got == 0.0 && exact < 1.001 * f64::from(f32::MIN_POSITIVE),
                            "exp({x}) = {got}"
                        );
                    } else if x > RANGE[1] {
                        assert!(got == f32::INFINITY || got > 2.0f32.powi(127), "exp({x}) = {got}");
                    } else {
                        worst[0] = worst[0].max((f64::from(got) / exact - 1.0).abs());
                    }
                    let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
                    if exact > 1e-38 {
                        worst[1] = worst[1].max((f64::from(sigmoid) / exact - 1.0).abs());
                    } else if !x.is_nan() {
                        assert!(sigmoid <= 1.1e-38);
                    }
                }
            }
            println!("{instructions:?}: exp {:e}, sigmoid {:e}", worst[0], worst[1]);
            assert!(
                worst[0] <= 2f64.powi(-23) && worst[1] <= 3.0 * 2f64.powi(-24),
                "{instructions:?}: {worst:?}"
            );
        }
    }
}
