//! Recursive calls: the caller's state that a call saves, per lane.
//!
//! The registers and local variables of a function have a fixed location. A recursive call saves them here and restores
//! them on return.

use super::fault::{Fault, fault};
use super::finding::FindingKind;
use super::machine::Machine;
use super::registers::Registers;
use std::ops::Range;

/// Maximum depth of recursive calls.
const DEPTH: usize = 1024;

/// The registers and local bytes of an inlined function.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frame {
    pub(crate) words: Range<u32>,
    pub(crate) longs: Range<u32>,
    pub(crate) predicates: Range<u32>,
    /// Local variables, in bytes.
    pub(crate) local: Range<u32>,
    /// Parameters and results, which are in the caller's frame.
    pub(crate) formals: Vec<Range<u32>>,
}

/// A copy within local memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passed {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) bytes: u32,
}

/// A recursive call.
#[derive(Debug, Clone)]
pub(crate) struct Recursion {
    /// Index of the function's frame.
    pub(crate) frame: usize,
    /// Its first instruction.
    pub(crate) entry: u32,
    pub(crate) arguments: Vec<Passed>,
    pub(crate) results: Vec<Passed>,
}

/// A byte of local memory, and whether it has been written.
type Byte = (u8, bool);

/// The state that a lane saves during a call.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) frame: usize,
    /// The position of the call.
    pub(crate) pc: u32,
    words: Vec<u32>,
    longs: Vec<u64>,
    predicates: Vec<bool>,
    local: Vec<Byte>,
    formals: Vec<Vec<Byte>>,
}

/// Saves a lane's state and passes the arguments.
pub(crate) fn enter(
    m: &mut Machine<'_>,
    r: &Registers,
    stack: &mut Vec<Kept>,
    call: &Recursion,
    (pc, lane): (u32, usize),
) -> Result<(), Fault> {
    if stack.len() >= DEPTH {
        return fault(
            FindingKind::LocalOutOfRange,
            lane,
            None,
            format!("recursion is deeper than {DEPTH} calls"),
        );
    }
    let frame = &m.launch.code.frames[call.frame];
    let thread = m.warp * 32 + lane;
    let passed: Vec<Vec<Byte>> =
        call.arguments.iter().map(|p| m.local.copy(thread, p.from..p.from + p.bytes)).collect();
    stack.push(Kept {
        frame: call.frame,
        pc,
        words: frame.words.clone().map(|i| r.words[i as usize][lane]).collect(),
        longs: frame.longs.clone().map(|i| r.longs[i as usize][lane]).collect(),
        predicates: frame.predicates.clone().map(|i| r.predicates[i as usize] >> lane & 1 == 1).collect(),
        local: m.local.copy(thread, frame.local.clone()),
        formals: frame.formals.iter().map(|f| m.local.copy(thread, f.clone())).collect(),
    });
    m.local.paste(thread, frame.local.start, &vec![(0, false); frame.local.len()]);
    for (p, bytes) in call.arguments.iter().zip(&passed) {
        m.local.paste(thread, p.to, bytes);
    }
    Ok(())
}

/// Restores a lane's state and passes the results.
pub(crate) fn leave(m: &mut Machine<'_>, r: &mut Registers, kept: &Kept, call: &Recursion, lane: usize) {
    let frame = &m.launch.code.frames[kept.frame];
    let thread = m.warp * 32 + lane;
    let results: Vec<Vec<Byte>> =
        call.results.iter().map(|p| m.local.copy(thread, p.from..p.from + p.bytes)).collect();
    for (i, x) in frame.words.clone().zip(&kept.words) {
        r.words[i as usize][lane] = *x;
    }
    for (i, x) in frame.longs.clone().zip(&kept.longs) {
        r.longs[i as usize][lane] = *x;
    }
    for (i, x) in frame.predicates.clone().zip(&kept.predicates) {
        r.put_predicate(i, if *x { u32::MAX } else { 0 }, 1 << lane);
    }
    m.local.paste(thread, frame.local.start, &kept.local);
    for (f, bytes) in frame.formals.iter().zip(&kept.formals) {
        m.local.paste(thread, f.start, bytes);
    }
    for (p, bytes) in call.results.iter().zip(&results) {
        m.local.paste(thread, p.to, bytes);
    }
}
