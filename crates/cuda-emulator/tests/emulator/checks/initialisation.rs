//! Reads of uninitialised memory, at byte granularity.

use cuda_emulator::exec::FindingKind;
use cudarc::driver::DevicePtr;

use super::pair::Pair;
use crate::support::{Gpu, launch};

#[test]
fn device_memory() {
    let pair = Pair::new(
        "setp.eq.u32 %c, %t, 30;\nadd.u64 %p, %p, %at;\nadd.u64 %q, %q, %at;\n{LINE}",
        "@%c ld.global.u32 %x, [%q];",
        "@%c ld.global.u32 %x, [%p];",
    );
    let (finding, addresses) = pair.report_here(FindingKind::Uninitialised);
    assert_eq!((finding.thread, finding.address), ([30, 0, 0], Some(addresses.unwritten + 120)), "{finding}");
    assert_eq!(finding.allocation.expect("the allocation is named").address, addresses.unwritten);
}

/// Three of four bytes are written; one missing byte suffices.
#[test]
fn single_bytes() {
    let body = "setp.ne.u32 %c, %t, 0;\n@%c ret;\nst.global.u16 [%q], %t;\nst.global.u8 [%q+2], %t;\n{LINE}\nld.global.u32 %x, [%q];";
    let pair = Pair::new(body, "mov.u32 %y, 3;", "st.global.u8 [%q+3], %t;");
    let (finding, addresses) = pair.report(FindingKind::Uninitialised);
    assert_eq!(finding.line, pair.line() + 1, "{finding}");
    let address = finding.address.expect("an address");
    assert!((addresses.unwritten..addresses.unwritten + 4).contains(&address), "{finding}");
}

/// A kernel may read what an earlier one has written.
#[test]
fn memory_written_by_an_earlier_kernel_is_initialised() {
    let gpu = Gpu::new();
    let ptx = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p, .param .u32 write)\n{\n.reg .b64 %p;\n.reg .b32 %x;\n.reg .pred %w;\n\
               ld.param.u64 %p, [p];\nld.param.u32 %x, [write];\nsetp.ne.u32 %w, %x, 0;\n@%w st.global.u32 [%p], %x;\n@!%w ld.global.u32 %x, [%p];\nret;\n}\n";
    let function = gpu.function(ptx, "k");
    let words = gpu.unwritten::<u32>(4);
    let run = |write: u32| launch!(gpu, function, (1, 1, 1), (1, 1, 1), 0; &words, &write);
    assert!(run(0).is_err());
    assert!(run(1).is_ok());
    assert!(run(0).is_ok());
    let findings = gpu.emulator.take_findings();
    assert_eq!(findings.len(), 1);
    assert_eq!((findings[0].kind, findings[0].line), (FindingKind::Uninitialised, 13), "{}", findings[0]);
}

/// A copy within the device copies the initialisation state as well.
#[test]
fn copies_of_uninitialised_memory_are_uninitialised() {
    let gpu = Gpu::new();
    let ptx = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p)\n{\n.reg .b64 %p;\n.reg .b32 %x;\nld.param.u64 %p, [p];\nld.global.u32 %x, [%p];\nret;\n}\n";
    let function = gpu.function(ptx, "k");
    let (unwritten, written) = (gpu.unwritten::<u32>(4), gpu.upload(&[1u32; 4]));
    let mut to = gpu.unwritten::<u32>(4);
    gpu.stream.memcpy_dtod(&written, &mut to).expect("the sizes agree");
    assert!(launch!(gpu, function, (1, 1, 1), (1, 1, 1), 0; &to).is_ok(), "{}", gpu.findings_text());
    gpu.stream.memcpy_dtod(&unwritten, &mut to).expect("the sizes agree");
    assert!(launch!(gpu, function, (1, 1, 1), (1, 1, 1), 0; &to).is_err());
    let finding = gpu.emulator.take_findings().remove(0);
    assert_eq!(
        (finding.kind, finding.address),
        (FindingKind::Uninitialised, Some(to.device_ptr(&gpu.stream).0)),
        "{finding}"
    );
}

