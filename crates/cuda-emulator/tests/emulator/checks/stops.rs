//! Kernels that trap or never end, and contexts that leak.

use cuda_emulator::exec::FindingKind;

use super::pair::Pair;
use crate::support::{Gpu, launch};

#[test]
fn traps_are_reported_with_their_thread() {
    let pair = Pair::new(
        "setp.eq.u32 %c, %t, 20;\nsetp.eq.and.u32 %c, %b, 1, %c;\n{LINE}",
        "@%c trap;",
        "@%c exit;",
    )
    .grid(2);
    let (finding, _) = pair.report_here(FindingKind::Trap);
    assert_eq!((finding.block, finding.thread), ([1, 0, 0], [20, 0, 0]), "{finding}");
}

#[test]
fn endless_loops_end_at_the_limit() {
    let gpu = Gpu::new();
    let ptx = |step: u32| {
        format!(
            ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k()\n{{\n.reg .b32 %x;\n.reg .pred %p;\nmov.u32 %x, 0;\nLOOP:\nadd.u32 %x, %x, {step};\n\
             setp.ne.u32 %p, %x, 100;\n@%p bra LOOP;\nret;\n}}\n"
        )
    };
    gpu.emulator.set_instruction_limit(Some(100_000));
    let sound = gpu.function(&ptx(1), "k");
    assert!(launch!(gpu, sound, (1, 1, 1), (32, 1, 1), 0;).is_ok(), "{}", gpu.findings_text());
    // Steps of three skip the value 100.
    let broken = gpu.function(&ptx(3), "k");
    assert!(launch!(gpu, broken, (1, 1, 1), (32, 1, 1), 0;).is_err());
    let finding = gpu.emulator.take_findings().remove(0);
    assert_eq!((finding.kind, finding.kernel.as_str()), (FindingKind::Hang, "k"), "{finding}");
    assert!((10..=12).contains(&finding.line), "{finding}");
}

/// A warp spins on a flag that only a later warp sets; it ends because scheduling is fair.
#[test]
fn waiting_for_another_warp_is_not_a_hang() {
    let gpu = Gpu::new();
    let ptx = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 flag)\n{\n.reg .b64 %f;\n.reg .b32 %t, %x;\n.reg .pred %p, %w;\nld.param.u64 %f, [flag];\n\
               mov.u32 %t, %tid.x;\nsetp.eq.u32 %w, %t, 32;\n@%w atom.global.exch.b32 %x, [%f], 1;\nsetp.ge.u32 %w, %t, 32;\n@%w ret;\n\
               SPIN:\nld.volatile.global.u32 %x, [%f];\nsetp.eq.u32 %p, %x, 0;\n@%p bra SPIN;\nret;\n}\n";
    let function = gpu.function(ptx, "k");
    for seed in [None, Some(5), Some(6)] {
        gpu.emulator.set_schedule_seed(seed);
        let flag = gpu.zeros::<u32>(1);
        assert!(launch!(gpu, function, (1, 1, 1), (64, 1, 1), 0; &flag).is_ok(), "{}", gpu.findings_text());
    }
}

/// The first finding stops the launch and is recorded; other work in the context continues.
#[test]
fn work_continues_after_a_finding() {
    let gpu = Gpu::new();
    let ptx = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u32 stop, .param .u64 to)\n{\n.reg .b64 %to;\n.reg .b32 %x;\n.reg .pred %p;\nld.param.u32 %x, [stop];\n\
               setp.ne.u32 %p, %x, 0;\n@%p trap;\nld.param.u64 %to, [to];\nst.global.u32 [%to], 5;\nret;\n}\n";
    let function = gpu.function(ptx, "k");
    let mut to = gpu.zeros::<u32>(1);
    assert!(launch!(gpu, function, (1, 1, 1), (1, 1, 1), 0; &1u32, &mut to).is_err());
    assert!(launch!(gpu, function, (1, 1, 1), (1, 1, 1), 0; &0u32, &mut to).is_ok());
    assert_eq!(gpu.download(&to), [5]);
    assert_eq!(gpu.emulator.findings().len(), 1);
    assert_eq!(gpu.emulator.take_findings().len(), 1);
    assert_eq!(gpu.emulator.findings(), []);
}

#[test]
fn memory_that_outlives_its_context_is_a_leak() {
    let Gpu { stream, context, emulator } = Gpu::new();
    let kept = stream.clone_htod(&[1u32; 10]).expect("the device has room");
    let freed = stream.clone_htod(&[2u32; 20]).expect("the device has room");
    drop(freed);
    assert_eq!(emulator.live_allocations().len(), 1);
    assert_eq!(emulator.live_allocations()[0].bytes, 40);
    let leaked = kept.leak();
    assert_ne!(leaked, 0);
    drop(stream);
    drop(context);
    let leaks = emulator.take_leaks();
    assert_eq!(leaks.len(), 1);
    assert_eq!(leaks[0].allocations.iter().map(|allocation| allocation.bytes).collect::<Vec<_>>(), [40]);
}

#[test]
fn a_context_that_freed_everything_leaks_nothing() {
    let Gpu { stream, context, emulator } = Gpu::new();
    drop(stream.clone_htod(&[1u32; 10]).expect("the device has room"));
    drop(stream);
    drop(context);
    assert_eq!(emulator.take_leaks(), []);
}
