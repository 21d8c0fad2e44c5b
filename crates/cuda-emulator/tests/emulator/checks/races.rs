//! Unordered accesses of two threads to the same bytes, at least one of them a write.

use cuda_emulator::exec::FindingKind;

use super::pair::Pair;

/// Every thread writes its word and reads a word of the other warp.
#[test]
fn a_read_after_a_write_without_a_barrier() {
    let body = "mad.lo.u32 %y, %t, 4, %s;\nst.shared.u32 [%y], %t;\n{LINE}\nxor.b32 %y, %t, 32;\nmad.lo.u32 %y, %y, 4, %s;\nld.shared.u32 %x, [%y];";
    // Half of the words are read before they are written, so all are initialised first.
    let body = format!("mad.lo.u32 %y, %t, 4, %s;\nst.shared.u32 [%y], %b;\nbar.sync 0;\n{body}");
    let pair = Pair::new(body, "mov.u32 %x, 1;", "bar.sync 0;").block(64);
    let (finding, _) = pair.report(FindingKind::SharedRace);
    assert!(finding.line == pair.line() + 3 || finding.line == pair.line() - 1, "{finding}");
    assert!(finding.address.is_some(), "{finding}");
}

#[test]
fn a_write_after_a_read_without_a_barrier() {
    let body = "mad.lo.u32 %y, %t, 4, %s;\nst.shared.u32 [%y], %t;\nbar.sync 0;\nld.shared.u32 %x, [%s];\n{LINE}\nsetp.eq.u32 %c, %t, 63;\n@%c st.shared.u32 [%s], %t;";
    let pair = Pair::new(body, "mov.u32 %x, 1;", "bar.sync 0;").block(64);
    let (finding, _) = pair.report(FindingKind::SharedRace);
    assert!(finding.line == pair.line() + 2 || finding.line == pair.line() - 1, "{finding}");
}

#[test]
fn two_writes_to_one_word() {
    let body = "and.b32 %y, %t, 31;\nmad.lo.u32 %y, %y, 4, %s;\n{LINE}\n@%c st.shared.u32 [%y], %t;";
    let pair = Pair::new(body, "setp.ge.u32 %c, %t, 0;", "setp.ge.u32 %c, %t, 32;").block(64);
    let (finding, _) = pair.report(FindingKind::SharedRace);
    assert_eq!(finding.line, pair.line() + 1, "{finding}");
}

/// Lanes of one instruction that store different values to one address leave either; the value that was there before does
/// not matter. That all store the same is harmless: compilers let each lane store what several of them hold.
#[test]
fn lanes_of_one_store_with_different_values() {
    for old in [0, 5, 7, 9] {
        for (space, address) in [("shared", "%s"), ("global", "%q")] {
            for (width, keep) in [("u8", 0xff), ("u16", 0xffff), ("u32", u32::MAX)] {
                let body = format!(
                    "setp.eq.u32 %d, %t, 0;\nmov.u32 %x, {old};\n@%d st.{space}.{width} [{address}], %x;\nbar.sync 0;\n\
                     setp.eq.u32 %c, %t, 0;\nsetp.eq.u32 %d, %t, 31;\n{{LINE}}\nand.b32 %x, %x, {keep};\nst.{space}.{width} [{address}], %x;"
                );
                let kind = if space == "shared" { FindingKind::SharedRace } else { FindingKind::GlobalRace };
                for broken in ["selp.b32 %x, 5, 7, %c;", "selp.b32 %x, 5, 7, %d;", "mov.u32 %x, %t;"] {
                    let pair = Pair::new(body.clone(), broken, "mov.u32 %x, 7;");
                    let (finding, _) = pair.report(kind);
                    assert_eq!(finding.line, pair.line() + 2, "{finding}");
                }
            }
        }
    }
}

/// The same for vectors: one element differs.
#[test]
fn lanes_of_one_vector_store_with_different_values() {
    for (space, address) in [("shared", "%s"), ("global", "%q")] {
        let kind = if space == "shared" { FindingKind::SharedRace } else { FindingKind::GlobalRace };
        let body = format!("{{LINE}}\nst.{space}.v4.u32 [{address}], {{%x, %x, %x, %y}};");
        let pair = Pair::new(body, "shr.u32 %y, %t, 4;", "shr.u32 %y, %t, 5;");
        let (finding, _) = pair.report(kind);
        assert_eq!(finding.line, pair.line() + 1, "{finding}");
    }
}