#[test]
fn shared_memory() {
    let body =
        "mad.lo.u32 %y, %t, 4, %s;\nst.shared.u32 [%y], %t;\nbar.sync 0;\nsetp.eq.u32 %c, %t, 8;\n{LINE}";
    let pair = Pair::new(body, "@%c ld.shared.u32 %x, [%s+128];", "@%c ld.shared.u32 %x, [%s+124];");
    let (finding, _) = pair.report_here(FindingKind::Uninitialised);
    assert_eq!(finding.thread, [8, 0, 0], "{finding}");
}

/// Each block starts with uninitialised shared memory.
#[test]
fn shared_memory_of_another_block() {
    let body = "setp.ne.u32 %c, %t, 0;\n@%c ret;\nsetp.eq.u32 %d, %b, 0;\n{LINE}\nld.shared.u32 %x, [%s];";
    let pair = Pair::new(body, "@%d st.shared.u32 [%s], %x;", "st.shared.u32 [%s], %x;").grid(2);
    let (finding, _) = pair.report(FindingKind::Uninitialised);
    assert_eq!((finding.block, finding.line), ([1, 0, 0], pair.line() + 1), "{finding}");
}

#[test]
fn dynamic_shared_memory() {
    let body = "setp.ne.u32 %c, %t, 0;\n@%c ret;\nmov.u32 %s, dynamic;\nst.shared.u32 [%s], %x;\n{LINE}";
    Pair::new(body, "ld.shared.v2.u32 {%x, %y}, [%s];", "ld.shared.u32 %x, [%s];")
        .dynamic_shared(16)
        .report_here(FindingKind::Uninitialised);
}

#[test]
fn local_memory() {
    let body = "st.local.u32 [own], %x;\n{LINE}";
    let (finding, _) = Pair::new(body, "ld.local.u32 %x, [own+4];", "ld.local.u32 %x, [own];")
        .report_here(FindingKind::Uninitialised);
    assert_eq!(finding.thread, [0, 0, 0], "{finding}");
}

/// An atomic is also a read.
#[test]
fn atomics() {
    Pair::new("{LINE}", "atom.global.add.u32 %x, [%q], 1;", "atom.global.add.u32 %x, [%p], 1;")
        .report_here(FindingKind::Uninitialised);
    let body = "{LINE}\nbar.sync 0;\nred.shared.add.u32 [%s], 1;";
    let pair =
        Pair::new(body, "setp.eq.u32 %c, %t, 99;", "setp.eq.u32 %c, %t, 0; @%c st.shared.u32 [%s], %t;");
    pair.report(FindingKind::Uninitialised);
}

#[test]
fn matrix_rows() {
    let body = "mad.lo.u32 %y, %t, 4, %s;\n{LINE}\nbar.warp.sync -1;\nand.b32 %y, %t, 7;\nmad.lo.u32 %y, %y, 16, %s;\nldmatrix.sync.aligned.m8n8.x1.shared.b16 {%x}, [%y];";
    let pair =
        Pair::new(body, "setp.lt.u32 %c, %t, 31; @%c st.shared.u32 [%y], %t;", "st.shared.u32 [%y], %t;");
    let (finding, _) = pair.report(FindingKind::Uninitialised);
    assert_eq!(finding.line, pair.line() + 4, "{finding}");
}

/// With checks off, reads of uninitialised memory and races are not reported.
#[test]
fn checks_can_be_switched_off() {
    let gpu = Gpu::new();
    let ptx = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p)\n{\n.reg .b64 %p;\n.reg .b32 %x;\nld.param.u64 %p, [p];\nld.global.u32 %x, [%p];\nret;\n}\n";
    let function = gpu.function(ptx, "k");
    let words = gpu.unwritten::<u32>(4);
    gpu.emulator.set_checks(false);
    assert!(launch!(gpu, function, (1, 1, 1), (1, 1, 1), 0; &words).is_ok(), "{}", gpu.findings_text());
    gpu.emulator.set_checks(true);
    assert!(launch!(gpu, function, (1, 1, 1), (1, 1, 1), 0; &words).is_err());
}
