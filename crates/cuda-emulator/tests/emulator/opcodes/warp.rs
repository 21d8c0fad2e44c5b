//! Communication within a warp: PTX ISA, "shfl.sync", "vote.sync", "match.sync", "redux.sync", "activemask", "elect.sync".

use crate::support::{Expect, Gpu, Row, Table, Width};

/// Distinct values for the lanes, not in order.
fn value(lane: u32) -> u32 {
    lane.wrapping_mul(0x9e37_79b9) ^ 0x55
}

/// The source lane and whether it is in range, following the pseudocode of the PTX ISA.
fn source(mode: &str, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (b, clamp, mask) = ((b & 31) as i32, (c & 31) as i32, (c >> 8 & 31) as i32);
    let own = lane as i32;
    let most = own & mask | clamp & !mask;
    let (from, inside) = match mode {
        "up" => (own - b, own - b >= most),
        "down" => (own + b, own + b <= most),
        "bfly" => (own ^ b, own ^ b <= most),
        _ => (own & mask | b & !mask, (own & mask | b & !mask) <= most),
    };
    if inside { (from as u32, true) } else { (lane, false) }
}

const LANES: std::ops::Range<u32> = 0..32;

#[test]
fn shuffles_follow_clamp_and_segments() {
    let mut table = Table::new().block(32);
    for mode in ["up", "down", "bfly", "idx"] {
        let mut rows = Vec::new();
        for b in [0u32, 1, 2, 5, 8, 15, 16, 31, 32, 33] {
            for c in [0u32, 0x1f, 0x0f, 7, 0x1c1f, 0x1800, 0x181f, 0x1000, 0x1e1f, 0x0c03] {
                for lane in LANES {
                    let (from, inside) = source(mode, lane, b, c);
                    let results = vec![Expect::Bits(value(from).into()), Expect::Bits(inside.into())];
                    rows.push(Row { operands: vec![value(lane).into(), b.into(), c.into()], results });
                }
            }
        }
        let text = format!("shfl.sync.{mode}.b32 %r|%r1, %a, %b, %c, 0xffffffff;");
        table.raw(&text, &[Width::B32; 3], &[Width::B32, Width::Pred], rows.clone());
        let rows = rows
            .into_iter()
            .map(|row| Row { operands: row.operands, results: row.results[..1].to_vec() })
            .collect();
        table.raw(
            &format!("shfl.sync.{mode}.b32 %r, %a, %b, %c, -1;"),
            &[Width::B32; 3],
            &[Width::B32],
            rows,
        );
    }
    table.run(&Gpu::new());
}

/// Each lane may specify a different source lane.
#[test]
fn shuffles_take_a_lane_from_a_register() {
    let rows = LANES
        .map(|lane| {
            let from = (lane * 7 + 3) % 32;
            Row {
                operands: vec![value(lane).into(), from.into()],
                results: vec![Expect::Bits(value(from).into())],
            }
        })
        .collect();
    let mut table = Table::new().block(32);
    table.raw("shfl.sync.idx.b32 %r, %a, %b, 31, 0xffffffff;", &[Width::B32; 2], &[Width::B32], rows);
    // The common butterfly reduction.
    let sum = LANES.fold(0u32, |sum, lane| sum.wrapping_add(value(lane)));
    let rows = LANES
        .map(|lane| Row { operands: vec![value(lane).into()], results: vec![Expect::Bits(sum.into())] })
        .collect();
    let steps: String = [16, 8, 4, 2, 1]
        .map(|n| format!("shfl.sync.bfly.b32 %x, %r, {n}, 31, -1; add.u32 %r, %r, %x; "))
        .concat();
    table.raw(&format!("{{ .reg .b32 %x; mov.u32 %r, %a; {steps} }}"), &[Width::B32], &[Width::B32], rows);
    table.run(&Gpu::new());
}

/// Lanes outside the membermask do not participate, and their registers are unchanged.
#[test]
fn shuffles_among_some_lanes() {
    let mut table = Table::new().block(32);
    for mask in [0x0000_ffffu32, 0xffff_0000, 0x5555_5555, 0x8000_0001] {
        let members: Vec<u32> = LANES.filter(|lane| mask >> lane & 1 == 1).collect();
        let rows = LANES
            .map(|lane| {
                let at = members.iter().position(|&member| member == lane);
                let from = at.map_or(lane, |at| members[(at + 1) % members.len()]);
                let result = if at.is_some() { value(from) } else { 12 };
                Row {
                    operands: vec![value(lane).into(), from.into(), at.is_some().into()],
                    results: vec![Expect::Bits(result.into())],
                }
            })
            .collect();
        let text = format!("mov.u32 %r, 12; @%c shfl.sync.idx.b32 %r, %a, %b, 31, {mask:#x};");
        table.raw(&text, &[Width::B32, Width::B32, Width::Pred], &[Width::B32], rows);
    }
    // Two halves of the warp, each with its own membermask, at one instruction.
    let rows = LANES
        .map(|lane| {
            let mask = if lane < 16 { 0x0000_ffffu32 } else { 0xffff_0000 };
            Row {
                operands: vec![value(lane).into(), mask.into()],
                results: vec![Expect::Bits(value(lane ^ 3).into())],
            }
        })
        .collect();
    table.raw("shfl.sync.bfly.b32 %r, %a, 3, 31, %b;", &[Width::B32; 2], &[Width::B32], rows);
    table.run(&Gpu::new());
}

