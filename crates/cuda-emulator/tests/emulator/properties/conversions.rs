//! Conversions.

use half::{bf16, f16};

use super::random::unary;
use crate::support::rounding::{BF16, F16, F32, MODES, Mode, round};

#[test]
fn floats_to_integers() {
    unary("cvt.rzi.s32.f32", |a: f32| a as i32);
    unary("cvt.rzi.u32.f32", |a: f32| a as u32);
    unary("cvt.rni.s32.f32", |a: f32| a.round_ties_even() as i32);
    unary("cvt.rmi.s64.f64", |a: f64| if a.is_nan() { i64::MIN } else { a.floor() as i64 });
    unary("cvt.rpi.u64.f32", |a: f32| if a.is_nan() { 1u64 << 63 } else { a.ceil() as u64 });
    unary("cvt.rni.f32.f32", |a: f32| a.round_ties_even());
}

#[test]
fn integers_to_floats() {
    unary("cvt.rn.f32.s32", |a: i32| a as f32);
    unary("cvt.rn.f32.u64", |a: u64| a as f32);
    unary("cvt.rn.f64.s64", |a: i64| a as f64);
    for (name, mode) in MODES {
        unary(&format!("cvt.{name}.f32.u32"), move |a: u32| round(f64::from(a), F32, mode) as f32);
    }
}

#[test]
fn floats_to_narrower_floats() {
    unary("cvt.f32.f16", |a: f16| a.to_f32());
    for (name, mode) in MODES {
        unary(&format!("cvt.{name}.f32.f64"), move |a: f64| round(a, F32, mode) as f32);
        unary(&format!("cvt.{name}.f16.f32"), move |a: f32| f16::from_f64(round(a.into(), F16, mode)));
    }
    unary("cvt.rn.bf16.f32", |a: f32| bf16::from_f64(round(a.into(), BF16, Mode::Nearest)));
    unary("cvt.rz.bf16.f32", |a: f32| bf16::from_f64(round(a.into(), BF16, Mode::Zero)));
}

#[test]
fn integers_to_narrower_integers() {
    unary("cvt.s32.s8", |a: u32| i32::from(a as i8));
    unary("cvt.u16.u64", |a: u64| a as u16);
    unary("cvt.sat.s8.s32", |a: i32| a.clamp(-128, 127));
    unary("cvt.sat.u32.s64", |a: i64| a.clamp(0, u32::MAX.into()) as u32);
    unary("cvt.s64.s32", |a: i32| i64::from(a));
}
