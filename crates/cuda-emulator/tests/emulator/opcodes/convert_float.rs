//! Conversions from floats: PTX ISA, "cvt". Conversions to integers saturate; NaN becomes zero, or the value with only the top
//! bit set if source or result has 64 bits. Conversions to narrower floats round.

use half::{bf16, f16};

use crate::support::rounding::{BF16, F16, F32, MODES, Mode, TF32, flush, round, saturate};
use crate::support::{Gpu, Pair, Table};

/// `.rni .rzi .rmi .rpi`.
fn whole(x: f64, mode: Mode) -> f64 {
    match mode {
        Mode::Nearest => x.round_ties_even(),
        Mode::Zero => x.trunc(),
        Mode::Down => x.floor(),
        Mode::Up => x.ceil(),
    }
}

const INTEGER_MODES: [(&str, Mode); 4] =
    [("rni", Mode::Nearest), ("rzi", Mode::Zero), ("rmi", Mode::Down), ("rpi", Mode::Up)];

#[test]
fn floats_become_integers_and_saturate() {
    let mut table = Table::new();
    for (name, mode) in INTEGER_MODES {
        table.unary(&format!("cvt.{name}.s32.f32"), move |a: f32| whole(a.into(), mode) as i32);
        table.unary(&format!("cvt.{name}.u32.f32"), move |a: f32| whole(a.into(), mode) as u32);
        table.unary(&format!("cvt.{name}.s64.f32"), move |a: f32| {
            if a.is_nan() { i64::MIN } else { whole(a.into(), mode) as i64 }
        });
        table.unary(&format!("cvt.{name}.s32.f64"), move |a: f64| {
            if a.is_nan() { i32::MIN } else { whole(a, mode) as i32 }
        });
        table.unary(
            &format!("cvt.{name}.u32.f64"),
            move |a: f64| if a.is_nan() { 1 << 31 } else { whole(a, mode) as u32 },
        );
        table.unary(&format!("cvt.{name}.s64.f64"), move |a: f64| {
            if a.is_nan() { i64::MIN } else { whole(a, mode) as i64 }
        });
        table.unary(
            &format!("cvt.{name}.u64.f64"),
            move |a: f64| if a.is_nan() { 1 << 63 } else { whole(a, mode) as u64 },
        );
        table.unary(&format!("cvt.{name}.s32.f16"), move |a: f16| whole(a.to_f64(), mode) as i32);
    }
    table.unary("cvt.rzi.u64.f32", |a: f32| if a.is_nan() { 1 << 63 } else { a as u64 });
    table.rows(
        "cvt.rzi.s64.f64",
        &[([1e300f64], i64::MAX), ([-1e300], i64::MIN), ([-1.9], -1), ([2.5e15], 2_500_000_000_000_000)],
    );
    table.rows(
        "cvt.rzi.u64.f64",
        &[([1e300f64], u64::MAX), ([-5.0], 0), ([1.9], 1), ([1.8e19], 18_000_000_000_000_000_000)],
    );
    table.unary("cvt.rzi.s16.f32", |a: f32| a as i16);
    table.unary("cvt.rzi.u16.f16", |a: f16| a.to_f32() as u16);
    table.unary("cvt.rzi.s8.f32", |a: f32| i32::from(a as i8));
    table.unary("cvt.rzi.u8.f32", |a: f32| u32::from(a as u8));
    table.rows(
        "cvt.rni.s32.f32",
        &[
            ([0.5f32], 0),
            ([1.5], 2),
            ([2.5], 2),
            ([-0.5], 0),
            ([-1.5], -2),
            ([3e9], i32::MAX),
            ([f32::NAN], 0),
        ],
    );
    table.unary("cvt.rmi.ftz.s32.f32", |a: f32| whole(flush(a).into(), Mode::Down) as i32);
    table.run(&Gpu::new());
}