/// One predicate per lane: all set, none, one, and a pattern.
fn votes(oracle: impl Fn(u32, u32) -> u64, mask: u32) -> Vec<Row> {
    let mut rows = Vec::new();
    for vote in [0u32, u32::MAX, 0x0000_0010, 0x8000_0000, 0xff00_ff00, mask, !mask] {
        for lane in LANES {
            rows.push(Row {
                operands: vec![(vote >> lane & 1).into()],
                results: vec![Expect::Bits(oracle(vote, lane))],
            });
        }
    }
    rows
}

#[test]
fn votes_of_the_whole_warp() {
    let mut table = Table::new().block(32);
    let all = u32::MAX;
    table.raw(
        "vote.sync.all.pred %r, %a, 0xffffffff;",
        &[Width::Pred],
        &[Width::Pred],
        votes(|vote, _| (vote == all).into(), all),
    );
    table.raw(
        "vote.sync.any.pred %r, %a, 0xffffffff;",
        &[Width::Pred],
        &[Width::Pred],
        votes(|vote, _| (vote != 0).into(), all),
    );
    table.raw(
        "vote.sync.uni.pred %r, %a, 0xffffffff;",
        &[Width::Pred],
        &[Width::Pred],
        votes(|vote, _| (vote == 0 || vote == all).into(), all),
    );
    table.raw(
        "vote.sync.ballot.b32 %r, %a, 0xffffffff;",
        &[Width::Pred],
        &[Width::B32],
        votes(|vote, _| vote.into(), all),
    );
    table.raw(
        "vote.sync.all.pred %r, !%a, 0xffffffff;",
        &[Width::Pred],
        &[Width::Pred],
        votes(|vote, _| (vote == 0).into(), all),
    );
    table.raw(
        "vote.sync.ballot.b32 %r, !%a, -1;",
        &[Width::Pred],
        &[Width::B32],
        votes(|vote, _| (!vote).into(), all),
    );
    table.run(&Gpu::new());
}

/// Only the lanes of the membermask vote and receive the result.
#[test]
fn votes_of_some_lanes() {
    let mut table = Table::new().block(32);
    for mask in [0x0000_00ffu32, 0xaaaa_aaaa, 0x8000_0000] {
        let member = move |lane: u32| mask >> lane & 1 == 1;
        let guard = format!(
            ".reg .b32 %me; .reg .pred %in_mask; mov.u32 %me, %lanemask_eq; and.b32 %me, %me, {mask:#x}; setp.ne.u32 %in_mask, %me, 0;"
        );
        let ballot = votes(|vote, lane| if member(lane) { (vote & mask).into() } else { 99 }, mask);
        table.raw(
            &format!("{{ {guard} mov.u32 %r, 99; @%in_mask vote.sync.ballot.b32 %r, %a, {mask:#x}; }}"),
            &[Width::Pred],
            &[Width::B32],
            ballot,
        );
        for (mode, oracle) in [
            ("all", (|vote, mask| vote & mask == mask) as fn(u32, u32) -> bool),
            ("any", |vote, mask| vote & mask != 0),
            ("uni", |vote, mask| vote & mask == 0 || vote & mask == mask),
        ] {
            let rows = votes(|vote, lane| (member(lane) && oracle(vote, mask)).into(), mask);
            let text = format!(
                "{{ {guard} setp.ne.u32 %r, 0, 0; @%in_mask vote.sync.{mode}.pred %r, %a, {mask:#x}; }}"
            );
            table.raw(&text, &[Width::Pred], &[Width::Pred], rows);
        }
    }
    table.run(&Gpu::new());
}

