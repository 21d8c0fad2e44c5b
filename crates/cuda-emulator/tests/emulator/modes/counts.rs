//! Counts of a launch, compared with hand-computed values.

use cuda_emulator::exec::{Class, Counts};

use crate::support::{Gpu, launch};

/// Runs a kernel with a buffer of 4096 words and returns its counts.
fn counts(body: &str, grid: u32, block: u32) -> Counts {
    let gpu = Gpu::new();
    let ptx = format!(
        ".version 7.8\n.target sm_80\n.address_size 64\n.visible .entry counted(.param .u64 p)\n{{\n.reg .b64 %p, %at;\n.reg .b32 %t, %x, %y, %s;\n\
         .reg .f32 %f, %g;\n.reg .pred %c;\n.shared .align 16 .b8 tile[8192];\n{body}\nret;\n}}\n"
    );
    let function = gpu.function(&ptx, "counted");
    let words = gpu.upload(&vec![1u32; 4096]);
    launch!(gpu, function, (grid, 1, 1), (block, 1, 1), 0; &words)
        .unwrap_or_else(|error| panic!("{error}: {}", gpu.findings_text()));
    let mut launches = gpu.emulator.take_counts();
    assert_eq!(launches.len(), 1);
    let launch = launches.remove(0);
    assert_eq!((launch.kernel.as_str(), launch.grid, launch.block), ("counted", [grid, 1, 1], [block, 1, 1]));
    assert_eq!((launch.dynamic_shared_bytes, launch.static_shared_bytes), (0, 8192));
    launch.counts
}

#[test]
fn instructions_are_counted_by_class_and_lane() {
    // Two blocks of 40 threads are four warps of 32, 8, 32, 8 lanes.
    let counts = counts(
        "mov.u32 %t, %tid.x;\nadd.u32 %x, %t, 1;\nmul.lo.u32 %x, %x, 3;\ncvt.rn.f32.u32 %f, %x;\nfma.rn.f32 %f, %f, %f, %f;\n\
         ex2.approx.f32 %g, %f;\nsetp.lt.u32 %c, %t, 4;\n@%c add.u32 %x, %x, 1;",
        2,
        40,
    );
    assert_eq!((counts.blocks, counts.warps), (2, 4));
    assert_eq!(counts.of(Class::Move), 4);
    assert_eq!(counts.of(Class::Float), 4);
    assert_eq!(counts.of(Class::Special), 4);
    assert_eq!(counts.of(Class::Convert), 4);
    assert_eq!(counts.of(Class::Control), 4, "the return");
    assert_eq!(
        counts.of(Class::Double)
            + counts.of(Class::Half)
            + counts.of(Class::Global)
            + counts.of(Class::Shared),
        0
    );
    // add, mul, setp, and the guarded add in all warps: it is issued even in a warp with no active lane.
    assert_eq!(counts.of(Class::Integer), 16);
    assert_eq!(counts.total(), 36);
    // Eight instructions with all 40 threads of a block, and the guarded one with four.
    assert_eq!(counts.lanes, 2 * (8 * 40 + 4));
}

#[test]
fn sectors_and_their_minimum_are_counted() {
    let at = |stride: u32| {
        format!(
            "ld.param.u64 %p, [p];\nmov.u32 %t, %tid.x;\nmul.wide.u32 %at, %t, {stride};\nadd.u64 %at, %at, %p;\nld.global.u32 %x, [%at];"
        )
    };
    // Consecutive words: four sectors of 32 bytes. Every other word: eight, with a minimum of four. One sector per lane: 32.
    for (stride, sectors) in [(4, 4), (8, 8), (32, 32), (64, 32), (0, 1)] {
        let counts = counts(&at(stride), 1, 32);
        assert_eq!(counts.global_sectors, sectors, "stride {stride}");
        assert_eq!(counts.global_sectors_minimum, if stride == 0 { 1 } else { 4 }, "stride {stride}");
        assert_eq!((counts.global_bytes_read, counts.global_bytes_written), (128, 0), "stride {stride}");
        assert_eq!(counts.of(Class::Global), 1, "stride {stride}");
    }
    // A warp that starts in the middle of a sector accesses one more.
    let counts = counts(&at(4).replace("ld.global.u32 %x, [%at];", "ld.global.u32 %x, [%at+16];"), 1, 32);
    assert_eq!((counts.global_sectors, counts.global_sectors_minimum), (5, 4));
}

