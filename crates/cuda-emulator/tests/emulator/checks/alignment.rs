//! Addresses that are not a multiple of the access size.

use cuda_emulator::exec::FindingKind;

use super::pair::Pair;

#[test]
fn device_memory() {
    let pair = Pair::new(
        "setp.eq.u32 %c, %t, 6;\n{LINE}",
        "@%c ld.global.u32 %x, [%p+2];",
        "@%c ld.global.u32 %x, [%p+4];",
    );
    let (finding, addresses) = pair.report_here(FindingKind::Misaligned);
    assert_eq!((finding.thread, finding.address), ([6, 0, 0], Some(addresses.written + 2)), "{finding}");
    Pair::new("{LINE}", "ld.global.u16 %x, [%p+1];", "ld.global.u16 %x, [%p+2];")
        .report_here(FindingKind::Misaligned);
    Pair::new("{LINE}", "ld.global.b64 %wide, [%p+4];", "ld.global.b64 %wide, [%p+8];")
        .report_here(FindingKind::Misaligned);
}

/// A vector must be aligned to its total size.
#[test]
fn vectors() {
    let pair = Pair::new(
        "{ .reg .b32 %v<4>;\n{LINE}\n}",
        "ld.global.v4.u32 {%v0, %v1, %v2, %v3}, [%p+8];",
        "ld.global.v4.u32 {%v0, %v1, %v2, %v3}, [%p+16];",
    );
    pair.report_here(FindingKind::Misaligned);
    Pair::new("{LINE}", "ld.global.v2.u32 {%x, %y}, [%p+4];", "ld.global.v2.u32 {%x, %y}, [%p+8];")
        .report_here(FindingKind::Misaligned);
}

#[test]
fn shared_memory() {
    let pair = Pair::new(
        "setp.eq.u32 %c, %t, 1;\n{LINE}",
        "@%c st.shared.u32 [%s+6], %x;",
        "@%c st.shared.u32 [%s+8], %x;",
    );
    let (finding, _) = pair.report_here(FindingKind::Misaligned);
    assert_eq!(finding.thread, [1, 0, 0], "{finding}");
}

#[test]
fn local_memory() {
    let pair = Pair::new(
        "mov.u64 %wide, own;\n{LINE}",
        "st.local.b64 [%wide+4], %p;",
        "st.local.b64 [%wide+8], %p;",
    );
    pair.report_here(FindingKind::Misaligned);
}

#[test]
fn atomics() {
    Pair::new("{LINE}", "atom.global.add.u32 %x, [%p+1], 1;", "atom.global.add.u32 %x, [%p+4], 1;")
        .report_here(FindingKind::Misaligned);
    Pair::new("{LINE}", "red.global.add.u64 [%p+4], 1;", "red.global.add.u64 [%p+8], 1;")
        .report_here(FindingKind::Misaligned);
}

/// Rows of `ldmatrix`, and source and destination of a 16-byte `cp.async`, must be aligned to 16 bytes.
#[test]
fn matrix_rows_and_copies() {
    let fill = "mad.lo.u32 %y, %t, 8, %s;\nst.shared.v2.u32 [%y], {%t, %t};\nbar.warp.sync -1;\nand.b32 %y, %t, 7;\nmad.lo.u32 %y, %y, 16, %s;\n{LINE}";
    let pair = Pair::new(
        fill,
        "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%x}, [%y+8];",
        "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%x}, [%y];",
    );
    pair.report_here(FindingKind::Misaligned);
    let body = "setp.eq.u32 %c, %t, 0;\n{LINE}\ncp.async.wait_all;";
    Pair::new(
        body,
        "@%c cp.async.cg.shared.global [%s+8], [%p], 16;",
        "@%c cp.async.cg.shared.global [%s+16], [%p], 16;",
    )
    .report_here(FindingKind::Misaligned);
    Pair::new(
        body,
        "@%c cp.async.ca.shared.global [%s], [%p+4], 8;",
        "@%c cp.async.ca.shared.global [%s], [%p+8], 8;",
    )
    .report_here(FindingKind::Misaligned);
}
