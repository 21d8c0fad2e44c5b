//! Barriers that not all threads reach.

use cuda_emulator::exec::FindingKind;

use super::pair::Pair;

/// The lanes of one warp go to different barriers, or half of them to none.
#[test]
fn diverged_lanes_of_a_warp() {
    let body = "setp.lt.u32 %c, %t, 16;\n@%c bra LOW;\n{LINE}\nbra.uni DONE;\nLOW:\nmov.u32 %x, 2;\nDONE:\nmov.u32 %x, 3;";
    let pair = Pair::new(body, "bar.sync 0;", "mov.u32 %x, 1;").block(64);
    let (finding, _) = pair.report_here(FindingKind::DivergentBarrier);
    assert!(finding.thread[0] >= 16, "{finding}");
}

/// One warp waits at barrier 0, the other at barrier 1; neither can continue.
#[test]
fn warps_at_different_barriers() {
    let body = "setp.lt.u32 %c, %t, 32;\n{LINE}\nbar.sync 0;\nbra.uni DONE;\nOTHER:\nbar.sync 1;\nDONE:";
    let pair = Pair::new(body, "@%c bra OTHER;", "mov.u32 %x, 1;").block(64);
    let (finding, _) = pair.report(FindingKind::DivergentBarrier);
    assert!(finding.line == pair.line() + 1 || finding.line == pair.line() + 4, "{finding}");
}

/// One warp leaves a loop an iteration earlier. A barrier does not wait for warps that have exited, but it does for warps
/// that wait elsewhere.
#[test]
fn one_more_iteration_for_one_warp() {
    let body = "mov.u32 %y, 0;\nshr.u32 %x, %t, 5;\n{LINE}\nLOOP:\nbar.sync 0;\nadd.u32 %y, %y, 1;\nsetp.lt.u32 %c, %y, %x;\n@%c bra LOOP;\nbar.sync 1;";
    let pair = Pair::new(body, "add.u32 %x, %x, 1;", "mov.u32 %x, 2;").block(64);
    let (finding, _) = pair.report(FindingKind::DivergentBarrier);
    assert!(finding.line == pair.line() + 2 || finding.line == pair.line() + 6, "{finding}");
}

/// The thread count is larger than the number of threads.
#[test]
fn a_thread_count_larger_than_the_block() {
    let pair = Pair::new("{LINE}", "bar.sync 2, 128;", "bar.sync 2, 64;").block(64);
    pair.report_here(FindingKind::DivergentBarrier);
}

/// The thread count is not a multiple of the warp size.
#[test]
fn a_thread_count_that_is_not_a_multiple_of_the_warp_size() {
    let pair = Pair::new("mov.u32 %y, 48;\n{LINE}", "bar.sync 2, %y;", "bar.sync 2, 64;").block(64);
    pair.report_here(FindingKind::Undefined);
}

/// `bar.warp.sync` waits for the lanes of its membermask.
#[test]
fn lanes_missing_at_a_warp_barrier() {
    let body = "setp.lt.u32 %c, %t, 4;\n{LINE}\nshfl.sync.idx.b32 %x, %t, 0, 31, -1;";
    let pair = Pair::new(body, "@%c bar.warp.sync 0xffffffff;", "@%c bar.warp.sync 0x0000000f;");
    let (finding, _) = pair.report(FindingKind::AbsentLane);
    assert!(finding.line == pair.line() || finding.line == pair.line() + 1, "{finding}");
}
