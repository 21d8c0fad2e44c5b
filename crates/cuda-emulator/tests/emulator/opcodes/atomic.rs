//! Atomics and reductions of single lanes, for which old and new value are known: PTX ISA, "atom" and "red". Concurrent
//! atomics of many lanes are tested by the textbook kernels.

use half::f16;

use crate::support::{Expect, Gpu, Outcome, Pair, Row, Table, Width, Word};

/// The operand %a is at [%in] in device memory and is copied to `tile` in shared memory; %r receives the old value, %r1 the
/// new one.
fn atomic<A: Word + Outcome>(table: &mut Table, op: &str, oracle: impl Fn(A, A) -> A) {
    let bits = A::WIDTH.register();
    let mut rows = Vec::new();
    for a in A::edges() {
        for b in A::edges() {
            rows.push(Row {
                operands: vec![a.bits(), b.bits()],
                results: vec![Expect::Bits(a.bits()), oracle(a, b).expect()],
            });
        }
    }
    let without_old: Vec<Row> = rows
        .iter()
        .map(|row| Row { operands: row.operands.clone(), results: row.results[1..].to_vec() })
        .collect();
    let (operands, results) = ([A::WIDTH; 2], [A::WIDTH; 2]);
    table.raw(
        &format!("atom.global.{op} %r, [%in], %b; ld.global{bits} %r1, [%in];"),
        &operands,
        &results,
        rows.clone(),
    );
    table.raw(
        &format!("atom.{op} %r, [%in], %b; ld.global{bits} %r1, [%in];"),
        &operands,
        &results,
        rows.clone(),
    );
    table.raw(
        &shared(&format!(
            "st.shared{bits} [%at], %a; atom.shared.{op} %r, [%at], %b; ld.shared{bits} %r1, [%at];"
        )),
        &operands,
        &results,
        rows,
    );
    if !op.starts_with("exch") {
        table.raw(
            &format!("red.global.{op} [%in], %b; ld.global{bits} %r, [%in];"),
            &operands,
            &results[..1],
            without_old.clone(),
        );
        table.raw(
            &shared(&format!(
                "st.shared{bits} [%at], %a; red.shared.{op} [%at], %b; ld.shared{bits} %r, [%at];"
            )),
            &operands,
            &results[..1],
            without_old,
        );
    }
}

/// Reserves eight bytes of shared memory at %at for each thread of a block of 128.
fn shared(text: &str) -> String {
    format!(
        "{{ .shared .align 8 .b8 tile[1024]; .reg .b32 %at, %base; mov.u32 %at, %tid.x; shl.b32 %at, %at, 3; mov.u32 %base, tile; add.u32 %at, %at, %base; {text} }}"
    )
}

#[test]
fn integers() {
    let mut table = Table::new();
    atomic(&mut table, "add.u32", |a: u32, b| a.wrapping_add(b));
    atomic(&mut table, "add.s32", |a: i32, b| a.wrapping_add(b));
    atomic(&mut table, "add.u64", |a: u64, b| a.wrapping_add(b));
    atomic(&mut table, "min.s32", |a: i32, b| a.min(b));
    atomic(&mut table, "max.s32", |a: i32, b| a.max(b));
    atomic(&mut table, "min.u32", |a: u32, b| a.min(b));
    atomic(&mut table, "max.u32", |a: u32, b| a.max(b));
    atomic(&mut table, "min.s64", |a: i64, b| a.min(b));
    atomic(&mut table, "max.s64", |a: i64, b| a.max(b));
    atomic(&mut table, "min.u64", |a: u64, b| a.min(b));
    atomic(&mut table, "max.u64", |a: u64, b| a.max(b));
    atomic(&mut table, "inc.u32", |a: u32, b| if a >= b { 0 } else { a + 1 });
    atomic(&mut table, "dec.u32", |a: u32, b| if a == 0 || a > b { b } else { a - 1 });
    table.run(&Gpu::new());
}

