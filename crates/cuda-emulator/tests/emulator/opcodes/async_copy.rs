//! Asynchronous copies: PTX ISA, "cp.async", "cp.async.commit_group", "cp.async.wait_group".

use crate::support::{Expect, Gpu, Row, Table, Width};

/// Each thread copies its two operands, 16 bytes at [%in], to 16 bytes of shared memory, which contained ones.
fn copy(text: &str) -> String {
    format!(
        "{{ .shared .align 16 .b8 tile[2048]; .reg .b32 %at, %base; mov.u32 %at, %tid.x; shl.b32 %at, %at, 4; mov.u32 %base, tile; \
         add.u32 %at, %at, %base; mov.b64 %r, -1; st.shared.v2.b64 [%at], {{%r, %r}}; {text} ld.shared.v2.b64 {{%r, %r1}}, [%at]; }}"
    )
}

fn rows(oracle: impl Fn(u64, u64) -> (u64, u64)) -> Vec<Row> {
    [(0x0123_4567_89ab_cdefu64, 0xfedc_ba98_7654_3210u64), (0, 0), (u64::MAX, 1)]
        .map(|(a, b)| {
            let (low, high) = oracle(a, b);
            Row { operands: vec![a, b], results: vec![Expect::Bits(low), Expect::Bits(high)] }
        })
        .to_vec()
}

const TWO: [Width; 2] = [Width::B64; 2];

#[test]
fn bytes_arrive_after_the_wait() {
    let mut table = Table::new();
    let done = "cp.async.wait_all;";
    for hint in ["", ".L2::64B", ".L2::128B", ".L2::256B"] {
        table.raw(
            &copy(&format!("cp.async.cg.shared.global{hint} [%at], [%in], 16; {done}")),
            &TWO,
            &TWO,
            rows(|a, b| (a, b)),
        );
    }
    table.raw(
        &copy(&format!("cp.async.ca.shared.global [%at], [%in], 16; {done}")),
        &TWO,
        &TWO,
        rows(|a, b| (a, b)),
    );
    table.raw(
        &copy(&format!("cp.async.ca.shared.global [%at], [%in], 8; {done}")),
        &TWO,
        &TWO,
        rows(|a, _| (a, u64::MAX)),
    );
    table.raw(
        &copy(&format!("cp.async.ca.shared.global [%at+4], [%in+8], 4; {done}")),
        &TWO,
        &TWO,
        rows(|_, b| (b << 32 | 0xffff_ffff, u64::MAX)),
    );
    table.raw(
        &copy("cp.async.cg.shared.global [%at], [%in], 16; cp.async.commit_group; cp.async.wait_group 0;"),
        &TWO,
        &TWO,
        rows(|a, b| (a, b)),
    );
    table.run(&Gpu::new());
}

/// Bytes past the source size are zero, and no source bytes are read for them.
#[test]
fn short_sources_are_padded_with_zeros() {
    let mut table = Table::new();
    for (size, low, high) in [
        (0u32, 0u64, 0u64),
        (4, 0xffff_ffff, 0),
        (8, u64::MAX, 0),
        (12, u64::MAX, 0xffff_ffff),
        (16, u64::MAX, u64::MAX),
    ] {
        let text = format!("cp.async.cg.shared.global [%at], [%in], 16, {size}; cp.async.wait_all;");
        table.raw(&copy(&text), &TWO, &TWO, rows(move |a, b| (a & low, b & high)));
        let text = format!(
            "{{ .reg .b32 %size; mov.u32 %size, {size}; cp.async.ca.shared.global [%at], [%in], 16, %size; cp.async.wait_all; }}"
        );
        table.raw(&copy(&text), &TWO, &TWO, rows(move |a, b| (a & low, b & high)));
    }
    // With a source size of zero the source address may be invalid.
    table.raw(
        &copy("{ .reg .b64 %nowhere; mov.u64 %nowhere, 0; cp.async.cg.shared.global [%at], [%nowhere], 16, 0; cp.async.wait_all; }"),
        &TWO,
        &TWO,
        rows(|_, _| (0, 0)),
    );
    table.run(&Gpu::new());
}

/// After `wait_group 1` the latest group is still pending and must not be read; the older group is complete.
#[test]
fn groups_complete_in_order() {
    let mut table = Table::new();
    let text = "cp.async.ca.shared.global [%at], [%in], 8; cp.async.commit_group; cp.async.ca.shared.global [%at+8], [%in+8], 8; \
                cp.async.commit_group; cp.async.wait_group 1; ld.shared.b64 %r, [%at]; st.shared.b64 [%at], %r; cp.async.wait_group 0;";
    table.raw(&copy(text), &TWO, &TWO, rows(|a, b| (a, b)));
    // An empty group counts as a group.
    let text = "cp.async.cg.shared.global [%at], [%in], 16; cp.async.commit_group; cp.async.commit_group; cp.async.wait_group 1;";
    table.raw(&copy(text), &TWO, &TWO, rows(|a, b| (a, b)));
    table.run(&Gpu::new());
}

/// The source is read before the wait returns: a later store of the thread to the source has no effect.
#[test]
fn a_store_after_the_wait_does_not_change_the_copy() {
    let mut table = Table::new();
    let text = "cp.async.cg.shared.global [%at], [%in], 16; cp.async.wait_all; st.global.b64 [%in], 5;";
    table.raw(&copy(text), &TWO, &TWO, rows(|a, b| (a, b)));
    table.run(&Gpu::new());
}
