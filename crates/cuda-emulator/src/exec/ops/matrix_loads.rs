//! "Warp Level Matrix Instructions": ldmatrix, stmatrix, movmatrix, for 8×8 matrices of 16-bit elements.
//!
//! A matrix has eight rows of 16 bytes, whose addresses are supplied by eight lanes. Each lane holds two adjacent elements
//! of row `lane / 4`, or of that column with `.trans`.

use super::Decoded;
use super::memory::{addresses, space};
use crate::exec::access::{Words, each_window};
use crate::exec::code::Action;
use crate::exec::counts::Class;
use crate::exec::decode::{Decoder, Form};
use crate::exec::fault::{Fault, fault};
use crate::exec::finding::FindingKind;
use crate::exec::machine::Machine;
use crate::exec::registers::{FULL, Row};
use crate::exec::shared;
use crate::ptx::Space;
use crate::ptx::ast::Operand;
use crate::ptx::types::{Meaning, Type};

const WORD: Type = Type { meaning: Meaning::Bits, bits: 32 };

pub(super) fn decode(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    if !form.flag("sync") || !form.flag("aligned") || !form.flag("m8n8") {
        return form.unsupported();
    }
    if form.opcode() == "movmatrix" {
        return transpose(d, form);
    }
    let count = match form.any(&["x1", "x2", "x4"]) {
        Some("x1") => 1,
        Some("x2") => 2,
        Some(_) => 4,
        None => return form.error("missing .x1, .x2 or .x4"),
    };
    let trans = form.flag("trans");
    let space = space(form);
    if form.kind()? != (Type { meaning: Meaning::Bits, bits: 16 })
        || !matches!(space, Space::Shared | Space::Generic)
    {
        return form.unsupported();
    }
    let load = form.opcode() == "ldmatrix";
    let [first, second] = form.operands()?;
    let (registers, address) = if load { (first, second) } else { (second, first) };
    let list = match registers {
        Operand::Vector(list) => list.as_slice(),
        single => std::slice::from_ref(single),
    };
    if list.len() != count {
        return form.error(format!("expected {count} registers, found {}", list.len()));
    }
    let rows = list
        .iter()
        .map(|o| if load { d.destination(form, o, WORD) } else { d.source(form, o, WORD) })
        .collect::<Result<Vec<_>, _>>()?;
    let (address, space) = addresses(d, form, address, space)?;
    d.accesses(Space::Shared, 4);
    let all = d.constant(32, u64::from(FULL));
    let run: crate::exec::code::Access = Box::new(move |m, r, mask| {
        all_lanes(mask)?;
        let at = in_shared(address.row(r), space, mask)?;
        for (i, row) in rows.iter().enumerate() {
            let givers = 0xffu32 << (8 * i);
            if load {
                let mut words: Words = [[0; 32]; 4];
                shared::load(m, ROWS, &at, givers, &mut words)?;
                let part = |giver: usize, column: usize| {
                    words[column / 2][8 * i + giver] >> (16 * (column % 2)) & 0xffff
                };
                let out: Row<u32> = std::array::from_fn(|lane| {
                    let (k, n) = (lane / 4, lane % 4 * 2);
                    if trans { part(n, k) | part(n + 1, k) << 16 } else { part(k, n) | part(k, n + 1) << 16 }
                });
                r.put(*row, &out, FULL);
            } else {
                let words = rows_of(r.row::<u32>(*row), trans, i);
                store(m, &at, givers, &words)?;
            }
        }
        Ok(())
    });
    Ok((Class::Shared, Action::Converged { members: all, aligned: true, run }))
}

const ROWS: crate::exec::access::Shape =
    crate::exec::access::Shape { space: Space::Shared, size: 16, strong: false };

fn store(m: &mut Machine<'_>, at: &Row<u64>, givers: u32, words: &Words) -> Result<(), Fault> {
    shared::store(m, ROWS, at, givers, words)
}

/// The rows of a matrix held in fragments, arranged by the lanes that supply the addresses.
fn rows_of(fragment: &Row<u32>, trans: bool, matrix: usize) -> Words {
    let mut words: Words = [[0; 32]; 4];
    for (lane, pair) in fragment.iter().enumerate() {
        for (j, half) in [pair & 0xffff, pair >> 16].into_iter().enumerate() {
            let (k, n) = (lane / 4, lane % 4 * 2 + j);
            let (row, column) = if trans { (n, k) } else { (k, n) };
            words[column / 2][8 * matrix + row] |= half << (16 * (column % 2));
        }
    }
    words
}

pub(super) fn all_lanes(mask: u32) -> Result<(), Fault> {
    if mask == FULL {
        return Ok(());
    }
    let lane = (!mask).trailing_zeros() as usize;
    fault(FindingKind::AbsentLane, lane, None, "all lanes of the warp must execute a matrix instruction")
}

/// Offsets in shared memory; generic addresses are converted.
fn in_shared(at: Row<u64>, space: Space, mask: u32) -> Result<Row<u64>, Fault> {
    if space == Space::Shared {
        return Ok(at);
    }
    let mut out = [0; 32];
    each_window(&at, mask, |space, at, mask| {
        if space != Space::Shared {
            let lane = mask.trailing_zeros() as usize;
            return fault(
                FindingKind::OutOfBounds,
                lane,
                at[lane],
                "matrix instructions access shared memory only",
            );
        }
        out = *at;
        Ok(())
    })?;
    Ok(out)
}

/// "movmatrix": transposes a matrix held in one register per lane.
fn transpose(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    if !form.flag("trans") || form.kind()? != (Type { meaning: Meaning::Bits, bits: 16 }) {
        return form.unsupported();
    }
    let [o, a] = form.operands()?;
    let a = d.source(form, a, WORD)?;
    let o = d.destination(form, o, WORD)?;
    let all = d.constant(32, u64::from(FULL));
    let run: crate::exec::code::Access = Box::new(move |_, r, mask| {
        all_lanes(mask)?;
        let words = rows_of(r.row::<u32>(a), true, 0);
        let out: Row<u32> = std::array::from_fn(|lane| words[lane % 4][lane / 4]);
        r.put(o, &out, FULL);
        Ok(())
    });
    Ok((Class::Warp, Action::Converged { members: all, aligned: true, run }))
}
