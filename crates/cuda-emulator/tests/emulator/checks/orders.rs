//! Synchronisation by copy pipelines, locks and flags, and the same programs without it.

use cuda_emulator::exec::FindingKind;

use super::pair::Pair;

/// A pipeline stage is overwritten while the other warp may still read it: the barrier at the end of the iteration is
/// missing.
#[test]
fn a_pipeline_stage_overwritten_too_early() {
    let body = "mov.u32 %y, 0;\nLOOP:\nsetp.eq.u32 %c, %t, 0;\n@%c cp.async.cg.shared.global [%s], [%p], 16;\ncp.async.wait_all;\nbar.sync 0;\n\
                ld.shared.u32 %x, [%s+4];\n{LINE}\nadd.u32 %y, %y, 1;\nsetp.lt.u32 %c, %y, 3;\n@%c bra LOOP;";
    let pair = Pair::new(body, "mov.u32 %x, 1;", "bar.sync 0;").block(64);
    let (finding, _) = pair.report(FindingKind::SharedRace);
    assert!(finding.line == pair.line() - 4 || finding.line == pair.line() - 1, "{finding}");
}

/// A plain store to the destination of a pending copy.
#[test]
fn a_store_to_the_destination_of_a_pending_copy() {
    let body = "setp.eq.u32 %c, %t, 0;\n@%c cp.async.cg.shared.global [%s], [%p], 16;\ncp.async.commit_group;\n{LINE}\nsetp.eq.u32 %d, %t, 33;\n\
                @%d st.shared.u32 [%s], %t;\ncp.async.wait_all;\nbar.sync 0;";
    let pair = Pair::new(body, "bar.sync 1;", "cp.async.wait_all; bar.sync 1;").block(64);
    let gpu_finding = pair.report_any(&[FindingKind::SharedRace, FindingKind::UnfinishedCopy]);
    assert!(gpu_finding.line == pair.line() + 2 || gpu_finding.line == pair.line() - 2, "{gpu_finding}");
}

/// A load of matrix rows that another warp writes.
#[test]
fn matrix_rows_without_a_barrier() {
    let body = "mad.lo.u32 %y, %t, 4, %s;\nst.shared.u32 [%y], %t;\n{LINE}\nand.b32 %y, %t, 7;\nmad.lo.u32 %y, %y, 16, %s;\n\
                ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%x}, [%y+128];";
    let body = format!("mad.lo.u32 %y, %t, 4, %s;\nst.shared.u32 [%y], %b;\nbar.sync 0;\n{body}");
    let pair = Pair::new(body, "mov.u32 %x, 1;", "bar.sync 0;").block(64);
    pair.report(FindingKind::SharedRace);
}

/// Each block increments a counter under a lock, acquired by compare-and-swap and a fence, released by a fence and an
/// exchange.
#[test]
fn a_lock_orders_its_holders() {
    let body = "setp.ne.u32 %c, %t, 0;\n@%c ret;\n{LINE}\nld.global.u32 %x, [%p+4];\nadd.u32 %x, %x, 1;\nst.global.u32 [%p+4], %x;\n\
                membar.gl;\natom.global.exch.b32 %y, [%p], 0;";
    let acquire = "SPIN: atom.global.cas.b32 %y, [%p], 0, 1; setp.ne.u32 %c, %y, 0; @%c bra SPIN; membar.gl;";
    let pair = Pair::new(body, "mov.u32 %y, 1;", acquire).grid(4);
    let (finding, addresses) = pair.report(FindingKind::GlobalRace);
    assert_eq!(finding.address, Some(addresses.written + 4), "{finding}");
}

/// One block writes a word and, after a fence, sets a flag; the other spins on the flag and, after a fence, reads the
/// word.
#[test]
fn a_flag_with_fences_publishes_data() {
    let body = "setp.ne.u32 %c, %t, 0;\n@%c ret;\nsetp.eq.u32 %c, %b, 0;\n@%c bra FILL;\nSPIN:\nld.volatile.global.u32 %y, [%p];\n\
                setp.eq.u32 %c, %y, 0;\n@%c bra SPIN;\nmembar.gl;\nld.global.u32 %x, [%q];\nret;\nFILL:\nst.global.u32 [%q], %x;\n{LINE}\n\
                atom.global.exch.b32 %y, [%p], 1;";
    let pair = Pair::new(body, "mov.u32 %y, 1;", "membar.gl;").grid(2);
    pair.report(FindingKind::GlobalRace);
}

/// Release and acquire on the flag itself are equivalent to fences.
#[test]
fn a_flag_with_release_and_acquire_publishes_data() {
    let body = "setp.ne.u32 %c, %t, 0;\n@%c ret;\nsetp.eq.u32 %c, %b, 0;\n@%c bra FILL;\nSPIN:\nld.acquire.gpu.global.u32 %y, [%p];\n\
                setp.eq.u32 %c, %y, 0;\n@%c bra SPIN;\nld.global.u32 %x, [%q];\nret;\nFILL:\nst.global.u32 [%q], %x;\nmov.u32 %y, 1;\n{LINE}";
    let pair =
        Pair::new(body, "st.relaxed.gpu.global.u32 [%p], %y;", "st.release.gpu.global.u32 [%p], %y;").grid(2);
    pair.report(FindingKind::GlobalRace);
}
