//! `.sync` instructions whose membermask does not match the lanes that execute them.

use cuda_emulator::exec::FindingKind;

use super::pair::Pair;

/// Twelve lanes take the branch, but the membermask includes all; the others wait at another instruction, or have exited.
/// (By the PTX ISA an instruction does not wait for lanes that have exited, but a membermask that includes one is a bug,
/// because they have nothing to exchange.)
#[test]
fn a_shuffle_that_not_all_reach() {
    for after in ["shfl.sync.idx.b32 %y, %t, 0, 31, 0xffffffff;", "mov.u32 %y, 1;"] {
        let body = format!("setp.lt.u32 %c, %t, 12;\n@!%c bra DONE;\n{{LINE}}\nDONE:\n{after}");
        let broken = "shfl.sync.bfly.b32 %x, %t, 1, 31, 0xffffffff;";
        let pair = Pair::new(body, broken, "shfl.sync.bfly.b32 %x, %t, 1, 31, 0x00000fff;");
        let (finding, _) = pair.report(FindingKind::AbsentLane);
        assert!(finding.line == pair.line() || finding.line == pair.line() + 2, "{finding}");
    }
}

/// The membermask of a partial warp includes lanes that do not exist.
#[test]
fn lanes_that_do_not_exist() {
    let broken = "redux.sync.add.s32 %x, %t, 0xffffffff;";
    let pair = Pair::new("{LINE}", broken, "redux.sync.add.s32 %x, %t, 0x00ffffff;").block(24);
    pair.report_here(FindingKind::AbsentLane);
}

/// A lane that executes the instruction is not in its own membermask.
#[test]
fn a_lane_outside_its_mask() {
    let pair = Pair::new(
        "setp.ne.u32 %c, 0, 0;\n{LINE}",
        "vote.sync.ballot.b32 %x, %c, 0x7fffffff;",
        "vote.sync.ballot.b32 %x, %c, 0xffffffff;",
    );
    let (finding, _) = pair.report_here(FindingKind::AbsentLane);
    assert_eq!(finding.thread, [31, 0, 0], "{finding}");
}

#[test]
fn a_vote_a_match_and_a_reduction_that_not_all_reach() {
    for (broken, sound) in [
        ("@%c vote.sync.any.pred %d, %c, -1;", "@%c vote.sync.any.pred %d, %c, 0xff;"),
        ("@%c match.any.sync.b32 %x, %t, -1;", "@%c match.any.sync.b32 %x, %t, 0xff;"),
        ("@%c redux.sync.max.u32 %x, %t, -1;", "@%c redux.sync.max.u32 %x, %t, 0xff;"),
    ] {
        for after in ["bar.warp.sync -1;", "mov.u32 %y, 1;"] {
            let body = format!("setp.lt.u32 %c, %t, 8;\n{{LINE}}\n{after}");
            let pair = Pair::new(body, broken, sound);
            let (finding, _) = pair.report(FindingKind::AbsentLane);
            assert!(finding.line == pair.line() || finding.line == pair.line() + 1, "{finding}");
        }
    }
}

/// A lane reads the value of an inactive lane.
#[test]
fn a_shuffle_from_a_lane_outside_the_mask() {
    let body = "setp.lt.u32 %c, %t, 16;\n{LINE}";
    let pair = Pair::new(
        body,
        "@%c shfl.sync.down.b32 %x, %t, 8, 31, 0xffff;",
        "@%c shfl.sync.bfly.b32 %x, %t, 8, 31, 0xffff;",
    );
    let (finding, _) = pair.report_here(FindingKind::Undefined);
    assert!((8..16).contains(&finding.thread[0]), "{finding}");
}

/// Matrix instructions need the whole warp.
#[test]
fn a_matrix_instruction_in_a_branch() {
    let body = "{ .reg .f32 %v<4>; .reg .b32 %f<6>; mov.f32 %v0, 0f00000000; mov.f32 %v1, %v0; mov.f32 %v2, %v0; mov.f32 %v3, %v0; mov.b32 %f0, 0;\n\
                mov.b32 %f1, 0; mov.b32 %f2, 0; mov.b32 %f3, 0; mov.b32 %f4, 0; mov.b32 %f5, 0; setp.lt.u32 %c, %t, 31;\n{LINE}\n\
                mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%v0,%v1,%v2,%v3}, {%f0,%f1,%f2,%f3}, {%f4,%f5}, {%v0,%v1,%v2,%v3};\nDONE: }";
    let pair = Pair::new(body, "@!%c bra DONE;", "mov.u32 %y, 1;");
    let (finding, _) = pair.report(FindingKind::AbsentLane);
    assert_eq!(finding.line, pair.line() + 1, "{finding}");
}
