//! "Parallel Synchronization and Communication Instructions: atom, red".
//!
//! The lanes of a warp are executed one after another, lowest first; blocks on other workers interleave word by word. The
//! scope modifier has no effect. Every atomic is strong, and those with acquire or release semantics also act as fences.

use super::Decoded;
use super::memory::{Addresses, addresses, space};
use crate::exec::access::each_window;
use crate::exec::code::Action;
use crate::exec::counts::Class;
use crate::exec::decode::{Decoder, Form};
use crate::exec::fault::{Fault, fault};
use crate::exec::finding::FindingKind;
use crate::exec::machine::Machine;
use crate::exec::registers::{Registers, Row};
use crate::exec::rounding::{flush, narrow_sum};
use crate::exec::{global, shared};
use crate::memory::Allocation;
use crate::ptx::Space;
use crate::ptx::types::{Meaning, Type};
use half::{bf16, f16};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

/// The new value from the old one and the operands.
type Update = fn(u64, u64, u64) -> u64;

/// Serialises 64-bit atomics on device memory, which is stored as 32-bit words.
static WIDE: Mutex<()> = Mutex::new(());

fn update(form: &Form<'_>, op: &str, t: Type, shared: bool) -> Result<Update, crate::ptx::LoadError> {
    use Meaning::{Bits, Brain, BrainPair, Float, FloatPair, Signed, Unsigned};
    fn f32_add(a: f32, b: f32) -> u64 {
        u64::from(crate::exec::rounding::canonical(a + b).to_bits())
    }
    fn half(a: u64, b: u64) -> u64 {
        let (a, b) = (f16::from_bits(a as u16), f16::from_bits(b as u16));
        let sum: f16 = narrow_sum(a.to_f64(), b.to_f64(), crate::exec::rounding::Rounding::Nearest);
        u64::from(sum.to_bits())
    }
    fn brain(a: u64, b: u64) -> u64 {
        let (a, b) = (bf16::from_bits(a as u16), bf16::from_bits(b as u16));
        let sum: bf16 = narrow_sum(a.to_f64(), b.to_f64(), crate::exec::rounding::Rounding::Nearest);
        u64::from(sum.to_bits())
    }
    Ok(match (op, t.meaning, t.bits) {
        ("exch", Bits, 16 | 32 | 64) => |_, b, _| b,
        ("cas", Bits, 16 | 32 | 64) => |a, b, c| if a == b { c } else { a },
        ("and", Bits, 32 | 64) => |a, b, _| a & b,
        ("or", Bits, 32 | 64) => |a, b, _| a | b,
        ("xor", Bits, 32 | 64) => |a, b, _| a ^ b,
        ("add", Unsigned | Signed, 32) => |a, b, _| u64::from((a as u32).wrapping_add(b as u32)),
        ("add", Unsigned | Signed, 64) => |a, b, _| a.wrapping_add(b),
        ("inc", Unsigned, 32) => |a, b, _| if a >= b { 0 } else { a + 1 },
        ("dec", Unsigned, 32) => |a, b, _| if a == 0 || a > b { b } else { a - 1 },
        ("min", Unsigned, 32 | 64) => |a, b, _| a.min(b),
        ("max", Unsigned, 32 | 64) => |a, b, _| a.max(b),
        ("min", Signed, 32) => |a, b, _| u64::from((a as i32).min(b as i32) as u32),
        ("max", Signed, 32) => |a, b, _| u64::from((a as i32).max(b as i32) as u32),
        ("min", Signed, 64) => |a, b, _| (a as i64).min(b as i64) as u64,
        ("max", Signed, 64) => |a, b, _| (a as i64).max(b as i64) as u64,
        // "atom": f32 addition flushes subnormals in device memory, but not in shared memory.
        ("add", Float, 32) if shared => |a, b, _| f32_add(f32::from_bits(a as u32), f32::from_bits(b as u32)),
        ("add", Float, 32) => |a, b, _| {
            let sum = f32_add(flush(f32::from_bits(a as u32)), flush(f32::from_bits(b as u32)));
            u64::from(flush(f32::from_bits(sum as u32)).to_bits())
        },
        ("add", Float, 64) => |a, b, _| (f64::from_bits(a) + f64::from_bits(b)).to_bits(),
        ("add", Float, 16) => |a, b, _| half(a, b),
        ("add", FloatPair, 32) => |a, b, _| half(a, b) | half(a >> 16, b >> 16) << 16,
        ("add", Brain, 16) => |a, b, _| brain(a, b),
        ("add", BrainPair, 32) => |a, b, _| brain(a, b) | brain(a >> 16, b >> 16) << 16,
        _ => return form.unsupported(),
    })
}

fn global_word(a: &Allocation, offset: u64, size: u32, f: impl Fn(u64) -> u64) -> u64 {
    let index = (offset >> 2) as usize;
    match size {
        8 => {
            let _turn = WIDE.lock().unwrap_or_else(PoisonError::into_inner);
            let old = u64::from(a.word(index)) | u64::from(a.word(index + 1)) << 32;
            let new = f(old);
            a.data[index].store(new as u32, Relaxed);
            a.data[index + 1].store((new >> 32) as u32, Relaxed);
            old
        }
        4 => {
            let cell = &a.data[index];
            let mut old = cell.load(Relaxed);
            while let Err(now) = cell.compare_exchange_weak(old, f(u64::from(old)) as u32, Relaxed, Relaxed) {
                old = now;
            }
            u64::from(old)
        }
        _ => {
            let shift = 8 * (offset & 3) as u32;
            let cell = &a.data[index];
            let mut old = cell.load(Relaxed);
            loop {
                let new = f(u64::from(old >> shift & 0xffff)) as u32;
                let word = old & !(0xffff << shift) | (new & 0xffff) << shift;
                match cell.compare_exchange_weak(old, word, Relaxed, Relaxed) {
                    Ok(_) => return u64::from(old >> shift & 0xffff),
                    Err(now) => old = now,
                }
            }
        }
    }
}

