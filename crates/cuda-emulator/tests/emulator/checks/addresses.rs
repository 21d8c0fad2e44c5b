//! Accesses out of bounds, in every state space.

use cuda_emulator::exec::FindingKind;
use cudarc::driver::DevicePtr;

use super::pair::{Pair, WORDS};
use crate::support::{Gpu, launch};

/// Thread 31 of block 1 reads one word past the end of 64 words; with 63 in place of 64 it stays in bounds.
#[test]
fn a_load_past_the_end_of_the_allocation() {
    let body = "mad.lo.u32 %y, %b, 32, %t;\nmul.wide.u32 %at, %y, 4;\nadd.u64 %at, %at, %p;\n{LINE}";
    let pair = Pair::new(body, "ld.global.u32 %x, [%at+4];", "ld.global.u32 %x, [%at];").grid(2);
    let (finding, addresses) = pair.report_here(FindingKind::OutOfBounds);
    assert_eq!((finding.block, finding.thread), ([1, 0, 0], [31, 0, 0]), "{finding}");
    assert_eq!(finding.address, Some(addresses.written + 256), "{finding}");
    let allocation = finding.allocation.expect("the nearest allocation is named");
    assert_eq!((allocation.address, allocation.bytes), (addresses.written, 4 * WORDS as u64));
}

/// The same for a store of a whole warp.
#[test]
fn a_store_of_a_warp_past_the_end_of_the_allocation() {
    let body = "mad.lo.u32 %y, %b, 32, %t;\nmul.wide.u32 %at, %y, 4;\nadd.u64 %at, %at, %q;\n{LINE}";
    let pair = Pair::new(body, "st.global.u32 [%at+4], %x;", "st.global.u32 [%at], %x;").grid(2);
    let (finding, addresses) = pair.report_here(FindingKind::OutOfBounds);
    assert_eq!((finding.block, finding.thread), ([1, 0, 0], [31, 0, 0]), "{finding}");
    assert_eq!(finding.address, Some(addresses.unwritten + 256), "{finding}");
}

#[test]
fn a_store_past_the_end_of_the_allocation() {
    let pair = Pair::new(
        "setp.eq.u32 %c, %t, 9;\n{LINE}",
        "@%c st.global.u32 [%q+256], %x;",
        "@%c st.global.u32 [%q+252], %x;",
    );
    let (finding, addresses) = pair.report_here(FindingKind::OutOfBounds);
    assert_eq!((finding.block, finding.thread), ([0, 0, 0], [9, 0, 0]), "{finding}");
    assert_eq!(finding.address, Some(addresses.unwritten + 256), "{finding}");
}

#[test]
fn a_load_before_the_allocation() {
    let pair = Pair::new(
        "setp.eq.u32 %c, %t, 0;\n{LINE}",
        "@%c ld.global.u32 %x, [%p+-4];",
        "@%c ld.global.u32 %x, [%p+0];",
    );
    let (finding, addresses) = pair.report_here(FindingKind::OutOfBounds);
    assert_eq!(finding.address, Some(addresses.written - 4), "{finding}");
}

/// The last element of a vector is out of bounds.
#[test]
fn a_vector_that_straddles_the_end() {
    let pair = Pair::new(
        "{ .reg .b32 %v<4>;\n{LINE}\n}",
        "ld.global.v4.u8 {%v0, %v1, %v2, %v3}, [%p+256];",
        "ld.global.v4.u8 {%v0, %v1, %v2, %v3}, [%p+252];",
    );
    pair.report_here(FindingKind::OutOfBounds);
}

#[test]
fn a_null_pointer() {
    let pair = Pair::new("mov.u64 %wide, 0;\n{LINE}", "ld.u32 %x, [%wide];", "ld.u32 %x, [%p];");
    let (finding, _) = pair.report_here(FindingKind::OutOfBounds);
    assert_eq!(finding.address, Some(0), "{finding}");
    assert_eq!(finding.thread, [0, 0, 0], "{finding}");
}

#[test]
fn a_wild_generic_pointer() {
    let pair =
        Pair::new("mov.u64 %wide, 0x123456789abc0;\n{LINE}", "st.u32 [%wide], %x;", "st.u32 [%q], %x;")
            .block(1);
    let (finding, _) = pair.report_here(FindingKind::OutOfBounds);
    assert_eq!(finding.address, Some(0x0001_2345_6789_abc0), "{finding}");
}

#[test]
fn an_atomic_past_the_end_of_the_allocation() {
    Pair::new("{LINE}", "atom.global.add.u32 %x, [%p+256], 1;", "atom.global.add.u32 %x, [%p+252], 1;")
        .report_here(FindingKind::OutOfBounds);
    Pair::new("{LINE}", "red.global.max.u32 [%p+260], 1;", "red.global.max.u32 [%p], 1;")
        .report_here(FindingKind::OutOfBounds);
}

