//! The model of how long blocks take.

use cuda_emulator::exec::Counts;

use crate::interpreter::{Bench, Parameters};

/// The counts of one block of a kernel with this body, with a buffer in `%rd0`.
fn counts(threads: u32, body: &str) -> Counts {
    let mut bench = Bench::body(body);
    bench.options.timing = true;
    let address = bench.words(&vec![0; 1 << 16]);
    bench.launch(1, threads, Parameters::default().long(address)).unwrap()
}

fn clocks(body: &str) -> u64 {
    counts(32, body).longest_block
}

/// Clocks that a body takes longer than another.
fn longer(body: &str, than: &str) -> u64 {
    clocks(body) - clocks(than)
}

const START: &str = "mov.f32 %f1, 0f3F800000;\nmov.f32 %f2, 0f3F800000;\n";

#[test]
fn dependent_instructions_wait_and_others_are_issued_one_a_clock() {
    let chain = START.to_owned() + &"fma.rn.f32 %f1, %f1, %f1, %f1;\n".repeat(100);
    let apart: String = (0..100).map(|i| format!("fma.rn.f32 %f{}, %f1, %f1, %f1;\n", 3 + i % 20)).collect();
    // The end of the kernel is not waited for twice.
    assert!((490..=500).contains(&longer(&chain, START)));
    assert!((95..=100).contains(&longer(&(START.to_owned() + &apart), START)));
    let guarded = "setp.gt.f32 %p1, %f1, %f2;\n@%p1 fma.rn.f32 %f3, %f2, %f2, %f2;\n";
    let body = START.to_owned() + guarded + &"fma.rn.f32 %f3, %f3, %f3, %f3;\n".repeat(20);
    let without = START.to_owned() + &"fma.rn.f32 %f3, %f2, %f3, %f3;\n".repeat(20);
    assert_eq!(longer(&body, &without), 10);
}

#[test]
fn loads_in_flight_share_their_latency_and_lines_are_cached() {
    let load = |to: u32, at: u32| format!("ld.global.f32 %f{to}, [%rd0+{at}];\n");
    let together: String = (0..8).map(|i| load(i, 4096 * i)).collect();
    let one = clocks(&load(0, 0));
    assert!((0..=8).contains(&(clocks(&together) - one)));
    let chased = "ld.global.u64 %rd1, [%rd0];\nadd.u64 %rd2, %rd1, %rd0;\nld.global.u64 %rd3, [%rd2+4096];\n";
    assert_eq!(longer(chased, &load(0, 0)), 5 + 600);
    let again = "ld.global.u64 %rd1, [%rd0];\nadd.u64 %rd2, %rd1, %rd0;\nld.global.u64 %rd3, [%rd2+8];\n";
    assert_eq!(longer(again, &load(0, 0)), 5 + 35);
}

#[test]
fn a_branch_waits_for_its_condition_and_what_follows_for_the_branch() {
    let loops = |count: u32| {
        format!("mov.u32 %r1, {count};\nL: sub.u32 %r1, %r1, 1;\nsetp.ne.u32 %p1, %r1, 0;\n@%p1 bra L;\n")
    };
    assert_eq!(longer(&loops(11), &loops(1)), 10 * (5 + 5 + 8));
}

#[test]
fn all_warps_leave_a_barrier_after_the_last_has_arrived() {
    let chain = "fma.rn.f32 %f1, %f1, %f1, %f1;\n".repeat(100);
    let body = |chain: &str| {
        format!(
            "{START}mov.u32 %r1, %tid.x;\nsetp.ge.u32 %p1, %r1, 32;\n@%p1 bra L;\n{chain}setp.gt.f32 %p2, %f1, %f2;\n@%p2 bra L;\nL:\nbar.sync 0;\n"
        )
    };
    let [long, short] = [chain.as_str(), ""].map(|chain| counts(128, &body(chain)).longest_block);
    assert_eq!(long - short, 500);
}

#[test]
fn a_wait_for_copies_leaves_the_last_groups() {
    let copy = |group: u32| {
        format!(
            "cp.async.ca.shared.global [s+{}], [%rd0+{}], 16;\ncp.async.commit_group;\n",
            16 * group,
            4096 * group
        )
    };
    // A load first, so that the copies are issued later.
    let body = |keep: u32| {
        format!(
            ".shared .align 16 .b8 s[64];\n{}ld.global.u64 %rd1, [%rd0+8192];\nsetp.eq.u64 %p1, %rd1, 1;\n@%p1 bra L;\nL:\n{}cp.async.wait_group {keep};\n{START}",
            copy(0),
            copy(1),
        )
    };
    let [all, but_one] = [0, 1].map(|keep| clocks(&body(keep)));
    assert!(all - but_one <= 10, "the end of the block waits for copies, too: {all}, {but_one}");
    let after = |keep: u32| body(keep) + &"fma.rn.f32 %f1, %f1, %f1, %f1;\n".repeat(100);
    let [all, but_one] = [0, 1].map(|keep| clocks(&after(keep)));
    assert!((490..=510).contains(&(all - but_one)), "{all}, {but_one}");
}

#[test]
fn nothing_is_modelled_unless_asked_for() {
    let mut bench = Bench::body(START);
    assert!(!bench.options.timing);
    bench.options.threads = 1;
    let address = bench.words(&[0]);
    let counts = bench.launch(3, 32, Parameters::default().long(address)).unwrap();
    assert_eq!((counts.block_clocks, counts.longest_block), (0, 0));
    bench.options.timing = true;
    let counts = bench.launch(3, 32, Parameters::default().long(address)).unwrap();
    assert_eq!(counts.block_clocks, 3 * counts.longest_block);
}