#[test]
fn bits() {
    let mut table = Table::new();
    atomic(&mut table, "and.b32", |a: u32, b| a & b);
    atomic(&mut table, "or.b32", |a: u32, b| a | b);
    atomic(&mut table, "xor.b32", |a: u32, b| a ^ b);
    atomic(&mut table, "and.b64", |a: u64, b| a & b);
    atomic(&mut table, "or.b64", |a: u64, b| a | b);
    atomic(&mut table, "xor.b64", |a: u64, b| a ^ b);
    atomic(&mut table, "exch.b32", |_: u32, b| b);
    atomic(&mut table, "exch.b64", |_: u64, b| b);
    table.run(&Gpu::new());
}

/// Single-precision addition flushes subnormals in device memory, but not in shared memory.
#[test]
fn floats() {
    let mut table = Table::new();
    atomic(&mut table, "add.f64", |a: f64, b| a + b);
    atomic(&mut table, "add.noftz.f16x2", |a: Pair<f16>, b| {
        Pair(f16::from_f64(a.0.to_f64() + b.0.to_f64()), f16::from_f64(a.1.to_f64() + b.1.to_f64()))
    });
    let tiny = f32::from_bits(1);
    let smallest = f32::MIN_POSITIVE;
    let one = |a: f32, b: f32, sum: f32| Row {
        operands: vec![a.bits(), b.bits()],
        results: vec![Expect::Bits(a.bits()), sum.expect()],
    };
    let normal = [
        one(1.0, 2.5, 3.5),
        one(1.0, f32::EPSILON / 2.0, 1.0),
        one(f32::MAX, f32::MAX, f32::INFINITY),
        one(1.0, f32::NAN, f32::NAN),
        one(-1.5, 1.5, 0.0),
    ];
    let (operands, results) = ([Width::B32; 2], [Width::B32; 2]);
    let global: Vec<Row> = normal
        .iter()
        .cloned()
        .chain([
            one(tiny, 0.0, 0.0),
            one(tiny, tiny, 0.0),
            one(smallest * 1.5, -smallest, 0.0),
            one(tiny, 1.0, 1.0),
        ])
        .collect();
    table.raw("atom.global.add.f32 %r, [%in], %b; ld.global.b32 %r1, [%in];", &operands, &results, global);
    let kept: Vec<Row> = normal
        .iter()
        .cloned()
        .chain([
            one(tiny, 0.0, tiny),
            one(tiny, tiny, f32::from_bits(2)),
            one(smallest * 1.5, -smallest, smallest * 0.5),
        ])
        .collect();
    table.raw(
        &shared("st.shared.b32 [%at], %a; atom.shared.add.f32 %r, [%at], %b; ld.shared.b32 %r1, [%at];"),
        &operands,
        &results,
        kept,
    );
    table.raw(
        "red.global.add.f32 [%in], %b; ld.global.b32 %r, [%in];",
        &operands,
        &results[..1],
        normal
            .iter()
            .map(|row| Row { operands: row.operands.clone(), results: row.results[1..].to_vec() })
            .collect(),
    );
    table.run(&Gpu::new());
}

#[test]
fn halves() {
    let mut table = Table::new();
    let rows: Vec<Row> = [
        (1.0f32, 2.0f32, 3.0f32),
        (2048.0, 1.0, 2048.0),
        (65504.0, 65504.0, f32::INFINITY),
        (6e-8, 6e-8, 1.2e-7),
    ]
    .map(|(a, b, sum)| Row {
        operands: vec![f16::from_f32(a).bits(), f16::from_f32(b).bits()],
        results: vec![Expect::Bits(f16::from_f32(a).bits()), f16::from_f32(sum).expect()],
    })
    .to_vec();
    table.raw(
        "atom.global.add.noftz.f16 %r, [%in], %b; ld.global.b16 %r1, [%in];",
        &[Width::B16; 2],
        &[Width::B16; 2],
        rows,
    );
    table.run(&Gpu::new());
}

