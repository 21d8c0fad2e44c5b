//! "Data Movement: asynchronous copies": cp.async, with its commits and waits.
//!
//! The source is read when the copy is issued; the bytes are written to shared memory when the thread waits for the copy.
//! An access to them before that is reported as an unfinished copy.

use super::Decoded;
use super::memory::{Addresses, addresses};
use crate::exec::access::{Shape, Words, load};
use crate::exec::code::Action;
use crate::exec::copies::Copy;
use crate::exec::counts::Class;
use crate::exec::decode::{Decoder, Form};
use crate::exec::registers::{Registers, Row, lanes};
use crate::exec::shared;
use crate::ptx::Space;
use crate::ptx::ast::Operand;
use crate::ptx::types::{Meaning, Type};

const WORD: Type = Type { meaning: Meaning::Unsigned, bits: 32 };

pub(super) fn decode(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    if !form.flag("async") {
        return form.unsupported();
    }
    let action = if form.flag("commit_group") {
        form.operands::<0>()?;
        Action::Access(Box::new(|m, _, mask| {
            m.copies.commit(m.warp, mask);
            Ok(())
        }))
    } else if form.flag("wait_group") {
        let [n] = form.operands()?;
        let Operand::Integer(n) = n else { return form.error("the number of groups must be a constant") };
        let Ok(keep) = u32::try_from(*n) else { return form.error("the number of groups is out of range") };
        Action::Access(Box::new(move |m, _, mask| {
            let done = m.copies.wait(m.warp, mask, keep);
            m.finish_copies(done)
        }))
    } else if form.flag("wait_all") {
        form.operands::<0>()?;
        Action::Access(Box::new(|m, _, mask| {
            m.copies.commit(m.warp, mask);
            let done = m.copies.wait(m.warp, mask, 0);
            m.finish_copies(done)
        }))
    } else {
        return issue(d, form);
    };
    Ok((Class::AsyncCopy, action))
}

/// A decoded copy.
#[derive(Clone, Copy)]
struct Issue {
    to: Addresses,
    from: Addresses,
    from_space: Space,
    size: u32,
    /// The row of source sizes; the remaining bytes are filled with zeros.
    source_size: Option<u32>,
    /// A predicate: in lanes where it is true, nothing is read and zeros are written.
    ignore: Option<crate::exec::registers::Guard>,
}

fn issue(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let Some(cache) = form.any(&["ca", "cg"]) else { return form.error("missing .ca or .cg") };
    if form.any(&["shared", "shared::cta"]).is_none() || !form.flag("global") {
        return form.error("only copies from .global to .shared are supported");
    }
    form.matching(|m| m.starts_with("L2::") && m != "L2::cache_hint");
    let mut operands = form.instruction.operands.as_slice();
    if form.flag("L2::cache_hint") {
        operands = &operands[..operands.len().saturating_sub(1)];
    }
    let [to, from, size, rest @ ..] = operands else {
        return form.error("wrong number of operands");
    };
    let size = match (size, cache) {
        (Operand::Integer(16), _) => 16,
        (Operand::Integer(4), "ca") => 4,
        (Operand::Integer(8), "ca") => 8,
        _ => return form.error("the size must be 4, 8 or 16, and with .cg 16"),
    };
    let (mut source_size, mut ignore) = (None, None);
    match rest {
        [] => {}
        [Operand::Name(name)] if matches!(d.lookup(name), Some(crate::exec::decode::Symbol::Register(r)) if r.bits == 1) =>
        {
            ignore = Some(d.predicate(form, &rest[0])?);
        }
        [n] => source_size = Some(d.source(form, n, WORD)?),
        _ => return form.error("wrong number of operands"),
    }
    let (to, _) = addresses(d, form, to, Space::Shared)?;
    let (from, from_space) = addresses(d, form, from, Space::Global)?;
    d.accesses(Space::Shared, size);
    d.accesses(Space::Global, 4);
    let issue = Issue { to, from, from_space, size, source_size, ignore };
    let action = Action::Access(Box::new(move |m, r, mask| issue.run(m, r, mask)));
    Ok((Class::AsyncCopy, action))
}

impl Issue {
    fn run(
        self,
        m: &mut crate::exec::machine::Machine<'_>,
        r: &Registers,
        mask: u32,
    ) -> Result<(), crate::exec::fault::Fault> {
        let to = self.to.row(r);
        let from = self.from.row(r);
        let span = shared::check_range(m, &to, mask, self.size)?;
        let ignored = self.ignore.map_or(0, |p| r.guarded(mask, p));
        let mut words: Words = [[0; 32]; 4];
        let shape = Shape { space: self.from_space, size: self.size, strong: false };
        match self.source_size {
            None => load(m, shape, &from, mask & !ignored, &mut words)?,
            Some(row) => {
                let sizes = *r.row::<u32>(row);
                let whole = lanes(mask).filter(|l| sizes[*l] >= self.size).fold(0, |s, l| s | 1 << l);
                if whole != 0 {
                    load(m, shape, &from, whole, &mut words)?;
                }
                self.partial(m, &from, mask & !whole, &sizes, &mut words)?;
            }
        }
        // An access to the destination that is not ordered before the issue is already a race.
        shared::check_write(m, &to, mask, self.size, span, false, |s, grain| {
            grain.is_unchanged(&to, mask, &words, |word| s.data[word as usize])
        })?;
        m.counts.shared_bytes += u64::from(self.size * mask.count_ones());
        for lane in lanes(mask) {
            let data = std::array::from_fn(|i| words[i][lane]);
            m.shared.set_pending(to[lane], self.size, true);
            m.copies.issue(m.warp, lane, Copy { offset: to[lane], size: self.size, data });
        }
        Ok(())
    }

    /// Lanes whose source is shorter than the copy: word by word, then the remaining bytes.
    fn partial(
        self,
        m: &mut crate::exec::machine::Machine<'_>,
        from: &Row<u64>,
        mask: u32,
        sizes: &Row<u32>,
        words: &mut Words,
    ) -> Result<(), crate::exec::fault::Fault> {
        for i in 0..self.size {
            for size in [4, 1] {
                let reads = |n: u32| match size {
                    4 => i % 4 == 0 && n >= i + 4,
                    _ => n > i && n / 4 == i / 4,
                };
                let here = lanes(mask).filter(|l| reads(sizes[*l])).fold(0, |s, l| s | 1 << l);
                if here == 0 {
                    continue;
                }
                let shape = Shape { space: self.from_space, size, strong: false };
                let mut part: Words = [[0; 32]; 4];
                load(m, shape, &from.map(|a| a.wrapping_add(u64::from(i))), here, &mut part)?;
                for lane in lanes(here) {
                    words[(i / 4) as usize][lane] |= part[0][lane] << (8 * (i % 4));
                }
            }
        }
        Ok(())
    }
}
