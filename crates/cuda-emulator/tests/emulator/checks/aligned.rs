//! `.aligned` instructions that lanes of a diverged warp reach without the others.

use cuda_emulator::exec::FindingKind;

use super::pair::Pair;
use crate::support::{Gpu, launch};

const DECLARATIONS: &str = "{ .reg .f32 %v<4>; .reg .b32 %f<6>; mov.f32 %v0, 0f00000000; mov.f32 %v1, %v0; mov.f32 %v2, %v0; mov.f32 %v3, %v0; mov.b32 %f0, 0;\n\
    mov.b32 %f1, 0; mov.b32 %f2, 0; mov.b32 %f3, 0; mov.b32 %f4, 0; mov.b32 %f5, 0;\n";

const MMA: &str = "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%v0,%v1,%v2,%v3}, {%f0,%f1,%f2,%f3}, {%f4,%f5}, {%v0,%v1,%v2,%v3};";

/// In each round half of the lanes go around the instruction, and the other half in the next. If the first waited there for
/// the others, they would meet in different rounds.
#[test]
fn halves_of_a_warp_that_take_turns() {
    for (instruction, kind) in [
        (MMA, FindingKind::AbsentLane),
        ("movmatrix.sync.aligned.m8n8.trans.b16 %f0, %f1;", FindingKind::AbsentLane),
        ("bar.sync 0;", FindingKind::DivergentBarrier),
        ("barrier.sync.aligned 0;", FindingKind::DivergentBarrier),
    ] {
        let body = format!(
            "{DECLARATIONS}mov.u32 %y, 0;\nLOOP:\n{{LINE}}\nand.b32 %x, %x, 1;\nsetp.eq.u32 %c, %x, 0;\n@%c bra SKIP;\n\
             {instruction}\nSKIP:\nadd.u32 %y, %y, 1;\nsetp.lt.u32 %d, %y, 4;\n@%d bra LOOP;\n}}"
        );
        let pair = Pair::new(body, "add.u32 %x, %t, %y;", "mov.u32 %x, %y;");
        let (finding, _) = pair.report(kind);
        assert_eq!(finding.line, pair.line() + 4, "{finding}");
        assert!(finding.message.contains(".aligned") && finding.message.contains("diverged"), "{finding}");
    }
}

/// Lanes that leave the loop earlier than the others do not come back to the instruction.
#[test]
fn a_loop_that_lanes_leave_at_different_times() {
    let body = format!(
        "{DECLARATIONS}mov.u32 %y, 0;\n{{LINE}}\nLOOP:\n{MMA}\nadd.u32 %y, %y, 1;\nsetp.lt.u32 %d, %y, %x;\n@%d bra LOOP;\n\
         bar.warp.sync -1;\n}}"
    );
    let pair = Pair::new(body, "shr.u32 %x, %t, 3;", "mov.u32 %x, 3;");
    let (finding, _) = pair.report(FindingKind::AbsentLane);
    assert_eq!(finding.line, pair.line() + 2, "{finding}");
}

/// A guard that does not hold in all lanes.
#[test]
fn a_guard_of_some_lanes() {
    let body = format!("{DECLARATIONS}{{LINE}}\n@%c {MMA}\n}}");
    let pair = Pair::new(body, "setp.lt.u32 %c, %t, 20;", "setp.lt.u32 %c, %t, 32;");
    let (finding, _) = pair.report(FindingKind::AbsentLane);
    assert_eq!(finding.line, pair.line() + 1, "{finding}");
}

fn run(body: &str, explicit: bool) -> Result<(), String> {
    let gpu = Gpu::new();
    gpu.emulator.set_explicit_convergence(explicit);
    let ptx = format!(
        ".version 7.8\n.target sm_80\n.address_size 64\n.visible .entry k()\n{{\n.reg .b32 %t, %x, %y;\n.reg .pred %c, %d;\nmov.u32 %t, %tid.x;\n\
         {DECLARATIONS}{body}\n}}\nret;\n}}\n"
    );
    let function = gpu.function(&ptx, "k");
    launch!(gpu, function, (1, 1, 1), (64, 1, 1), 0;).map_err(|_| gpu.findings_text())
}