fn shared_word(data: &mut [u32], offset: u64, size: u32, f: impl Fn(u64) -> u64) -> u64 {
    let index = (offset >> 2) as usize;
    match size {
        8 => {
            let old = u64::from(data[index]) | u64::from(data[index + 1]) << 32;
            let new = f(old);
            (data[index], data[index + 1]) = (new as u32, (new >> 32) as u32);
            old
        }
        4 => {
            let old = u64::from(data[index]);
            data[index] = f(old) as u32;
            old
        }
        _ => {
            let shift = 8 * (offset & 3) as u32;
            let old = u64::from(data[index] >> shift & 0xffff);
            data[index] = data[index] & !(0xffff << shift) | (f(old) as u32 & 0xffff) << shift;
            old
        }
    }
}

/// A decoded atomic.
#[derive(Clone, Copy)]
struct Atomic {
    addresses: Addresses,
    space: Space,
    size: u32,
    long: bool,
    operands: [Option<u32>; 2],
    global: Update,
    shared: Update,
    acquire: bool,
    release: bool,
}

fn cells(r: &Registers, row: Option<u32>, long: bool) -> Row<u64> {
    match row {
        Some(row) if long => *r.row::<u64>(row),
        Some(row) => r.row::<u32>(row).map(u64::from),
        None => [0; 32],
    }
}

impl Atomic {
    /// Executes the lanes and returns the old values.
    fn run(self, m: &mut Machine<'_>, r: &Registers, mask: u32) -> Result<Row<u64>, Fault> {
        let at = self.addresses.row(r);
        let [b, c] = self.operands.map(|row| cells(r, row, self.long));
        let mut old = [0; 32];
        if self.release {
            m.fence();
        }
        let mut one = |space: Space, at: &Row<u64>, mask: u32| match space {
            Space::Global => global::atomic(m, self.size, at, mask, |a, offset, lane| {
                old[lane] = global_word(a, offset, self.size, |x| (self.global)(x, b[lane], c[lane]));
            }),
            Space::Shared => shared::atomic(m, self.size, at, mask, |data, offset, lane| {
                old[lane] = shared_word(data, offset, self.size, |x| (self.shared)(x, b[lane], c[lane]));
            }),
            _ => {
                let lane = mask.trailing_zeros() as usize;
                fault(
                    FindingKind::OutOfBounds,
                    lane,
                    at[lane],
                    "atomics are supported on device and shared memory only",
                )
            }
        };
        if self.space == Space::Generic {
            each_window(&at, mask, one)?;
        } else {
            one(self.space, &at, mask)?;
        }
        if self.acquire {
            m.acquire();
        }
        Ok(old)
    }
}

pub(super) fn decode(d: &mut Decoder<'_>, form: &mut Form<'_>) -> Decoded {
    let order = form.any(&["relaxed", "acquire", "release", "acq_rel"]);
    form.any(&["cta", "cluster", "gpu", "sys"]);
    let space = space(form);
    if matches!(space, Space::Const | Space::Local | Space::Param) {
        return form.error("atomics are supported on device and shared memory only");
    }
    form.flag("noftz");
    const OPERATIONS: [&str; 10] = ["exch", "cas", "and", "or", "xor", "add", "inc", "dec", "min", "max"];
    let Some(op) = form.any(&OPERATIONS) else { return form.error("missing operation") };
    let t = form.kind()?;
    let red = form.opcode() == "red";
    if red && (matches!(op, "exch" | "cas") || matches!(order, Some("acquire" | "acq_rel"))) {
        return form.unsupported();
    }
    let operands = form.instruction.operands.as_slice();
    let (o, a, rest) = match operands {
        [a, rest @ ..] if red => (None, a, rest),
        [o, a, rest @ ..] if !red => (Some(o), a, rest),
        _ => return form.error("wrong number of operands"),
    };
    let bits = Type { meaning: Meaning::Bits, bits: t.bits };
    let (b, c) = match (rest, op) {
        ([b, c], "cas") => (d.source(form, b, bits)?, Some(d.source(form, c, bits)?)),
        ([b], op) if op != "cas" => (d.source(form, b, t)?, None),
        _ => return form.error("wrong number of operands"),
    };
    let o = o.map(|o| d.destination(form, o, t)).transpose()?;
    let (addresses, space) = addresses(d, form, a, space)?;
    let size = t.bits / 8;
    d.accesses(space, size);
    let atomic = Atomic {
        addresses,
        space,
        size,
        long: t.bits == 64,
        operands: [Some(b), c],
        global: update(form, op, t, false)?,
        shared: update(form, op, t, true)?,
        acquire: matches!(order, Some("acquire" | "acq_rel")),
        release: matches!(order, Some("release" | "acq_rel")),
    };
    let action = Action::Access(Box::new(move |m, r, mask| {
        let old = atomic.run(m, r, mask)?;
        match o {
            Some(o) if atomic.long => r.put(o, &old, mask),
            Some(o) => r.put(o, &old.map(|x| x as u32), mask),
            None => {}
        }
        Ok(())
    }));
    Ok((Class::Atomic, action))
}
