//! Accesses to shared memory with a pending `cp.async`.

use cuda_emulator::exec::FindingKind;

use super::pair::Pair;

/// Each lane copies its own 16 bytes and reads them back.
#[test]
fn a_read_before_the_wait() {
    let body = "and.b32 %y, %t, 7;\nmad.lo.u32 %y, %y, 16, %s;\nsetp.lt.u32 %c, %t, 8;\n@!%c ret;\ncp.async.cg.shared.global [%y], [%p], 16;\ncp.async.commit_group;\n{LINE}\nld.shared.u32 %x, [%y];";
    let pair = Pair::new(body, "cp.async.wait_group 1;", "cp.async.wait_group 0;");
    let (finding, _) = pair.report(FindingKind::UnfinishedCopy);
    assert_eq!((finding.line, finding.thread), (pair.line() + 1, [0, 0, 0]), "{finding}");
    let without = Pair::new(body, "mov.u32 %x, 1;", "cp.async.wait_all;");
    without.report(FindingKind::UnfinishedCopy);
}

/// Uncommitted copies do not belong to a group, so waiting for all groups does not wait for them.
#[test]
fn a_copy_that_was_not_committed() {
    let body = "setp.eq.u32 %c, %t, 0;\n@!%c ret;\ncp.async.cg.shared.global [%s], [%p], 16;\n{LINE}\ncp.async.wait_group 0;\nld.shared.u32 %x, [%s];";
    let pair = Pair::new(body, "mov.u32 %x, 1;", "cp.async.commit_group;");
    let (finding, _) = pair.report(FindingKind::UnfinishedCopy);
    assert_eq!(finding.line, pair.line() + 2, "{finding}");
}

/// The wait makes a copy visible to the thread that issued it; other threads need a barrier.
#[test]
fn a_copy_of_another_thread_without_a_barrier() {
    let body = "setp.eq.u32 %c, %t, 0;\n@%c cp.async.cg.shared.global [%s], [%p], 16;\ncp.async.wait_all;\n{LINE}\nld.shared.u32 %x, [%s];";
    let pair = Pair::new(body, "mov.u32 %x, 1;", "bar.sync 0;").block(64);
    let (finding, _) = pair.report(FindingKind::SharedRace);
    assert!(finding.line == pair.line() + 1 || finding.line == pair.line() - 2, "{finding}");
}

/// Another thread reads after a barrier, but the issuing thread has not waited.
#[test]
fn a_barrier_without_the_wait() {
    let body = "setp.eq.u32 %c, %t, 0;\n@%c cp.async.cg.shared.global [%s], [%p], 16;\ncp.async.commit_group;\n{LINE}\nbar.sync 0;\nld.shared.u32 %x, [%s];";
    let pair = Pair::new(body, "mov.u32 %x, 1;", "cp.async.wait_group 0;").block(64);
    let (finding, _) = pair.report(FindingKind::UnfinishedCopy);
    assert_eq!(finding.line, pair.line() + 2, "{finding}");
}

/// Lanes of one instruction may copy the same to one place, as they may store it, and not different bytes.
#[test]
fn lanes_that_copy_to_one_place() {
    let body = "shr.u32 %x, %t, 1;\nmad.lo.u32 %y, %x, 16, %s;\n{LINE}\nmul.wide.u32 %at, %x, 16;\nadd.u64 %p, %p, %at;\n\
                setp.lt.u32 %c, %t, 16;\n@%c cp.async.cg.shared.global [%y], [%p], 16;\ncp.async.commit_group;\n\
                cp.async.wait_group 0;\nbar.sync 0;\n@%c ld.shared.u32 %x, [%y];";
    let pair = Pair::new(body, "mov.u32 %x, %t;", "mov.u32 %b, %t;");
    let (finding, _) = pair.report(FindingKind::SharedRace);
    assert_eq!(finding.line, pair.line() + 4, "{finding}");
}

/// The source is checked like that of a load.
#[test]
fn a_source_outside_its_allocation() {
    let body = "setp.eq.u32 %c, %t, 2;\n{LINE}\ncp.async.wait_all;";
    let pair = Pair::new(
        body,
        "@%c cp.async.cg.shared.global [%s], [%p+256], 16;",
        "@%c cp.async.cg.shared.global [%s], [%p+240], 16;",
    );
    let (finding, addresses) = pair.report_here(FindingKind::OutOfBounds);
    assert_eq!((finding.thread, finding.address), ([2, 0, 0], Some(addresses.written + 256)), "{finding}");
    // Only the bytes of the source size are read.
    let pair = Pair::new(
        body,
        "@%c cp.async.cg.shared.global [%s], [%p+256], 16, 4;",
        "@%c cp.async.cg.shared.global [%s], [%p+256], 16, 0;",
    );
    pair.report_here(FindingKind::OutOfBounds);
    Pair::new(
        body,
        "@%c cp.async.cg.shared.global [%s+256], [%p], 16;",
        "@%c cp.async.cg.shared.global [%s+240], [%p], 16;",
    )
    .report_here(FindingKind::SharedOutOfRange);
}

#[test]
fn an_uninitialised_source() {
    let body = "setp.eq.u32 %c, %t, 2;\n{LINE}\ncp.async.wait_all;\n@%c ld.shared.u32 %x, [%s];";
    let pair = Pair::new(
        body,
        "@%c cp.async.cg.shared.global [%s], [%q], 16;",
        "@%c cp.async.cg.shared.global [%s], [%p], 16;",
    );
    let (finding, _) = pair.report(FindingKind::Uninitialised);
    assert!(finding.line == pair.line() || finding.line == pair.line() + 2, "{finding}");
}

/// A matrix load reads all bytes of the rows.
#[test]
fn matrix_rows_with_a_pending_copy() {
    let body = "and.b32 %y, %t, 7;\nmad.lo.u32 %y, %y, 16, %s;\nsetp.lt.u32 %c, %t, 8;\n@%c cp.async.cg.shared.global [%y], [%p], 16;\ncp.async.commit_group;\n{LINE}\n\
                bar.warp.sync -1;\nldmatrix.sync.aligned.m8n8.x1.shared.b16 {%x}, [%y];";
    let pair = Pair::new(body, "cp.async.wait_group 1;", "cp.async.wait_group 0;");
    let (finding, _) = pair.report(FindingKind::UnfinishedCopy);
    assert_eq!(finding.line, pair.line() + 2, "{finding}");
}
