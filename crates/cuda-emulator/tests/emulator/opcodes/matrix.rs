//! Matrix instructions: PTX ISA, "ldmatrix", "mma.m16n8k8", "mma.m16n8k16" and their fragment layouts. With small integers
//! every sum of products is exact, so the summation order cannot hide a misplaced element.

use half::{bf16, f16};

use crate::support::{Expect, Gpu, Row, Table, Width};

/// A small integer that differs from those of nearby elements.
fn element(row: usize, column: usize, salt: usize) -> f32 {
    ((row * 37 + column * 11 + salt * 5 + row * column) % 61) as f32 - 30.0
}

/// Row and column in A (16 x k) of element `i` of a lane, for 16-bit elements: four registers of two.
fn place_a(lane: usize, i: usize) -> (usize, usize) {
    let (group, inside) = (lane / 4, lane % 4);
    let row = if i % 4 < 2 { group } else { group + 8 };
    let column = inside * 2 + i % 2 + if i >= 4 { 8 } else { 0 };
    (row, column)
}

/// Row and column in B (k x 8): two registers of two.
fn place_b(lane: usize, i: usize) -> (usize, usize) {
    let (group, inside) = (lane / 4, lane % 4);
    (inside * 2 + i % 2 + if i >= 2 { 8 } else { 0 }, group)
}

/// Row and column in C and D (16 x 8): four registers.
fn place_c(lane: usize, i: usize) -> (usize, usize) {
    let (group, inside) = (lane / 4, lane % 4);
    (if i < 2 { group } else { group + 8 }, inside * 2 + i % 2)
}

fn product(row: usize, column: usize, depth: usize) -> f32 {
    (0..depth).fold(element(row, column, 3), |sum, k| sum + element(row, k, 1) * element(k, column, 2))
}

fn pack(low: u16, high: u16) -> u64 {
    u64::from(low) | u64::from(high) << 16
}

/// Names of operands and results: %a..%d for A, %e and %f for B, %g..%j for C.
const PRODUCT_16: &str = "{%r, %r1, %r2, %r3}, {%a, %b, %c, %d}, {%e, %f}, {%g, %h, %i, %j};";

fn rows_16(convert: fn(f32) -> u16) -> Vec<Row> {
    (0..32)
        .map(|lane| {
            let a = |i| {
                let (row, k) = place_a(lane, i);
                convert(element(row, k, 1))
            };
            let b = |i| {
                let (k, column) = place_b(lane, i);
                convert(element(k, column, 2))
            };
            let mut operands: Vec<u64> = (0..4).map(|i| pack(a(2 * i), a(2 * i + 1))).collect();
            operands.extend((0..2).map(|i| pack(b(2 * i), b(2 * i + 1))));
            let mut results = Vec::new();
            for i in 0..4 {
                let (row, column) = place_c(lane, i);
                operands.push(element(row, column, 3).to_bits().into());
                results.push(Expect::Bits(product(row, column, 16).to_bits().into()));
            }
            Row { operands, results }
        })
        .collect()
}

#[test]
fn products_of_16_bit_fragments() {
    let mut table = Table::new().block(32);
    let (operands, results) = ([Width::B32; 10], [Width::B32; 4]);
    let f16_rows = rows_16(|x| f16::from_f32(x).to_bits());
    let bf16_rows = rows_16(|x| bf16::from_f32(x).to_bits());
    table.raw(
        &format!("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {PRODUCT_16}"),
        &operands,
        &results,
        f16_rows,
    );
    table.raw(
        &format!("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {PRODUCT_16}"),
        &operands,
        &results,
        bf16_rows,
    );
    table.run(&Gpu::new());
}

/// m16n8k8 of 16-bit types: the fragments are the first halves of those for m16n8k16.
#[test]
fn products_of_depth_eight() {
    let rows = |convert: fn(f32) -> u16| -> Vec<Row> {
        (0..32usize)
            .map(|lane| {
                let (group, inside) = (lane / 4, lane % 4);
                let a = |row: usize| {
                    let at = |k| convert(element(row, k, 1));
                    pack(at(inside * 2), at(inside * 2 + 1))
                };
                let b = |k: usize| convert(element(k, group, 2));
                let mut operands = vec![a(group), a(group + 8), pack(b(inside * 2), b(inside * 2 + 1))];
                let mut results = Vec::new();
                for i in 0..4 {
                    let (row, column) = place_c(lane, i);
                    operands.push(element(row, column, 3).to_bits().into());
                    results.push(Expect::Bits(product(row, column, 8).to_bits().into()));
                }
                Row { operands, results }
            })
            .collect()
    };
    let mut table = Table::new().block(32);
    let layout = "{%r, %r1, %r2, %r3}, {%a, %b}, {%c}, {%d, %e, %f, %g};";
    let (operands, results) = ([Width::B32; 7], [Width::B32; 4]);
    table.raw(
        &format!("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {layout}"),
        &operands,
        &results,
        rows(|x| f16::from_f32(x).to_bits()),
    );
    table.raw(
        &format!("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {layout}"),
        &operands,
        &results,
        rows(|x| bf16::from_f32(x).to_bits()),
    );
    table.run(&Gpu::new());
}

