//! The table runner itself: it must report wrong results, rejected instructions and findings, or no table could fail.

use crate::support::{Expect, Gpu, Near, Outcome, Table};

#[test]
fn a_wrong_result_is_reported_with_its_row() {
    let mut table = Table::new();
    table.rows("add.s32", &[([1i32, 2], 3), ([2, 2], 5)]);
    let failures = table.failures(&Gpu::new());
    assert!(failures.contains("add.s32") && failures.contains("1 of 2 rows"), "{failures}");
    assert!(failures.contains("[2, 2]") && failures.contains("[4]"), "{failures}");
}

#[test]
fn a_rejected_instruction_is_reported() {
    let mut table = Table::new();
    table.rows("add.s33", &[([1i32, 2], 3)]);
    let failures = table.failures(&Gpu::new());
    assert!(failures.contains("rejected") && failures.contains("s33"), "{failures}");
}

#[test]
fn a_failed_launch_is_reported() {
    let mut table = Table::new();
    table.rows("ld.global.u32 %r, [%in+64];", &[([1i32, 2], 3)]);
    let failures = table.failures(&Gpu::new());
    assert!(failures.contains("OutOfBounds"), "{failures}");
}

#[test]
fn expectations_distinguish_right_from_wrong() {
    let one = u64::from(1.0f32.to_bits());
    assert!(Expect::Bits(one).holds(one) && !Expect::Bits(one).holds(one + 1));
    assert!(
        Expect::NanF32.holds(0x7fc0_0000) && !Expect::NanF32.holds(0x7f80_0000) && !Expect::NanF32.holds(one)
    );
    assert!(Expect::NanF16.holds(0x7e00) && !Expect::NanF16.holds(0x7c00));
    let near = Near::relative(1.0, 1e-6).expect();
    assert!(
        near.holds(one)
            && !near.holds(one + 16)
            && !near.holds(one - 32)
            && !near.holds(u64::from(f32::NAN.to_bits()))
    );
}

/// The rounding that the oracles use, compared with Rust's own conversions and operations.
#[test]
fn the_oracles_rounding_agrees_with_rust() {
    use crate::support::rounding::{F16, F32, Mode, add_f32, div_f32, fma_f32, mul_f32, round, sqrt_f32};
    use half::f16;
    let mut bits = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        bits
    };
    let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    for _ in 0..20_000 {
        let (a, b, c) =
            (f32::from_bits(next() as u32), f32::from_bits(next() as u32), f32::from_bits(next() as u32));
        assert!(same(add_f32(a, b, Mode::Nearest), a + b), "{a} + {b}");
        assert!(same(mul_f32(a, b, Mode::Nearest), a * b), "{a} * {b}");
        assert!(same(div_f32(a, b, Mode::Nearest), a / b), "{a} / {b}");
        assert!(same(sqrt_f32(a, Mode::Nearest), a.sqrt()), "{a}");
        assert!(same(fma_f32(a, b, c, Mode::Nearest), a.mul_add(b, c)), "{a} * {b} + {c}");
        let wide = f64::from_bits(next());
        assert!(same(round(wide, F32, Mode::Nearest) as f32, wide as f32), "{wide}");
        if a.is_finite() {
            assert_eq!(f16::from_f64(round(a.into(), F16, Mode::Nearest)), f16::from_f32(a), "{a}");
            let (down, up) = (round(wide, F32, Mode::Down), round(wide, F32, Mode::Up));
            assert!(!(down > wide) && !(up < wide), "{wide}");
        }
    }
}