/// Each half of the lanes stores to an address of its own; the lanes of a half agree.
#[test]
fn lanes_of_one_store_in_groups() {
    let body = "shr.u32 %y, %t, {SHIFT};\nmad.lo.u32 %x, %y, 4, %s;\n{LINE}\nst.shared.u32 [%x], %y;";
    for shift in ["1", "3", "4"] {
        let body = body.replace("{SHIFT}", shift);
        let pair = Pair::new(body, "mov.u32 %y, %t;", "add.u32 %y, %y, 1;").block(64);
        let (finding, _) = pair.report(FindingKind::SharedRace);
        assert_eq!(finding.line, pair.line() + 1, "{finding}");
    }
}

/// Threads of two warps may store the same value as well, also where one stores it as part of a vector.
#[test]
fn a_word_and_a_vector_with_the_same_word() {
    for (space, address) in [("shared", "%s"), ("global", "%q")] {
        let kind = if space == "shared" { FindingKind::SharedRace } else { FindingKind::GlobalRace };
        let body = format!(
            "setp.eq.u32 %c, %t, 0;\nsetp.eq.u32 %d, %t, 40;\n{{LINE}}\n@%c st.{space}.u32 [{address}+4], 7;\n\
             @%d st.{space}.v4.u32 [{address}], {{%t, %y, %t, %t}};"
        );
        let pair = Pair::new(body, "mov.u32 %y, 8;", "mov.u32 %y, 7;").block(64);
        let (finding, _) = pair.report(kind);
        assert!(finding.line == pair.line() + 1 || finding.line == pair.line() + 2, "{finding}");
    }
}

/// Lanes of one warp race as well; only `bar.warp.sync` orders them.
#[test]
fn lanes_of_a_warp_without_a_warp_barrier() {
    let body = "mad.lo.u32 %y, %t, 4, %s;\nst.shared.u32 [%y], %t;\n{LINE}\nxor.b32 %y, %t, 1;\nmad.lo.u32 %y, %y, 4, %s;\nld.shared.u32 %x, [%y];";
    let pair = Pair::new(body, "mov.u32 %x, 1;", "bar.warp.sync 0xffffffff;");
    let (finding, _) = pair.report(FindingKind::SharedRace);
    assert_eq!(finding.line, pair.line() + 3, "{finding}");
}

/// Accesses to different bytes of one word do not conflict.
#[test]
fn adjacent_bytes_do_not_race() {
    let body = "{LINE}\nadd.u32 %y, %s, %y;\nst.shared.u8 [%y], %t;";
    let pair = Pair::new(body, "shr.u32 %y, %t, 1;", "mov.u32 %y, %t;").block(64);
    let (finding, _) = pair.report(FindingKind::SharedRace);
    assert_eq!(finding.line, pair.line() + 2, "{finding}");
}

/// Atomics on one word do not race with each other, but with plain stores.
#[test]
fn atomics_race_with_stores() {
    let body = "setp.eq.u32 %d, %t, 0;\n@%d st.shared.u32 [%s], %t;\nbar.sync 0;\nsetp.eq.u32 %c, %t, 40;\n{LINE}\nbar.sync 0;";
    let pair = Pair::new(
        body,
        "red.shared.add.u32 [%s], 1; @%c st.shared.u32 [%s], %t;",
        "red.shared.add.u32 [%s], 1; @%c red.shared.add.u32 [%s], %t;",
    )
    .block(64);
    let (finding, _) = pair.report_here(FindingKind::SharedRace);
    assert_eq!(finding.block, [0, 0, 0], "{finding}");
}

/// A barrier only orders the threads that participate in it.
#[test]
fn a_barrier_does_not_order_other_threads() {
    let body = "setp.lt.u32 %c, %t, 64;\nsetp.eq.u32 %d, %t, 70;\n@%d st.shared.u32 [%s], %t;\n{LINE}\nsetp.eq.u32 %d, %t, 0;\n@%d ld.shared.u32 %x, [%s];";
    let body = format!("setp.eq.u32 %d, %t, 0;\n@%d st.shared.u32 [%s], %t;\nbar.sync 0;\n{body}");
    let pair = Pair::new(body, "@%c bar.sync 1, 64;", "bar.sync 1;").block(96);
    let (finding, _) = pair.report(FindingKind::SharedRace);
    assert!(finding.line == pair.line() + 2 || finding.line == pair.line() - 1, "{finding}");
}

/// Blocks are only ordered by the end of the launch.
#[test]
fn two_blocks_on_one_word() {
    let body = "setp.eq.u32 %c, %t, 0;\nmul.wide.u32 %at, %b, 4;\n{LINE}\n@%c st.global.u32 [%q], %b;";
    let pair = Pair::new(body, "mov.u32 %x, 0;", "add.u64 %q, %q, %at;").grid(4);
    let (finding, addresses) = pair.report(FindingKind::GlobalRace);
    assert_eq!((finding.line, finding.thread), (pair.line() + 1, [0, 0, 0]), "{finding}");
    assert_eq!(finding.address, Some(addresses.unwritten), "{finding}");
    assert_eq!(finding.allocation.expect("the allocation is named").address, addresses.unwritten);
}