#[test]
fn compare_and_swap() {
    let mut table = Table::new();
    for (bits, width) in [("b32", Width::B32), ("b64", Width::B64)] {
        let mut rows = Vec::new();
        for found in [0u64, 1, 0xffff_ffff] {
            for compare in [0u64, 1, 0xffff_ffff] {
                let new = if found == compare { 77 } else { found };
                rows.push(Row {
                    operands: vec![found, compare, 77],
                    results: vec![Expect::Bits(found), Expect::Bits(new)],
                });
            }
        }
        table.raw(
            &format!("atom.global.cas.{bits} %r, [%in], %b, %c; ld.global.{bits} %r1, [%in];"),
            &[width; 3],
            &[width; 2],
            rows.clone(),
        );
        table.raw(&shared(&format!("st.shared.{bits} [%at], %a; atom.shared.cas.{bits} %r, [%at], %b, %c; ld.shared.{bits} %r1, [%at];")), &[width; 3], &[width; 2], rows);
    }
    let rows = [(3u64, 3u64, 9u64), (3, 4, 3)].map(|(found, compare, new)| Row {
        operands: vec![found, compare, 9],
        results: vec![Expect::Bits(found), Expect::Bits(new)],
    });
    table.raw(
        "atom.global.cas.b16 %r, [%in], %b, %c; ld.global.b16 %r1, [%in];",
        &[Width::B16; 3],
        &[Width::B16; 2],
        rows.to_vec(),
    );
    table.run(&Gpu::new());
}

/// Ordering and scope do not affect the values.
#[test]
fn orders_and_scopes() {
    let mut table = Table::new();
    let rows = [(1u64, 2u64, 3u64), (5, 0xffff_ffff, 4)]
        .map(|(a, b, sum)| Row { operands: vec![a, b], results: vec![Expect::Bits(a), Expect::Bits(sum)] });
    for qualifiers in [
        ".relaxed.cta.global",
        ".relaxed.gpu.global",
        ".acquire.gpu.global",
        ".release.gpu.global",
        ".acq_rel.sys.global",
        ".gpu.global",
        ".cta.global",
        ".sys.global",
        ".relaxed.sys",
        ".acq_rel.gpu",
    ] {
        table.raw(
            &format!("atom{qualifiers}.add.u32 %r, [%in], %b; ld.global.b32 %r1, [%in];"),
            &[Width::B32; 2],
            &[Width::B32; 2],
            rows.to_vec(),
        );
    }
    let one = rows.map(|row| Row { operands: row.operands, results: row.results[1..].to_vec() });
    for qualifiers in [".relaxed.gpu.global", ".release.gpu.global", ".gpu.global"] {
        table.raw(
            &format!("red{qualifiers}.add.u32 [%in], %b; ld.global.b32 %r, [%in];"),
            &[Width::B32; 2],
            &[Width::B32; 1],
            one.to_vec(),
        );
    }
    table.run(&Gpu::new());
}

/// All lanes use one address: every lane gets a different old value, and the sum is complete.
#[test]
fn lanes_on_one_address_are_serialised() {
    let gpu = Gpu::new();
    let ptx = ".version 7.4\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 counter, .param .u64 old)\n{\n\
        .reg .b64 %c, %o, %at;\n.reg .b32 %v, %i, %n, %t;\nld.param.u64 %c, [counter];\nld.param.u64 %o, [old];\n\
        atom.global.inc.u32 %v, [%c], 1023;\nmul.wide.u32 %at, %v, 4;\nadd.u64 %o, %o, %at;\nmov.u32 %i, %ctaid.x;\nmov.u32 %n, %ntid.x;\n\
        mov.u32 %t, %tid.x;\nmad.lo.u32 %i, %i, %n, %t;\nst.global.u32 [%o], %i;\nret;\n}\n";
    let function = gpu.function(ptx, "k");
    let mut counter = gpu.zeros::<u32>(1);
    let mut old = gpu.zeros::<u32>(1024);
    crate::support::launch!(gpu, function, (8, 1, 1), (128, 1, 1), 0; &mut counter, &mut old)
        .unwrap_or_else(|error| panic!("{error}: {}", gpu.findings_text()));
    assert_eq!(gpu.download(&counter), [0], "inc wraps to zero after its bound");
    let mut seen = gpu.download(&old);
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..1024));
}
