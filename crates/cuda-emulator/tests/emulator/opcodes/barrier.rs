//! Barriers and fences: PTX ISA, "bar", "barrier", "bar.warp.sync", "membar", "fence".

use crate::support::{Expect, Gpu, Row, Table, Width};

const THREADS: u32 = 96;

/// Rows for one block of 96 threads.
fn rows(result: impl Fn(u32) -> u64) -> Vec<Row> {
    (0..THREADS)
        .map(|thread| Row { operands: vec![thread.into()], results: vec![Expect::Bits(result(thread))] })
        .collect()
}

/// Every thread writes its own word and reads the word of the mirrored thread.
fn exchange(barrier: &str) -> String {
    format!(
        "{{ .shared .align 4 .b8 tile[384]; .reg .b32 %at, %base; mov.u32 %base, tile; shl.b32 %at, %a, 2; add.u32 %at, %at, %base; \
         st.shared.u32 [%at], %a; {barrier} sub.u32 %at, 95, %a; shl.b32 %at, %at, 2; add.u32 %at, %at, %base; ld.shared.u32 %r, [%at]; }}"
    )
}

#[test]
fn all_threads_of_a_block_synchronise() {
    let mut table = Table::new().block(THREADS);
    for barrier in [
        "bar.sync 0;",
        "bar.sync 5;",
        "bar.sync 0, 96;",
        "barrier.sync 3;",
        "barrier.sync.aligned 0;",
        "bar.cta.sync 0;",
        "barrier.cta.sync 1, 96;",
        "membar.cta; bar.sync 0; membar.gl; membar.sys;",
        "fence.acq_rel.cta; bar.sync 0; fence.acq_rel.gpu; fence.sc.sys; fence.sc.cta; fence.acq_rel.sys;",
        "bar.sync 0; bar.sync 1; bar.sync 0;",
        "{ .reg .b32 %id; mov.u32 %id, 7; bar.sync %id; }",
    ] {
        table.raw(&exchange(barrier), &[Width::B32], &[Width::B32], rows(|thread| (95 - thread).into()));
    }
    table.run(&Gpu::new());
}

#[test]
fn barriers_reduce_predicates() {
    let mut table = Table::new().block(THREADS);
    let vote = "{ .reg .pred %p; setp.lt.u32 %p, %a, 37; ";
    table.raw(&format!("{vote} bar.red.popc.u32 %r, 0, %p; }}"), &[Width::B32], &[Width::B32], rows(|_| 37));
    table.raw(&format!("{vote} bar.red.popc.u32 %r, 0, !%p; }}"), &[Width::B32], &[Width::B32], rows(|_| 59));
    table.raw(
        &format!("{vote} barrier.red.popc.u32 %r, 2, 96, %p; }}"),
        &[Width::B32],
        &[Width::B32],
        rows(|_| 37),
    );
    for (op, result) in [("and", 0u64), ("or", 1)] {
        let text = format!("{vote} .reg .pred %q; bar.red.{op}.pred %q, 0, %p; selp.u32 %r, 1, 0, %q; }}");
        table.raw(&text, &[Width::B32], &[Width::B32], rows(|_| result));
    }
    let text =
        "{ .reg .pred %p, %q; setp.lt.u32 %p, %a, 96; bar.red.and.pred %q, 1, %p; selp.u32 %r, 1, 0, %q; }";
    table.raw(text, &[Width::B32], &[Width::B32], rows(|_| 1));
    table.run(&Gpu::new());
}

/// Two warps synchronise at a barrier of their own while the third continues; then the third arrives without waiting, and the
/// two wait for it.
#[test]
fn some_warps_synchronise_and_others_only_arrive() {
    let mut table = Table::new().block(THREADS);
    let pair = "{ .shared .align 4 .b8 tile[256]; .reg .pred %third; .reg .b32 %at, %base; mov.u32 %base, tile; setp.ge.u32 %third, %a, 64; \
                mov.u32 %r, 7; @%third bra DONE; shl.b32 %at, %a, 2; add.u32 %at, %at, %base; st.shared.u32 [%at], %a; bar.sync 1, 64; \
                xor.b32 %at, %a, 32; shl.b32 %at, %at, 2; add.u32 %at, %at, %base; ld.shared.u32 %r, [%at]; DONE: }";
    table.raw(
        pair,
        &[Width::B32],
        &[Width::B32],
        rows(|thread| if thread < 64 { (thread ^ 32).into() } else { 7 }),
    );
    let produce = "{ .shared .align 4 .b8 slot[128]; .reg .pred %producer; .reg .b32 %at, %base; mov.u32 %base, slot; and.b32 %at, %a, 31; \
                   shl.b32 %at, %at, 2; add.u32 %at, %at, %base; setp.lt.u32 %producer, %a, 32; mov.u32 %r, %a; @%producer bra PRODUCE; \
                   bar.sync 2, 96; ld.shared.u32 %r, [%at]; bra.uni DONE; PRODUCE: st.shared.u32 [%at], %a; bar.arrive 2, 96; DONE: }";
    table.raw(produce, &[Width::B32], &[Width::B32], rows(|thread| (thread % 32).into()));
    table.run(&Gpu::new());
}

/// Lanes of a warp exchange values through shared memory with a warp barrier only.
#[test]
fn lanes_of_a_warp_synchronise() {
    let mut table = Table::new().block(THREADS);
    let text = "{ .shared .align 4 .b8 tile[384]; .reg .b32 %at, %base; mov.u32 %base, tile; shl.b32 %at, %a, 2; add.u32 %at, %at, %base; \
                st.shared.u32 [%at], %a; bar.warp.sync 0xffffffff; xor.b32 %at, %a, 9; shl.b32 %at, %at, 2; add.u32 %at, %at, %base; \
                ld.shared.u32 %r, [%at]; }";
    table.raw(text, &[Width::B32], &[Width::B32], rows(|thread| (thread ^ 9).into()));
    table.run(&Gpu::new());
}

/// A barrier does not wait for threads that have exited, be they whole warps or lanes of a warp.
#[test]
fn exited_threads_are_not_waited_for() {
    let gpu = Gpu::new();
    for leaving in [64u32, 80, 95] {
        let ptx = format!(
            ".version 7.4\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 to)\n{{\n.reg .b64 %to;\n.reg .b32 %t, %n;\n\
             .reg .pred %leaves, %first;\nld.param.u64 %to, [to];\nmov.u32 %t, %tid.x;\nsetp.ge.u32 %leaves, %t, {leaving};\n@%leaves exit;\n\
             setp.eq.u32 %first, 0, 0;\nbarrier.red.popc.u32 %n, 0, %first;\nsetp.eq.u32 %first, %t, 0;\n@%first st.global.u32 [%to], %n;\nret;\n}}\n"
        );
        let function = gpu.function(&ptx, "k");
        let mut output = gpu.zeros::<u32>(1);
        crate::support::launch!(gpu, function, (1, 1, 1), (THREADS, 1, 1), 0; &mut output)
            .unwrap_or_else(|error| panic!("{leaving}: {error}: {}", gpu.findings_text()));
        assert_eq!(gpu.download(&output), [leaving]);
    }
}