#[test]
fn floats_round_to_integral_floats() {
    let mut table = Table::new();
    for (name, mode) in INTEGER_MODES {
        table.unary(&format!("cvt.{name}.f32.f32"), move |a: f32| whole(a.into(), mode) as f32);
        table.unary(&format!("cvt.{name}.f64.f64"), move |a: f64| whole(a, mode));
        table.unary(&format!("cvt.{name}.f16.f16"), move |a: f16| f16::from_f64(whole(a.to_f64(), mode)));
    }
    table.rows("cvt.rni.f32.f32", &[([0.5f32], 0.0f32), ([-0.5], -0.0), ([1.5], 2.0), ([2.5], 2.0)]);
    table.rows("cvt.rpi.f32.f32", &[([-0.3f32], -0.0f32), ([0.3], 1.0)]);
    table.run(&Gpu::new());
}

#[test]
fn saturation_and_flushing_of_the_same_format() {
    let mut table = Table::new();
    table.unary("cvt.sat.f32.f32", saturate);
    table.unary("cvt.ftz.f32.f32", flush);
    table.unary("cvt.ftz.sat.f32.f32", |a: f32| saturate(flush(a)));
    table.unary("cvt.f32.f32", |a: f32| a);
    table.unary("cvt.sat.f64.f64", |a: f64| if a.is_nan() || a <= 0.0 { 0.0 } else { a.min(1.0) });
    table.unary("cvt.rn.sat.f32.f64", |a: f64| saturate(a as f32));
    table.unary("cvt.sat.f32.f16", |a: f16| saturate(a.to_f32()));
    table.run(&Gpu::new());
}

#[test]
fn conversions_to_wider_formats_are_exact() {
    let mut table = Table::new();
    table.unary("cvt.f32.f16", |a: f16| a.to_f32());
    table.unary("cvt.f64.f16", |a: f16| a.to_f64());
    table.unary("cvt.f64.f32", |a: f32| f64::from(a));
    table.unary("cvt.ftz.f64.f32", |a: f32| f64::from(flush(a)));
    table.run(&Gpu::new());
    let mut table = Table::new().target("sm_90");
    table.unary("cvt.f32.bf16", |a: bf16| a.to_f32());
    table.run(&Gpu::sm_90());
}

#[test]
fn doubles_round_to_singles() {
    let mut table = Table::new();
    for (name, mode) in MODES {
        table.unary(&format!("cvt.{name}.f32.f64"), move |a: f64| round(a, F32, mode) as f32);
        table.unary(&format!("cvt.{name}.f16.f64"), move |a: f64| f16::from_f64(round(a, F16, mode)));
    }
    let just_above = 1.0 + 2f64.powi(-24) + 2f64.powi(-52);
    table.rows("cvt.rn.f32.f64", &[([just_above], 1.0f32.next_up())]);
    // Rounding to f32 first would round twice: to a tie, then to even.
    let tie_through_single = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
    table.rows("cvt.rn.f16.f64", &[([tie_through_single], f16::from_bits(0x3c01))]);
    table.run(&Gpu::new());
}

#[test]
fn singles_round_to_halves() {
    let mut table = Table::new();
    for (name, mode) in MODES {
        table.unary(&format!("cvt.{name}.f16.f32"), move |a: f32| f16::from_f64(round(a.into(), F16, mode)));
    }
    table.unary("cvt.rn.ftz.f16.f32", |a: f32| {
        let half = f16::from_f64(round(flush(a).into(), F16, Mode::Nearest));
        if a.is_subnormal() { f16::ZERO.copysign(half) } else { half }
    });
    table.rows(
        "cvt.rn.f16.f32",
        &[([65519.0f32], f16::MAX), ([65520.0], f16::INFINITY), ([2f32.powi(-25)], f16::ZERO)],
    );
    table.rows(
        "cvt.rn.f16.f32",
        &[
            ([2f32.powi(-24)], f16::from_bits(1)),
            ([3.0 * 2f32.powi(-26)], f16::from_bits(1)),
            ([-1e-10], -f16::ZERO),
        ],
    );
    table.run(&Gpu::new());
}

