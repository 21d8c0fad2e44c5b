//! Results of approximate instructions: an interval around the exact value, and a value chosen from it.

use super::options::Approximation;
use super::random::mix;
use super::rounding::{Narrow, Rounding, narrow};

/// The maximum error that the PTX ISA specifies for an instruction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ErrorBound {
    /// Units in the last place around the correctly rounded result.
    Ulp(u32),
    Relative(f64),
    Absolute(f64),
}

/// A result for the exact value `y`. The seeded mode derives its choice from `argument`.
pub(crate) fn approximate<T: Narrow>(y: f64, bound: ErrorBound, mode: Approximation, argument: u64) -> T {
    let nearest: T = narrow(y, Rounding::Nearest);
    let value = nearest.wide();
    if mode == Approximation::Nearest || !value.is_finite() || y == 0.0 {
        return nearest;
    }
    // One unit in the last place of the result; for subnormal results that of the smallest normal number.
    let exponent = ((value.to_bits() >> 52 & 0x7ff) as i32 - 1023).max(T::LEAST);
    let ulp = super::rounding::power_of_two(exponent - (T::PRECISION - 1));
    let (low, high) = match bound {
        ErrorBound::Ulp(n) => (value - f64::from(n) * ulp, value + f64::from(n) * ulp),
        ErrorBound::Relative(r) => (y - (y * r).abs(), y + (y * r).abs()),
        ErrorBound::Absolute(a) => (y - a, y + a),
    };
    let wanted: T = match mode {
        Approximation::Nearest => nearest,
        Approximation::Lowest => narrow(low, Rounding::Up),
        Approximation::Highest => narrow(high, Rounding::Down),
        Approximation::Seeded(seed) => {
            let t = (mix(argument ^ mix(seed)) >> 11) as f64 / (1u64 << 53) as f64;
            narrow(low + t * (high - low), Rounding::Nearest)
        }
    };
    // An interval narrower than the spacing of the format contains only the nearest value.
    if wanted.wide() < low || wanted.wide() > high { nearest } else { wanted }
}

/// 2 to the power of an f32, in f64, with an error far below one ulp of f32. Uses only operations that vectorise.
#[inline(always)]
pub(crate) fn exp2(x: f32) -> f64 {
    let x = f64::from(x).clamp(-200.0, 200.0);
    let whole = x.round_ties_even();
    let t = (x - whole) * std::f64::consts::LN_2;
    // The exponential series. With |t| < 0.35 the first omitted term is 1e-14.
    let mut sum = 1.0 / 39_916_800.0;
    for factor in [3_628_800.0, 362_880.0, 40_320.0, 5_040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0] {
        sum = sum * t + 1.0 / factor;
    }
    sum * super::rounding::power_of_two(whole as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp2_is_accurate_to_f32() {
        let mut x = -160.0f32;
        while x < 140.0 {
            let (exact, ours) = (f64::from(x).exp2(), exp2(x));
            assert!((ours / exact - 1.0).abs() < 1e-13, "{x}: {ours:e} {exact:e}");
            x += 0.037;
        }
    }

    #[test]
    fn modes_stay_inside_the_bound_and_reach_its_edges() {
        let bound = ErrorBound::Ulp(2);
        let one = |mode, argument| approximate::<f32>(1.1, bound, mode, argument);
        let exact = 1.1f32;
        assert_eq!(one(Approximation::Nearest, 0), exact);
        assert_eq!(one(Approximation::Lowest, 0).to_bits(), exact.to_bits() - 2);
        assert_eq!(one(Approximation::Highest, 0).to_bits(), exact.to_bits() + 2);
        let seen: std::collections::HashSet<u32> = (0..100)
            .map(|i| one(Approximation::Seeded(7), i).to_bits().wrapping_sub(exact.to_bits()))
            .collect();
        assert!(seen.len() >= 4 && seen.iter().all(|d| (*d as i32).abs() <= 2));
    }
}
