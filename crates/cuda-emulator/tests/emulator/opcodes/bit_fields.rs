//! Bit fields, bit counts and byte permutations: PTX ISA, "Integer Arithmetic Instructions" (bfe, bfi, bfind, brev, clz, popc,
//! fns, bmsk, szext) and "Data Movement and Conversion Instructions" (prmt).

use crate::support::Expect::Bits;
use crate::support::{Gpu, Row, Table, Width};

/// `bfe`, bit by bit, for a width of `msb + 1`.
fn extract(a: u64, position: u32, length: u32, msb: u32, signed: bool) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    let sign = signed && length != 0 && a >> (position + length - 1).min(msb) & 1 == 1;
    (0..=msb).fold(0, |out, i| {
        let bit = if i < length && position + i <= msb { a >> (position + i) & 1 == 1 } else { sign };
        out | u64::from(bit) << i
    })
}

/// `bfi`, bit by bit.
fn insert(a: u64, b: u64, position: u32, length: u32, msb: u32) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    (0..length).take_while(|i| position + i <= msb).fold(b, |out, i| {
        let at = position + i;
        out & !(1 << at) | (a >> i & 1) << at
    })
}

const POSITIONS: [u32; 12] = [0, 1, 5, 15, 16, 31, 32, 33, 63, 64, 255, 256];
const LENGTHS: [u32; 12] = [0, 1, 3, 16, 31, 32, 33, 63, 64, 200, 255, 257];

#[test]
fn fields_are_extracted_with_their_sign() {
    let words = [0u64, u64::MAX, 0x8765_4321, 0x7fff_ffff, 0x8000_0000, 0x8765_4321_0fed_cba9, 1 << 63];
    let mut table = Table::new();
    for (text, width, msb, signed) in [
        ("bfe.u32", Width::B32, 31, false),
        ("bfe.s32", Width::B32, 31, true),
        ("bfe.u64", Width::B64, 63, false),
        ("bfe.s64", Width::B64, 63, true),
    ] {
        let mut rows = Vec::new();
        for word in words {
            let word = if msb == 31 { word & 0xffff_ffff } else { word };
            for position in POSITIONS {
                for length in LENGTHS {
                    let result = extract(word, position, length, msb, signed);
                    rows.push(Row {
                        operands: vec![word, position.into(), length.into()],
                        results: vec![Bits(result)],
                    });
                }
            }
        }
        table.raw(text, &[width, Width::B32, Width::B32], &[width], rows);
    }
    table.rows(
        "bfe.s32",
        &[
            ([0x0000_0f00u32, 8, 4], 0xffff_ffffu32),
            ([0x0000_0700, 8, 4], 7),
            ([0x8000_0000, 40, 3], u32::MAX),
        ],
    );
    table.rows(
        "bfe.u32",
        &[([0xabcd_1234u32, 8, 12], 0xd12u32), ([0xabcd_1234, 28, 8], 0xa), ([0xabcd_1234, 4, 0], 0)],
    );
    table.run(&Gpu::new());
}

#[test]
fn fields_are_inserted() {
    let mut table = Table::new();
    for (text, width, msb) in [("bfi.b32", Width::B32, 31), ("bfi.b64", Width::B64, 63)] {
        let mut rows = Vec::new();
        for (a, b) in [(u64::MAX, 0), (0, u64::MAX), (0x1234_5678_9abc_def0, 0x5555_aaaa_5555_aaaa)] {
            let (a, b) = if msb == 31 { (a & 0xffff_ffff, b & 0xffff_ffff) } else { (a, b) };
            for position in POSITIONS {
                for length in LENGTHS {
                    let operands = vec![a, b, position.into(), length.into()];
                    rows.push(Row { operands, results: vec![Bits(insert(a, b, position, length, msb))] });
                }
            }
        }
        table.raw(text, &[width, width, Width::B32, Width::B32], &[width], rows);
    }
    table.rows(
        "bfi.b32",
        &[([0xffu32, 0, 4, 4], 0xf0u32), ([0xabcd, 0x1111_1111, 24, 16], 0xcd11_1111), ([1, 2, 32, 4], 2)],
    );
    table.run(&Gpu::new());
}

#[test]
fn the_highest_set_bit_is_found() {
    let find =
        |a: u64, width: u32| if a == 0 { u32::MAX } else { width - 1 - (a << (64 - width)).leading_zeros() };
    let shift = move |a: u64, width: u32| if a == 0 { u32::MAX } else { width - 1 - find(a, width) };
    // Signed operands: the highest bit that differs from the sign bit.
    let unsign32 = |a: i32| u64::from((if a < 0 { !a } else { a }) as u32);
    let unsign64 = |a: i64| (if a < 0 { !a } else { a }) as u64;
    let mut table = Table::new();
    table.unary("bfind.u32", move |a: u32| find(a.into(), 32));
    table.unary("bfind.u64", move |a: u64| find(a, 64));
    table.unary("bfind.s32", move |a: i32| find(unsign32(a), 32));
    table.unary("bfind.s64", move |a: i64| find(unsign64(a), 64));
    table.unary("bfind.shiftamt.u32", move |a: u32| shift(a.into(), 32));
    table.unary("bfind.shiftamt.u64", move |a: u64| shift(a, 64));
    table.unary("bfind.shiftamt.s32", move |a: i32| shift(unsign32(a), 32));
    table.unary("bfind.shiftamt.s64", move |a: i64| shift(unsign64(a), 64));
    table.rows("bfind.s32", &[([-1i32], -1i32), ([0], -1), ([1], 0), ([i32::MIN], 30), ([-2], 0)]);
    table.run(&Gpu::new());
}