#[test]
fn lanes_with_equal_values_match() {
    let mut table = Table::new().block(32);
    for (bits, width, high) in [("b32", Width::B32, 0u64), ("b64", Width::B64, 1 << 40)] {
        let mut any = Vec::new();
        let mut all = Vec::new();
        for groups in [1u32, 2, 5, 32] {
            let of = |lane: u32| lane * 7 % groups;
            for lane in LANES {
                let operand = u64::from(of(lane)) + high * u64::from(of(lane) % 2);
                let peers =
                    LANES.filter(|&other| of(other) == of(lane)).fold(0u32, |mask, other| mask | 1 << other);
                any.push(Row { operands: vec![operand], results: vec![Expect::Bits(peers.into())] });
                let same = groups == 1;
                let results =
                    vec![Expect::Bits(if same { u32::MAX.into() } else { 0 }), Expect::Bits(same.into())];
                all.push(Row { operands: vec![operand], results });
            }
        }
        table.raw(&format!("match.any.sync.{bits} %r, %a, 0xffffffff;"), &[width], &[Width::B32], any);
        table.raw(
            &format!("match.all.sync.{bits} %r|%r1, %a, 0xffffffff;"),
            &[width],
            &[Width::B32, Width::Pred],
            all,
        );
    }
    // Among the lower half only, with values that repeat every four lanes.
    let rows = LANES
        .map(|lane| {
            let peers = if lane < 16 { 0x1111u64 << (lane % 4) } else { 5 };
            Row { operands: vec![(lane % 4).into()], results: vec![Expect::Bits(peers)] }
        })
        .collect();
    table.raw(
        "{ .reg .b32 %me; .reg .pred %low; mov.u32 %me, %laneid; setp.lt.u32 %low, %me, 16; mov.u32 %r, 5; @%low match.any.sync.b32 %r, %a, 0xffff; }",
        &[Width::B32],
        &[Width::B32],
        rows,
    );
    table.run(&Gpu::new());
}

#[test]
fn reductions_over_the_warp_and_over_a_mask() {
    let mut table = Table::new().block(32);
    type Combine = fn(u32, u32) -> u32;
    let reductions: [(&str, Combine); 9] = [
        ("add.u32", |a, b| a.wrapping_add(b)),
        ("add.s32", |a, b| a.wrapping_add(b)),
        ("min.u32", |a, b| a.min(b)),
        ("max.u32", |a, b| a.max(b)),
        ("min.s32", |a, b| (a as i32).min(b as i32) as u32),
        ("max.s32", |a, b| (a as i32).max(b as i32) as u32),
        ("and.b32", |a, b| a & b),
        ("or.b32", |a, b| a | b),
        ("xor.b32", |a, b| a ^ b),
    ];
    for (op, combine) in reductions {
        let whole = LANES.map(value).reduce(combine).unwrap_or_default();
        let rows = LANES
            .map(|lane| Row { operands: vec![value(lane).into()], results: vec![Expect::Bits(whole.into())] })
            .collect();
        table.raw(&format!("redux.sync.{op} %r, %a, 0xffffffff;"), &[Width::B32], &[Width::B32], rows);
        let mask = 0x0ff0_1248u32;
        let some = LANES.filter(|lane| mask >> lane & 1 == 1).map(value).reduce(combine).unwrap_or_default();
        let rows = LANES
            .map(|lane| {
                let member = mask >> lane & 1 == 1;
                Row {
                    operands: vec![value(lane).into(), member.into()],
                    results: vec![Expect::Bits(if member { some.into() } else { 3 })],
                }
            })
            .collect();
        let text = format!("mov.u32 %r, 3; @%b redux.sync.{op} %r, %a, {mask:#x};");
        table.raw(&text, &[Width::B32, Width::Pred], &[Width::B32], rows);
    }
    table.run(&Gpu::new());
}

/// Lanes on the two sides of a branch are active separately, and together again after `bar.warp.sync`.
#[test]
fn active_lanes_are_those_of_the_branch() {
    let mut table = Table::new().block(32);
    let rows = LANES
        .map(|lane| {
            let low = lane < 12;
            let here = if low { 0x0000_0fffu64 } else { 0xffff_f000 };
            Row { operands: vec![low.into()], results: vec![Expect::Bits(here), Expect::Bits(0xffff_ffff)] }
        })
        .collect();
    table.raw(
        "{ @%a bra LOW; activemask.b32 %r; bra.uni JOIN; LOW: activemask.b32 %r; JOIN: bar.warp.sync 0xffffffff; activemask.b32 %r1; }",
        &[Width::Pred],
        &[Width::B32; 2],
        rows,
    );
    table.run(&Gpu::new());
}

#[test]
fn one_lane_is_elected() {
    let mut table = Table::new().block(32).target("sm_90").version("8.0");
    let rows = LANES
        .map(|lane| Row {
            operands: vec![u64::MAX >> 32],
            results: vec![Expect::Bits(0), Expect::Bits((lane == 0).into())],
        })
        .collect();
    table.raw("elect.sync %r|%r1, %a;", &[Width::B32], &[Width::B32, Width::Pred], rows);
    table.run(&Gpu::sm_90());
}

/// The last warp of a block of 40 threads has eight lanes, which are the only valid membermask.
#[test]
fn a_partial_warp_votes_among_its_lanes() {
    let mut table = Table::new().block(40);
    let rows = (0..40u32)
        .map(|thread| {
            let mask = if thread < 32 { u32::MAX } else { 0xff };
            Row {
                operands: vec![mask.into()],
                results: vec![Expect::Bits(mask.into()), Expect::Bits(mask.into())],
            }
        })
        .collect();
    table.raw(
        "activemask.b32 %r; { .reg .pred %yes; setp.eq.u32 %yes, 0, 0; vote.sync.ballot.b32 %r1, %yes, %a; }",
        &[Width::B32],
        &[Width::B32; 2],
        rows,
    );
    table.run(&Gpu::new());
}