#[test]
fn products_of_tf32_fragments() {
    let rows: Vec<Row> = (0..32usize)
        .map(|lane| {
            let (group, inside) = (lane / 4, lane % 4);
            let mut operands: Vec<u64> = [(0, 0), (8, 0), (0, 4), (8, 4)]
                .map(|(down, right)| u64::from(element(group + down, inside + right, 1).to_bits()))
                .to_vec();
            operands.extend([0, 4].map(|down| u64::from(element(inside + down, group, 2).to_bits())));
            let mut results = Vec::new();
            for i in 0..4 {
                let (row, column) = place_c(lane, i);
                operands.push(element(row, column, 3).to_bits().into());
                results.push(Expect::Bits(product(row, column, 8).to_bits().into()));
            }
            Row { operands, results }
        })
        .collect();
    let mut table = Table::new().block(32);
    table.raw(
        &format!("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {PRODUCT_16}"),
        &[Width::B32; 10],
        &[Width::B32; 4],
        rows,
    );
    table.run(&Gpu::new());
}

/// Rows of eight 16-bit elements: lane i supplies the address of row i, counted over all matrices; here in reverse order.
#[test]
fn matrices_are_loaded_by_rows() {
    let text = |count: usize, form: &str, list: &str| {
        format!(
            "{{ .shared .align 16 .b8 tile[512]; .reg .b32 %at, %base, %lane; mov.u32 %lane, %laneid; mov.u32 %base, tile; \
             shl.b32 %at, %lane, 4; add.u32 %at, %at, %base; st.shared.b64 [%at], %a; st.shared.b64 [%at+8], %b; bar.warp.sync -1; \
             and.b32 %lane, %lane, {}; sub.u32 %at, 31, %lane; shl.b32 %at, %at, 4; add.u32 %at, %at, %base; \
             ldmatrix.sync.aligned.m8n8.{form}.shared.b16 {{{list}}}, [%at]; }}",
            8 * count - 1
        )
    };
    // Row i contains the elements 8i .. 8i + 7.
    let at = |row: usize, column: usize| (row * 8 + column) as u16;
    let words = |row: usize, first: usize| {
        (0..4).fold(0u64, |word, i| word | u64::from(at(row, first + i)) << (16 * i))
    };
    let mut table = Table::new().block(32);
    for (count, list) in [(1, "%r"), (2, "%r, %r1"), (4, "%r, %r1, %r2, %r3")] {
        for transposed in [false, true] {
            let rows = (0..32usize)
                .map(|lane| {
                    let (group, inside) = (lane / 4, lane % 4);
                    let results = (0..count)
                        .map(|matrix| {
                            let get = |row: usize, column: usize| at(31 - (matrix * 8 + row), column);
                            Expect::Bits(if transposed {
                                pack(get(inside * 2, group), get(inside * 2 + 1, group))
                            } else {
                                pack(get(group, inside * 2), get(group, inside * 2 + 1))
                            })
                        })
                        .collect();
                    Row { operands: vec![words(lane, 0), words(lane, 4)], results }
                })
                .collect();
            let form = format!("x{count}{}", if transposed { ".trans" } else { "" });
            table.raw(&text(count, &form, list), &[Width::B64; 2], &[Width::B32; 4][..count], rows);
        }
    }
    table.run(&Gpu::new());
}

/// Special values in a product: infinity times zero, NaN, overflow of the sum.
#[test]
fn special_values_are_propagated() {
    let half = |x: f32| u64::from(f16::from_f32(x).to_bits()) * 0x1_0001;
    let mut table = Table::new().block(32);
    let (infinity, nan) = (f32::INFINITY, f32::NAN);
    for (a, b, c, expected) in [
        (infinity, 1.0, 0.0, Expect::Bits(infinity.to_bits().into())),
        (infinity, 0.0, 0.0, Expect::NanF32),
        (nan, 1.0, 0.0, Expect::NanF32),
        (1.0, 1.0, nan, Expect::NanF32),
        (1.0, -1.0, 16.0, Expect::Bits(0)),
        (2.0, 0.5, f32::MAX, Expect::Bits(f32::MAX.to_bits().into())),
        (6e-8, 1.0, 0.0, Expect::Bits((16.0 * f16::from_f32(6e-8).to_f32()).to_bits().into())),
    ] {
        let mut operands = vec![half(a); 4];
        operands.extend([half(b); 2]);
        operands.extend([u64::from(c.to_bits()); 4]);
        let rows = vec![Row { operands, results: vec![expected; 4] }; 32];
        table.raw(
            &format!("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {PRODUCT_16}"),
            &[Width::B32; 10],
            &[Width::B32; 4],
            rows,
        );
    }
    table.run(&Gpu::new());
}