#[test]
fn bits_are_counted_and_reversed() {
    let mut table = Table::new();
    table.unary("popc.b32", |a: u32| a.count_ones());
    table.unary("popc.b64", |a: u64| a.count_ones());
    table.unary("clz.b32", |a: u32| a.leading_zeros());
    table.unary("clz.b64", |a: u64| a.leading_zeros());
    table.unary("brev.b32", |a: u32| a.reverse_bits());
    table.unary("brev.b64", |a: u64| a.reverse_bits());
    table.run(&Gpu::new());
}

#[test]
fn the_nth_set_bit_is_found() {
    let mut table = Table::new();
    let mask = 0xaaaa_aaaau32;
    table.rows(
        "fns.b32",
        &[
            ([mask, 3, 1], 3u32),
            ([mask, 3, u32::MAX], 3),
            ([mask, 2, 1], 3),
            ([mask, 2, u32::MAX], 1),
            ([mask, 3, 0], 3),
            ([mask, 2, 0], u32::MAX),
            ([mask, 1, 3], 5),
            ([mask, 31, 2], u32::MAX),
            ([0, 0, 1], u32::MAX),
        ],
    );
    table.run(&Gpu::new());
}

#[test]
fn masks_and_narrow_extensions() {
    let mask = |a: u32, b: u32, clamp: bool| {
        let (start, width) = if clamp { (a.min(32), b.min(32)) } else { (a % 32, b % 32) };
        (0..32).filter(|&i| i >= start && i - start < width).fold(0u32, |out, i| out | 1 << i)
    };
    let extend = |a: u32, b: u32, clamp: bool, signed: bool| {
        let bits = if clamp { b } else { b % 32 };
        match bits {
            0 => 0,
            32.. => a,
            _ if signed => (((a << (32 - bits)) as i32) >> (32 - bits)) as u32,
            _ => a & ((1 << bits) - 1),
        }
    };
    let mut table = Table::new();
    table.binary("bmsk.clamp.b32", move |a: u32, b: u32| mask(a, b, true));
    table.binary("bmsk.wrap.b32", move |a: u32, b: u32| mask(a, b, false));
    table.binary("szext.clamp.s32", move |a: u32, b: u32| extend(a, b, true, true));
    table.binary("szext.wrap.s32", move |a: u32, b: u32| extend(a, b, false, true));
    table.binary("szext.clamp.u32", move |a: u32, b: u32| extend(a, b, true, false));
    table.binary("szext.wrap.u32", move |a: u32, b: u32| extend(a, b, false, false));
    table.run(&Gpu::new());
}

/// Byte `i` of the pair {b, a}.
fn pair_byte(a: u32, b: u32, i: u32) -> u32 {
    (((u64::from(b) << 32 | u64::from(a)) >> (8 * i)) & 0xff) as u32
}

#[test]
fn bytes_are_permuted() {
    let generic = |a: u32, b: u32, c: u32| {
        (0..4).fold(0, |out, i| {
            let choice = c >> (4 * i) & 0xf;
            let byte = pair_byte(a, b, choice & 7);
            let byte = if choice & 8 == 0 {
                byte
            } else if byte & 0x80 != 0 {
                0xff
            } else {
                0
            };
            out | byte << (8 * i)
        })
    };
    let mut table = Table::new();
    table.ternary("prmt.b32", generic);
    table.rows(
        "prmt.b32",
        &[
            ([0x3322_1100u32, 0x7766_5544, 0x3210], 0x3322_1100u32),
            ([0x3322_1100, 0x7766_5544, 0x7654], 0x7766_5544),
            ([0x3322_1100, 0x7766_5544, 0x0123], 0x0011_2233),
            ([0x3322_1100, 0xf766_8544, 0xfd5d], 0xffff_85ff),
            ([0x0000_80ff, 0, 0x8888_9899], 0xffff_ffff),
        ],
    );
    for (mode, picks) in [
        ("f4e", [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]]),
        ("b4e", [[0, 7, 6, 5], [1, 0, 7, 6], [2, 1, 0, 7], [3, 2, 1, 0]]),
        ("rc8", [[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]]),
        ("ecl", [[0, 1, 2, 3], [1, 1, 2, 3], [2, 2, 2, 3], [3, 3, 3, 3]]),
        ("ecr", [[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 2, 2], [0, 1, 2, 3]]),
        ("rc16", [[0, 1, 0, 1], [2, 3, 2, 3], [0, 1, 0, 1], [2, 3, 2, 3]]),
    ] {
        table.ternary(&format!("prmt.b32.{mode}"), move |a: u32, b: u32, c: u32| {
            let picks: [u32; 4] = picks[(c & 3) as usize];
            (0..4).fold(0, |out, i| out | pair_byte(a, b, picks[i]) << (8 * i))
        });
    }
    table.run(&Gpu::new());
}

#[test]
fn immediates_select_fields() {
    let mut table = Table::new();
    table.unary("bfe.u32 %r, %a, 8, 8;", |a: u32| a >> 8 & 0xff);
    table.unary("bfe.s32 %r, %a, 24, 8;", |a: i32| a >> 24);
    table.unary("prmt.b32 %r, %a, 0, 0x4140;", |a: u32| a & 0xff | (a & 0xff00) << 8);
    table.binary("bfi.b32 %r, %a, %b, 16, 16;", |a: u32, b: u32| b & 0xffff | a << 16);
    table.run(&Gpu::new());
}
