//! Shuffled orders of blocks and warps.

use crate::support::{Gpu, launch};

const TICKETS: &str = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry tickets(.param .u64 next, .param .u64 taken)\n{\n.reg .b64 %n, %o, %at;\n\
    .reg .b32 %x, %i, %b, %t;\n.reg .pred %first;\nld.param.u64 %n, [next];\nld.param.u64 %o, [taken];\nmov.u32 %t, %tid.x;\nand.b32 %i, %t, 31;\nsetp.ne.u32 %first, %i, 0;\n\
    @%first ret;\natom.global.add.u32 %x, [%n], 1;\nmov.u32 %b, %ctaid.x;\nmad.lo.u32 %i, %b, 4, 0;\nshr.u32 %t, %t, 5;\nadd.u32 %i, %i, %t;\nmul.wide.u32 %at, %x, 4;\n\
    add.u64 %o, %o, %at;\nst.global.u32 [%o], %i;\nret;\n}\n";

/// The order in which 8 blocks of 4 warps took their tickets.
fn order(seed: Option<u64>, threads: usize) -> Vec<u32> {
    let gpu = Gpu::new();
    gpu.emulator.set_schedule_seed(seed);
    gpu.emulator.set_threads(threads);
    let function = gpu.function(TICKETS, "tickets");
    let (next, taken) = (gpu.zeros::<u32>(1), gpu.zeros::<u32>(32));
    launch!(gpu, function, (8, 1, 1), (128, 1, 1), 0; &next, &taken)
        .unwrap_or_else(|error| panic!("{error}: {}", gpu.findings_text()));
    gpu.download(&taken)
}

#[test]
fn a_seed_shuffles_blocks_and_warps() {
    let plain = order(None, 1);
    assert_eq!(plain, (0..32).collect::<Vec<_>>(), "without a seed the order is that of the indices");
    let (one, two) = (order(Some(1), 1), order(Some(2), 1));
    assert_ne!(one, plain);
    assert_ne!(one, two);
    for shuffled in [&one, &two] {
        let mut sorted = shuffled.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, plain, "every warp ran once");
        let blocks: Vec<u32> = shuffled.iter().map(|warp| warp / 4).collect();
        assert!(!blocks.is_sorted(), "blocks are shuffled");
    }
    let warps_in_order =
        |order: &[u32]| (0..8).all(|block| order.iter().filter(|&&warp| warp / 4 == block).is_sorted());
    assert!(!warps_in_order(&one) || !warps_in_order(&two), "warps are shuffled");
}

#[test]
fn a_seed_reproduces_the_order() {
    assert_eq!(order(Some(7), 1), order(Some(7), 1));
}

/// A kernel with barriers, shuffles and shared memory gives the same bits in every order.
#[test]
fn results_of_sound_kernels_do_not_depend_on_the_order() {
    let ptx = include_str!("../textbook/ptx/reduction.nvrtc.ptx");
    let results: Vec<Vec<u32>> = [None, Some(1), Some(2), Some(3), Some(u64::MAX)]
        .into_iter()
        .map(|seed| {
            let gpu = Gpu::new();
            gpu.emulator.set_schedule_seed(seed);
            let function = gpu.function(ptx, "sum_tree");
            let input: Vec<f32> = (0..2000).map(|i| 1.0 / (i as f32 + 1.0)).collect();
            let (from, partial) = (gpu.upload(&input), gpu.zeros::<f32>(8));
            launch!(gpu, function, (8, 1, 1), (256, 1, 1), 0; &2000u32, &from, &partial)
                .unwrap_or_else(|error| panic!("{error}: {}", gpu.findings_text()));
            gpu.download(&partial).into_iter().map(f32::to_bits).collect()
        })
        .collect();
    assert!(results.iter().all(|result| *result == results[0]));
}

/// A float sum by atomics depends on the order, which a shuffled schedule reveals, as hardware would.
#[test]
fn results_that_depend_on_the_order_change() {
    let ptx = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry sum(.param .u64 in, .param .u64 out)\n{\n.reg .b64 %p, %o, %at;\n.reg .b32 %b;\n.reg .f32 %x;\n\
        ld.param.u64 %p, [in];\nld.param.u64 %o, [out];\nmov.u32 %b, %ctaid.x;\nmul.wide.u32 %at, %b, 4;\nadd.u64 %p, %p, %at;\nld.global.f32 %x, [%p];\n\
        red.global.add.f32 [%o], %x;\nret;\n}\n";
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..6 {
        let gpu = Gpu::new();
        gpu.emulator.set_schedule_seed(Some(seed));
        gpu.emulator.set_threads(1);
        let function = gpu.function(ptx, "sum");
        let input: Vec<f32> = (0..64).map(|i| if i % 2 == 0 { 1e7 } else { 0.37 * i as f32 - 1e6 }).collect();
        let (from, to) = (gpu.upload(&input), gpu.zeros::<f32>(1));
        launch!(gpu, function, (64, 1, 1), (1, 1, 1), 0; &from, &to)
            .unwrap_or_else(|error| panic!("{error}: {}", gpu.findings_text()));
        seen.insert(gpu.download(&to)[0].to_bits());
    }
    assert!(seen.len() > 1);
}