/// Allocations are padded internally, but the padding is out of bounds.
#[test]
fn an_odd_sized_allocation_ends_at_its_last_byte() {
    let gpu = Gpu::new();
    let ptx = |offset: u32| {
        format!(
            ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p)\n{{\n.reg .b64 %p;\n.reg .b32 %x;\nld.param.u64 %p, [p];\n\
             ld.global.u8 %x, [%p+{offset}];\nret;\n}}\n"
        )
    };
    let (inside, beyond) = (gpu.function(&ptx(4), "k"), gpu.function(&ptx(5), "k"));
    let bytes = gpu.upload(&[1u8; 5]);
    assert!(launch!(gpu, inside, (1, 1, 1), (1, 1, 1), 0; &bytes).is_ok(), "{}", gpu.findings_text());
    assert!(launch!(gpu, beyond, (1, 1, 1), (1, 1, 1), 0; &bytes).is_err());
    let finding = gpu.emulator.take_findings().remove(0);
    assert_eq!((finding.kind, finding.line), (FindingKind::OutOfBounds, 9), "{finding}");
    assert_eq!(finding.allocation.expect("the allocation is named").bytes, 5);
}

#[test]
fn a_freed_allocation() {
    let gpu = Gpu::new();
    let ptx = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p)\n{\n.reg .b64 %p;\n.reg .b32 %x;\nld.param.u64 %p, [p];\n\
               ld.global.u32 %x, [%p+8];\nret;\n}\n";
    let function = gpu.function(ptx, "k");
    let words = gpu.upload(&[1u32; 16]);
    let pointer = words.device_ptr(&gpu.stream).0;
    assert!(launch!(gpu, function, (1, 1, 1), (4, 1, 1), 0; &pointer).is_ok(), "{}", gpu.findings_text());
    drop(words);
    // A new allocation of the same size must not hide the dangling pointer.
    let _other = gpu.upload(&[2u32; 16]);
    assert!(launch!(gpu, function, (1, 1, 1), (4, 1, 1), 0; &pointer).is_err());
    let finding = gpu.emulator.take_findings().remove(0);
    assert_eq!((finding.kind, finding.line), (FindingKind::UseAfterFree, 9), "{finding}");
    assert_eq!((finding.address, finding.thread), (Some(pointer + 8), [0, 0, 0]), "{finding}");
    assert_eq!(finding.allocation.expect("the freed allocation is named").bytes, 64);
}

/// Without dynamic shared memory, shared memory ends after the 256 static bytes.
#[test]
fn shared_memory_past_the_end_of_the_blocks() {
    let pair = Pair::new(
        "setp.eq.u32 %c, %t, 3;\n{LINE}",
        "@%c st.shared.u32 [%s+256], %x;",
        "@%c st.shared.u32 [%s+252], %x;",
    )
    .grid(3);
    let (finding, _) = pair.report_here(FindingKind::SharedOutOfRange);
    assert_eq!(finding.thread, [3, 0, 0], "{finding}");
    assert!(finding.address.is_some(), "{finding}");
    let body = "setp.eq.u32 %c, %t, 3;\n@%c st.shared.u32 [%s+4], %t;\n{LINE}";
    let pair = Pair::new(
        body,
        "@%c atom.shared.add.u32 %x, [%s+1024], 1;",
        "@%c atom.shared.add.u32 %x, [%s+4], 1;",
    );
    pair.report_here(FindingKind::SharedOutOfRange);
}

/// Dynamic shared memory has the size given at launch, here 64 bytes.
#[test]
fn dynamic_shared_memory_past_the_size_of_the_launch() {
    let body = "mov.u32 %s, dynamic;\nsetp.eq.u32 %c, %t, 17;\n{LINE}";
    let pair = Pair::new(body, "@%c st.shared.u32 [%s+64], %x;", "@%c st.shared.u32 [%s+60], %x;")
        .dynamic_shared(64);
    let (finding, _) = pair.report_here(FindingKind::SharedOutOfRange);
    assert_eq!(finding.thread, [17, 0, 0], "{finding}");
}

#[test]
fn local_memory_past_the_end_of_the_threads() {
    let body = "mov.u64 %wide, own;\nsetp.eq.u32 %c, %t, 5;\n{LINE}";
    let pair = Pair::new(body, "@%c st.local.u32 [%wide+16], %x;", "@%c st.local.u32 [%wide+12], %x;");
    let (finding, _) = pair.report_here(FindingKind::LocalOutOfRange);
    assert_eq!(finding.thread, [5, 0, 0], "{finding}");
}

#[test]
fn a_store_to_constant_memory() {
    let body = "mov.u64 %wide, fixed;\ncvta.const.u64 %wide, %wide;\n{LINE}";
    let pair = Pair::new(body, "st.u32 [%wide], %x;", "ld.u32 %x, [%wide];");
    pair.report_here(FindingKind::ReadOnly);
}