#[test]
fn a_block_reads_what_another_writes() {
    let body = "setp.eq.u32 %c, %b, 0;\n@%c bra WRITE;\n{LINE}\nbra.uni DONE;\nWRITE:\nsetp.eq.u32 %c, %t, 0;\n@%c st.global.u32 [%p], %t;\nDONE:";
    let pair = Pair::new(body, "ld.global.u32 %x, [%p];", "ld.global.u32 %x, [%p+4];").grid(2);
    let (finding, addresses) = pair.report(FindingKind::GlobalRace);
    assert!(finding.line == pair.line() || finding.line == pair.line() + 4, "{finding}");
    assert_eq!(finding.address, Some(addresses.written), "{finding}");
}

/// A barrier orders the threads of a block in device memory as well.
#[test]
fn threads_of_a_block_in_device_memory() {
    let body = "add.u64 %wide, %q, %at;\nst.global.u32 [%wide], %t;\n{LINE}\nxor.b32 %y, %t, 32;\nmul.wide.u32 %at, %y, 4;\nadd.u64 %wide, %q, %at;\nld.global.u32 %x, [%wide];";
    let before = "add.u64 %wide, %q, %at;\nst.global.u32 [%wide], %b;\nbar.sync 0;\n";
    let body = format!("{before}{body}");
    let pair = Pair::new(body, "mov.u32 %x, 1;", "bar.sync 0;").block(64);
    let (finding, _) = pair.report(FindingKind::GlobalRace);
    assert!(finding.line == pair.line() + 4 || finding.line == pair.line() - 1, "{finding}");
}

/// Atomics of several blocks do not race; a plain store among them does.
#[test]
fn atomics_of_blocks_race_with_stores() {
    let body = "setp.eq.u32 %c, %b, 2;\nsetp.eq.and.u32 %c, %t, 3, %c;\nred.global.add.u32 [%p], 1;\n{LINE}";
    let pair = Pair::new(body, "@%c st.global.u32 [%p], %t;", "@%c red.global.add.u32 [%p], 5;").grid(3);
    let (finding, _) = pair.report(FindingKind::GlobalRace);
    assert!(finding.line == pair.line() || finding.line == pair.line() - 1, "{finding}");
}

/// Launches of one stream are ordered: one may overwrite what another has written.
#[test]
fn launches_of_a_stream_do_not_race() {
    use crate::support::{Gpu, launch};
    let gpu = Gpu::new();
    let ptx = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p)\n{\n.reg .b64 %p, %at;\n.reg .b32 %t;\nld.param.u64 %p, [p];\n\
               mov.u32 %t, %ctaid.x;\nmul.wide.u32 %at, %t, 4;\nadd.u64 %p, %p, %at;\nst.global.u32 [%p], %t;\nret;\n}\n";
    let function = gpu.function(ptx, "k");
    let words = gpu.unwritten::<u32>(8);
    for _ in 0..3 {
        assert!(launch!(gpu, function, (8, 1, 1), (1, 1, 1), 0; &words).is_ok(), "{}", gpu.findings_text());
    }
    assert_eq!(gpu.download(&words), [0, 1, 2, 3, 4, 5, 6, 7]);
}

/// Races are found in every order of warps and blocks, not only in one that gives wrong results.
#[test]
fn races_are_found_in_every_schedule() {
    use crate::support::{Gpu, launch};
    let ptx = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p)\n{\n.reg .b64 %p, %at;\n.reg .b32 %t;\n.reg .pred %c;\nld.param.u64 %p, [p];\n\
               mov.u32 %t, %ctaid.x;\nsetp.ge.u32 %c, %t, 5;\n@%c st.global.u32 [%p], %t;\n@!%c ld.global.u32 %t, [%p];\nret;\n}\n";
    for seed in [None, Some(1), Some(2), Some(3), Some(4)] {
        let gpu = Gpu::new();
        gpu.emulator.set_schedule_seed(seed);
        let words = gpu.zeros::<u32>(8);
        let function = gpu.function(ptx, "k");
        assert!(launch!(gpu, function, (6, 1, 1), (1, 1, 1), 0; &words).is_err(), "{seed:?}");
        assert_eq!(gpu.emulator.take_findings()[0].kind, FindingKind::GlobalRace, "{seed:?}");
    }
}
