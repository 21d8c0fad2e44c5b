//! Load errors: unknown opcodes, modifiers, types and names, with the line.

use crate::support::Gpu;

/// Loads a kernel with this statement on line 12; the error must name the line and the word.
#[track_caller]
fn refused(statement: &str, word: &str) {
    let gpu = Gpu::new();
    let ptx = |statement: &str| {
        format!(
            ".version 7.8\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p)\n{{\n.reg .b32 %x, %y, %z;\n.reg .b64 %w;\n.reg .f32 %f;\n.reg .b16 %h;\n\
             .reg .pred %p;\nmov.u32 %y, 1;\n{statement}\nret;\n}}\n"
        )
    };
    gpu.try_function(&ptx("add.s32 %x, %y, 1;"), "k")
        .unwrap_or_else(|error| panic!("a sound statement is refused: {error}"));
    let error = match gpu.try_function(&ptx(statement), "k") {
        Ok(_) => panic!("`{statement}` was loaded"),
        Err(error) => error,
    };
    assert!(error.contains("12"), "`{statement}`: the error does not name line 12: {error}");
    assert!(error.contains(word), "`{statement}`: the error does not name {word}: {error}");
}

#[test]
fn unknown_opcodes() {
    refused("frobnicate.u32 %x, %y;", "frobnicate");
    refused("mapa.u64 %w, %w, 0;", "mapa");
    refused("wgmma.fence.sync.aligned;", "wgmma");
    refused("addd.s32 %x, %y, %y;", "addd");
}

#[test]
fn unknown_modifiers() {
    refused("add.wrap.s32 %x, %y, %y;", "wrap");
    refused("shfl.sync.left.b32 %x, %y, 1, 31, -1;", "left");
    refused("setp.between.s32 %p, %y, %y;", "between");
    refused("ld.global.v3.u32 {%x, %y, %z}, [%w];", "v3");
    refused("mul.mid.u32 %x, %y, %y;", "mid");
    refused("ex2.fast.f32 %f, %f;", "fast");
    refused(
        "mma.sync.aligned.m16n8k7.row.col.f32.f16.f16.f32 {%f,%f,%f,%f}, {%x,%x,%x,%x}, {%x,%x}, {%f,%f,%f,%f};",
        "m16n8k7",
    );
}

/// A modifier that exists, on an instruction that does not support it.
#[test]
fn modifiers_of_other_instructions() {
    refused("add.sat.u32 %x, %y, %y;", "sat");
    refused("and.ftz.b32 %x, %y, %y;", "ftz");
    refused("mul.s32 %x, %y, %y;", "mul");
    refused("fma.f32 %f, %f, %f, %f;", "fma");
    refused("sqrt.f32 %f, %f;", "sqrt");
    refused("cvt.f16.f32 %h, %f;", "cvt");
    refused("cvt.s32.f32 %x, %f;", "cvt");
}

#[test]
fn types_that_an_instruction_does_not_support() {
    refused("and.s32 %x, %y, %y;", "s32");
    refused("add.b32 %x, %y, %y;", "b32");
    refused("popc.u32 %x, %y;", "u32");
    refused("shl.u32 %x, %y, 1;", "u32");
    refused("ex2.approx.f64 %w, %w;", "f64");
    refused("mul.wide.s64 %w, %w, %w;", "s64");
    refused("setp.lo.s32 %p, %x, %y;", "lo");
}

/// Forms of the PTX ISA on types that the emulator does not have are said to be unsupported; they are not invalid.
#[test]
fn types_that_the_emulator_does_not_have() {
    let mma = |shape: &str, types: &str| {
        format!(
            "mma.sync.aligned.{shape}.row.col.{types} {{%f,%f,%f,%f}}, {{%x,%x,%x,%x}}, {{%x,%x}}, {{%f,%f,%f,%f}};"
        )
    };
    for statement in [
        "cvt.rn.satfinite.e4m3x2.f32 %h, %f, %f;",
        "cvt.rn.satfinite.e5m2x2.f32 %h, %f, %f;",
        "cvt.rn.satfinite.relu.e4m3x2.f32 %h, %f, %f;",
        "cvt.rn.satfinite.e4m3x2.f16x2 %h, %x;",
        "cvt.rn.f16x2.e4m3x2 %x, %h;",
        "cvt.rn.relu.f16x2.e5m2x2 %x, %h;",
        "cvt.rn.satfinite.e2m1x2.f32 %h, %f, %f;",
        "cvt.rz.satfinite.ue8m0x2.f32 %h, %f, %f;",
        "cvt.rs.satfinite.e4m3x4.f32 %x, {%f, %f, %f, %f}, %y;",
        &mma("m16n8k32", "f32.e4m3.e4m3.f32"),
        &mma("m16n8k32", "f32.e5m2.e4m3.f32"),
        &mma("m16n8k16", "f16.e4m3.e5m2.f16"),
        "ld.global.b128 %w, [%w];",
        "add.rn.f32x2 %w, %w, %w;",
    ] {
        refused(statement, "not supported");
    }
}

#[test]
fn operands_that_do_not_match() {
    refused("add.s32 %x, %y;", "add");
    refused("add.s32 %x, %y, %y, %y;", "add");
    refused("add.s32 %x, %y, %nowhere;", "nowhere");
    refused("add.s64 %x, %w, %w;", "64");
    refused("mov.u32 %x, %p;", "%p");
    refused("@%x add.s32 %x, %y, %y;", "%x");
    refused("bra NOWHERE;", "NOWHERE");
    refused("ld.param.u64 %w, [absent];", "absent");
    refused("call.uni absent;", "absent");
}

#[test]
fn text_that_is_not_ptx() {
    refused("add.s32 %x %y, %y;", "%y");
    refused("mov.u32 %x, 0x;", "0x");
    refused("?", "?");
    refused("add.s32 %x, %y, %y add.s32 %x, %y, %y;", "add");
}

/// A module loads if its architecture is not newer than the device's.
#[test]
fn modules_for_newer_devices() {
    let ptx = |target: &str| {
        format!(".version 7.8\n.target {target}\n.address_size 64\n.visible .entry k()\n{{\nret;\n}}\n")
    };
    assert!(Gpu::new().try_function(&ptx("sm_90"), "k").is_err());
    assert!(Gpu::new().try_function(&ptx("sm_80"), "k").is_ok());
    assert!(Gpu::new().try_function(&ptx("sm_75"), "k").is_ok());
    assert!(Gpu::sm_90().try_function(&ptx("sm_90"), "k").is_ok());
}

#[test]
fn a_kernel_that_does_not_exist() {
    let gpu = Gpu::new();
    let ptx = ".version 7.8\n.target sm_80\n.address_size 64\n.visible .entry k()\n{\nret;\n}\n";
    assert!(gpu.try_function(ptx, "k").is_ok());
    assert!(gpu.try_function(ptx, "other").is_err());
}
