//! Conversions between integers: PTX ISA, "cvt". Narrow values are held in wider registers: the low bits of the source are
//! used, and the result is extended according to its own type.

use crate::support::{Gpu, Table};

#[test]
fn widths_change_by_truncation_and_extension() {
    let mut table = Table::new();
    table.unary("cvt.u32.u16", |a: u16| u32::from(a));
    table.unary("cvt.u32.s16", |a: i16| a as u32);
    table.unary("cvt.s32.s16", |a: i16| i32::from(a));
    table.unary("cvt.s32.u16", |a: u16| i32::from(a));
    table.unary("cvt.u64.u32", |a: u32| u64::from(a));
    table.unary("cvt.u64.s32", |a: i32| a as u64);
    table.unary("cvt.s64.s32", |a: i32| i64::from(a));
    table.unary("cvt.s64.u32", |a: u32| i64::from(a));
    table.unary("cvt.u64.u16", |a: u16| u64::from(a));
    table.unary("cvt.s64.s16", |a: i16| i64::from(a));
    table.unary("cvt.u16.u32", |a: u32| a as u16);
    table.unary("cvt.s16.s32", |a: i32| a as i16);
    table.unary("cvt.u32.u64", |a: u64| a as u32);
    table.unary("cvt.s32.s64", |a: i64| a as i32);
    table.unary("cvt.u16.u64", |a: u64| a as u16);
    table.run(&Gpu::new());
}

#[test]
fn bytes_come_from_the_low_bits_of_wider_registers() {
    let mut table = Table::new();
    table.unary("cvt.s16.s8", |a: u16| i16::from(a as i8));
    table.unary("cvt.u16.u8", |a: u16| a & 0xff);
    table.unary("cvt.s32.s8", |a: u32| i32::from(a as i8));
    table.unary("cvt.u32.u8", |a: u32| a & 0xff);
    table.unary("cvt.s64.s8", |a: u64| i64::from(a as i8));
    table.unary("cvt.u32.u8", |a: u16| u32::from(a & 0xff));
    // A byte result is extended to the width of the register.
    table.unary("cvt.u8.u32", |a: u32| a & 0xff);
    table.unary("cvt.s8.s32", |a: u32| i32::from(a as i8));
    table.unary("cvt.s8.s32", |a: i32| i32::from(a as i8));
    table.unary("cvt.u8.u16", |a: u16| a & 0xff);
    table.run(&Gpu::new());
}

#[test]
fn saturation_clamps_to_the_result_type() {
    let mut table = Table::new();
    table.unary("cvt.sat.s8.s32", |a: i32| a.clamp(-128, 127));
    table.unary("cvt.sat.u8.s32", |a: i32| a.clamp(0, 255));
    table.unary("cvt.sat.u8.u32", |a: u32| a.min(255));
    table.unary("cvt.sat.s16.s32", |a: i32| a.clamp(-32768, 32767) as i16);
    table.unary("cvt.sat.u16.s32", |a: i32| a.clamp(0, 65535) as u16);
    table.unary("cvt.sat.u32.s32", |a: i32| a.max(0) as u32);
    table.unary("cvt.sat.s32.u32", |a: u32| a.min(0x7fff_ffff) as i32);
    table.unary("cvt.sat.s32.s64", |a: i64| a.clamp(i32::MIN.into(), i32::MAX.into()) as i32);
    table.unary("cvt.sat.u32.s64", |a: i64| a.clamp(0, u32::MAX.into()) as u32);
    table.unary("cvt.sat.u32.u64", |a: u64| a.min(u32::MAX.into()) as u32);
    table.unary("cvt.sat.s64.u64", |a: u64| a.min(i64::MAX as u64) as i64);
    table.run(&Gpu::new());
}

#[test]
fn integers_become_floats_with_one_rounding() {
    use crate::support::rounding::{F32, MODES, round};
    let mut table = Table::new();
    table.unary("cvt.rn.f32.s16", |a: i16| f32::from(a));
    table.unary("cvt.rn.f32.u16", |a: u16| f32::from(a));
    table.unary("cvt.rn.f32.s8", |a: u16| f32::from(a as i8));
    table.unary("cvt.rn.f32.u8", |a: u16| f32::from(a as u8));
    table.unary("cvt.rn.f32.s64", |a: i64| a as f32);
    table.unary("cvt.rn.f32.u64", |a: u64| a as f32);
    for (name, mode) in MODES {
        table.unary(&format!("cvt.{name}.f32.s32"), move |a: i32| round(f64::from(a), F32, mode) as f32);
        table.unary(&format!("cvt.{name}.f32.u32"), move |a: u32| round(f64::from(a), F32, mode) as f32);
    }
    table.rows("cvt.rz.f32.u32", &[([16_777_217u32], 16_777_216.0f32), ([u32::MAX], 4_294_967_040.0)]);
    table.rows("cvt.rp.f32.u32", &[([16_777_217u32], 16_777_218.0f32), ([u32::MAX], 4_294_967_296.0)]);
    table.unary("cvt.rn.f64.s32", |a: i32| f64::from(a));
    table.unary("cvt.rn.f64.u32", |a: u32| f64::from(a));
    table.unary("cvt.rn.f64.s64", |a: i64| a as f64);
    table.unary("cvt.rn.f64.u64", |a: u64| a as f64);
    table.rows(
        "cvt.rz.f64.u64",
        &[([u64::MAX], u64::MAX as f64 - 2048.0), ([(1u64 << 53) + 1], 9_007_199_254_740_992.0)],
    );
    table.rows(
        "cvt.rp.f64.s64",
        &[([(1i64 << 53) + 1], 9_007_199_254_740_994.0f64), ([-(1i64 << 53) - 1], -9_007_199_254_740_992.0)],
    );
    table.run(&Gpu::new());
}

#[test]
fn integers_become_halves() {
    use crate::support::rounding::{F16, MODES, Mode, round};
    use half::f16;
    let mut table = Table::new();
    for (name, mode) in MODES {
        table.unary(&format!("cvt.{name}.f16.s32"), move |a: i32| {
            f16::from_f64(round(f64::from(a), F16, mode))
        });
        table.unary(&format!("cvt.{name}.f16.u16"), move |a: u16| {
            f16::from_f64(round(f64::from(a), F16, mode))
        });
    }
    table.unary("cvt.rn.f16.s16", |a: i16| f16::from_f64(round(f64::from(a), F16, Mode::Nearest)));
    table.unary("cvt.rn.f16.u32", |a: u32| f16::from_f64(round(f64::from(a), F16, Mode::Nearest)));
    table.rows(
        "cvt.rn.f16.u16",
        &[([2049u16], f16::from_f32(2048.0)), ([2051], f16::from_f32(2052.0)), ([65535], f16::INFINITY)],
    );
    table.run(&Gpu::new());
}