/// Where all paths of a branch lead to the instruction, its lanes are together there, in whatever order they run.
#[test]
fn paths_that_meet_before_the_instruction() {
    for instruction in [MMA, "bar.sync 0;"] {
        for body in [
            // One side is at the end of the text and jumps back.
            "setp.lt.u32 %c, %t, 7;\n@%c bra AWAY;\nBACK:\n{I}\nbra.uni DONE;\nAWAY:\nadd.u32 %x, %t, 1;\nbra.uni BACK;\nDONE:",
            // Different numbers of iterations, also more than the interpreter lets others wait for.
            "mul.lo.u32 %x, %t, 40;\nmov.u32 %y, 0;\nLOOP:\nadd.u32 %y, %y, 1;\nsetp.lt.u32 %c, %y, %x;\n@%c bra LOOP;\n{I}",
            // Many rounds, in each of which half of the lanes have a loop of their own. Nobody has waited for long.
            "mov.u32 %y, 0;\nROUND:\nand.b32 %x, %t, 1;\nsetp.eq.u32 %c, %x, 0;\n@%c bra MEET;\nOWN:\nadd.u32 %x, %x, 1;\n\
             setp.lt.u32 %d, %x, 4;\n@%d bra OWN;\nMEET:\nadd.u32 %y, %y, 1;\nsetp.ge.u32 %d, %y, 200;\n@%d bra END;\n{I}\n\
             bra.uni ROUND;\nEND:",
            // A branch within a branch.
            "setp.lt.u32 %c, %t, 7;\n@%c bra A;\nsetp.lt.u32 %d, %t, 9;\n@%d bra B;\nmov.u32 %x, 1;\nB:\nmov.u32 %x, 2;\nA:\n{I}",
            // Some lanes wait for each other first.
            "setp.lt.u32 %c, %t, 8;\n@!%c bra A;\nbar.warp.sync 0xff;\nA:\n{I}",
        ] {
            // A shuffle of lanes 0 to 7 of each warp: only the first warp has any below thread 8.
            let body = body.replace("{I}", instruction);
            run(&body, false).unwrap_or_else(|findings| panic!("{body}: {findings}"));
        }
    }
}

/// Where convergence must be explicit, a matrix instruction needs a convergent instruction after a divergent branch.
#[test]
fn convergence_that_only_compilers_bring_about() {
    let divergent = "setp.lt.u32 %c, %t, 7;\n@%c bra A;\nmov.u32 %x, 2;\nA:\n";
    for (between, explicit) in [
        ("", false),
        ("bar.warp.sync -1;\n", true),
        ("bar.sync 0;\n", true),
        ("shfl.sync.idx.b32 %x, %t, 0, 31, -1;\n", true),
        ("bar.warp.sync %y;\n", false),
    ] {
        // In lanes 0 to 15 and 16 to 31 apart.
        let halves = "and.b32 %y, %t, 16;\nsetp.eq.u32 %d, %y, 0;\nselp.b32 %y, 0xffff, 0xffff0000, %d;\n";
        let body = format!("{halves}{divergent}{between}{MMA}");
        run(&body, false).unwrap_or_else(|findings| panic!("{body}: {findings}"));
        let findings = run(&body, true);
        assert_eq!(findings.is_ok(), explicit, "{body}: {findings:?}");
        if let Err(findings) = findings {
            assert!(findings.contains("AbsentLane") && findings.contains("diverged at line"), "{findings}");
        }
    }
    // A branch of all lanes is none, and a barrier converges lanes itself.
    run(&format!("setp.lt.u32 %c, %t, 99;\n@%c bra A;\nmov.u32 %x, 2;\nA:\n{MMA}"), true).unwrap();
    run(&format!("{divergent}bar.sync 0;"), true).unwrap();
}