#[test]
fn wide_stores_are_counted_by_bytes() {
    let counts = counts(
        "ld.param.u64 %p, [p];\nmov.u32 %t, %tid.x;\nmul.wide.u32 %at, %t, 16;\nadd.u64 %at, %at, %p;\nst.global.v4.u32 [%at], {%t, %t, %t, %t};",
        1,
        32,
    );
    assert_eq!((counts.global_sectors, counts.global_sectors_minimum), (16, 16));
    assert_eq!((counts.global_bytes_read, counts.global_bytes_written), (0, 512));
}

#[test]
fn bank_conflicts_are_additional_passes() {
    let store = |stride: u32| {
        format!(
            "mov.u32 %t, %tid.x;\nmov.u32 %s, tile;\nmad.lo.u32 %s, %t, {stride}, %s;\nst.shared.u32 [%s], %t;"
        )
    };
    for (stride, conflicts) in [(4, 0), (8, 1), (12, 0), (16, 3), (64, 15), (128, 31), (132, 0)] {
        let counts = counts(&store(stride), 1, 32);
        assert_eq!(
            (counts.shared_passes, counts.shared_conflicts),
            (conflicts + 1, conflicts),
            "stride {stride}"
        );
        assert_eq!((counts.of(Class::Shared), counts.shared_bytes), (1, 128), "stride {stride}");
    }
    // All lanes read one word: a broadcast.
    let counts = counts(
        "mov.u32 %t, %tid.x;\nmov.u32 %s, tile;\nsetp.eq.u32 %c, %t, 0;\n@%c st.shared.u32 [%s], %t;\nbar.sync 0;\nld.shared.u32 %x, [%s];",
        1,
        32,
    );
    assert_eq!((counts.shared_conflicts, counts.barriers), (0, 1));
}

#[test]
fn atomics_barriers_and_products_are_counted() {
    let counts = counts(
        "ld.param.u64 %p, [p];\nmov.u32 %t, %tid.x;\nsetp.lt.u32 %c, %t, 10;\n@%c red.global.add.u32 [%p], 1;\nsetp.eq.u32 %c, %t, 0;\n\
         @%c st.shared.u32 [tile], %t;\nbar.sync 0;\natom.shared.add.u32 %x, [tile], 1;\nbar.sync 0;",
        3,
        64,
    );
    assert_eq!(counts.global_atomics, 30);
    assert_eq!(counts.shared_atomics, 3 * 64);
    assert_eq!(counts.barriers, 3 * 2 * 2);
    assert_eq!(counts.of(Class::Barrier), 12);
}

/// Counts are the same whatever the schedule and the number of worker threads.
#[test]
fn counts_do_not_depend_on_the_schedule() {
    let ptx = include_str!("../textbook/ptx/matmul_tensor.clang.ptx");
    let run = |seed: Option<u64>, threads: usize| {
        let gpu = Gpu::new();
        gpu.emulator.set_schedule_seed(seed);
        gpu.emulator.set_threads(threads);
        let function = gpu.function(ptx, "matmul_f16");
        let (a, b, c) = (gpu.zeros::<u16>(64 * 64), gpu.zeros::<u16>(64 * 64), gpu.zeros::<f32>(64 * 64));
        launch!(gpu, function, (4, 4, 1), (32, 1, 1), 0; &64u32, &64u32, &a, &b, &c)
            .unwrap_or_else(|error| panic!("{error}: {}", gpu.findings_text()));
        gpu.emulator.take_counts().remove(0).counts
    };
    let first = run(None, 1);
    // 64 x 64 x 64 products, two instructions per k-step of 16, in warps with 16 x 16 sums each.
    assert_eq!(first.matrix_multiply_adds, 64 * 64 * 64);
    assert_eq!(first.of(Class::Matrix), 16 * 4 * 2);
    assert_eq!(first, run(None, 2));
    assert_eq!(first, run(Some(9), 2));
}

#[test]
fn a_program_that_takes_no_counts_does_not_collect_them_for_ever() {
    const LAUNCHES: usize = 20_000;
    let gpu = Gpu::new();
    let function = gpu.function(
        ".version 7.8\n.target sm_80\n.address_size 64\n.visible .entry empty(.param .u64 p)\n{\nret;\n}\n",
        "empty",
    );
    let words = gpu.upload(&[0u32]);
    for launch in 0..LAUNCHES {
        // The last launch has a grid of its own.
        let blocks = if launch + 1 == LAUNCHES { 2 } else { 1 };
        launch!(gpu, function, (blocks, 1, 1), (1, 1, 1), 0; &words).expect("an empty kernel runs");
    }
    let launches = gpu.emulator.take_counts();
    assert!((8192..=16_384).contains(&launches.len()), "{}", launches.len());
    assert_eq!(launches.last().map(|launch| launch.grid), Some([2, 1, 1]));
}