#[test]
fn singles_round_to_bf16() {
    let to = |a: f32, mode| bf16::from_f64(round(a.into(), BF16, mode));
    let mut table = Table::new();
    table.unary("cvt.rn.bf16.f32", move |a: f32| to(a, Mode::Nearest));
    table.unary("cvt.rz.bf16.f32", move |a: f32| to(a, Mode::Zero));
    let relu = |a: bf16| {
        if a.is_nan() {
            a
        } else if a.to_f32() <= 0.0 {
            bf16::ZERO
        } else {
            a
        }
    };
    table.unary("cvt.rn.relu.bf16.f32", move |a: f32| relu(to(a, Mode::Nearest)));
    table.rows(
        "cvt.rn.bf16.f32",
        &[
            ([f32::from_bits(0x3f80_8000)], bf16::from_bits(0x3f80)),
            ([f32::from_bits(0x3f81_8000)], bf16::from_bits(0x3f82)),
        ],
    );
    table.rows(
        "cvt.rn.bf16.f32",
        &[([f32::MAX], bf16::INFINITY), ([f32::from_bits(0x3f80_8001)], bf16::from_bits(0x3f81))],
    );
    table.rows(
        "cvt.rz.bf16.f32",
        &[([f32::MAX], bf16::MAX), ([f32::from_bits(0x3f80_ffff)], bf16::from_bits(0x3f80))],
    );
    table.run(&Gpu::new());
}

/// The first source goes to the upper half.
#[test]
fn two_singles_pack_into_one_register() {
    let mut table = Table::new();
    for (name, mode) in [("rn", Mode::Nearest), ("rz", Mode::Zero)] {
        let half = move |a: f32| f16::from_f64(round(a.into(), F16, mode));
        let brain = move |a: f32| bf16::from_f64(round(a.into(), BF16, mode));
        table.binary(&format!("cvt.{name}.f16x2.f32"), move |a: f32, b: f32| Pair(half(b), half(a)));
        table.binary(&format!("cvt.{name}.bf16x2.f32"), move |a: f32, b: f32| Pair(brain(b), brain(a)));
        let relu = move |a: f16| {
            if a.is_nan() {
                a
            } else if a.to_f32() <= 0.0 {
                f16::ZERO
            } else {
                a
            }
        };
        table.binary(&format!("cvt.{name}.relu.f16x2.f32"), move |a: f32, b: f32| {
            Pair(relu(half(b)), relu(half(a)))
        });
        let relu = move |a: bf16| {
            if a.is_nan() {
                a
            } else if a.to_f32() <= 0.0 {
                bf16::ZERO
            } else {
                a
            }
        };
        table.binary(&format!("cvt.{name}.relu.bf16x2.f32"), move |a: f32, b: f32| {
            Pair(relu(brain(b)), relu(brain(a)))
        });
    }
    table.rows("cvt.rn.f16x2.f32", &[([1.0f32, 2.0], 0x3c00_4000u32)]);
    table.rows("cvt.rn.bf16x2.f32", &[([1.0f32, 2.0], 0x3f80_4000u32)]);
    table.run(&Gpu::new());
}

/// Ten fraction bits; ties away from zero. The low bits, which consumers ignore, are zero here.
#[test]
fn singles_round_to_tf32() {
    let mut table = Table::new();
    let to = |a: f32| {
        let away = f32::from_bits((a.to_bits() + 0x1000) & !0x1fff);
        if a.is_finite() { away } else { a }
    };
    let rows: Vec<([f32; 1], f32)> =
        [1.0f32, -1.0, 1.5, 0.1, -0.3, 1e30, 1e-30, f32::from_bits(0x3f80_1000), f32::from_bits(0x3f80_0fff)]
            .into_iter()
            .map(|a| ([a], to(a)))
            .collect();
    table.rows("{ cvt.rna.tf32.f32 %r, %a; and.b32 %r, %r, 0xffffe000; }", &rows);
    table.run(&Gpu::new());
    let mut table = Table::new().target("sm_90");
    table.rows(
        "cvt.rn.tf32.f32",
        &[
            ([f32::from_bits(0x3f80_1000)], 1.0f32),
            ([f32::from_bits(0x3f80_3000)], f32::from_bits(0x3f80_4000)),
        ],
    );
    let exact = round(f64::from(f32::from_bits(0x3f80_1001)), TF32, Mode::Nearest) as f32;
    table.rows("cvt.rn.tf32.f32", &[([f32::from_bits(0x3f80_1001)], exact)]);
    table.run(&Gpu::sm_90());
}
