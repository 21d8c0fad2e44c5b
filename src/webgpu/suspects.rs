//! Memory that refused calls should have written.
//!
//! The device may refuse a call after the call has returned. Its own handle hears of that; another one, which reads what the call
//! should have written, would see what was there before. So these bytes are suspect until they are written again, and whatever
//! reads them is refused, too, with an error to the handle that asked for it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use crate::webgpu::binding::Binding;

/// Buffers of which suspect bytes are remembered: those that became so last. Buffers are not kept alive for it, so dropped ones count, too.
const MOST_BUFFERS: usize = 1024;

/// Ranges that are remembered for a buffer before they become one.
const MOST_RANGES: usize = 512;

/// Calls of which a refused part is remembered: more than threads may be recording at a time.
const MOST_BROKEN: usize = 256;

/// What a command does to memory that outlives its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Reads,
    /// Writes all of it, together with the other commands of its call.
    Writes,
    /// Writes some of it and keeps the rest, or writes what depends on what was there.
    Changes,
}

/// Bytes of a buffer that a command uses.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    /// A buffer's hash, which does not keep it alive. `wgpu` hashes a number that no other buffer has.
    buffer: u64,
    bytes: Range<u64>,
    does: Use,
}

impl Access {
    /// What a dispatch does to what it binds and what outlives the call.
    pub(crate) fn of(binding: &Binding, writes: bool) -> impl Iterator<Item = Self> {
        let does = match (writes, binding.keeps) {
            (false, _) => Use::Reads,
            (true, false) => Use::Writes,
            (true, true) => Use::Changes,
        };
        Self::all(&binding.buffer, binding.bytes.iter().cloned(), does)
    }

    /// Reads of bytes of a buffer.
    pub(crate) fn read(
        buffer: &wgpu::Buffer,
        bytes: impl IntoIterator<Item = Range<u64>>,
    ) -> impl Iterator<Item = Self> {
        Self::all(buffer, bytes, Use::Reads)
    }

    /// Writes of bytes of a buffer.
    pub(crate) fn write(
        buffer: &wgpu::Buffer,
        bytes: impl IntoIterator<Item = Range<u64>>,
    ) -> impl Iterator<Item = Self> {
        Self::all(buffer, bytes, Use::Writes)
    }

    fn all(
        buffer: &wgpu::Buffer,
        bytes: impl IntoIterator<Item = Range<u64>>,
        does: Use,
    ) -> impl Iterator<Item = Self> {
        let mut bytes = bytes.into_iter().peekable();
        // Scratch memory needs no hash.
        let buffer = bytes.peek().map_or(0, |_| identity(buffer));
        bytes.map(move |bytes| Self { buffer, bytes, does })
    }
}

fn identity(buffer: &wgpu::Buffer) -> u64 {
    let mut hasher = DefaultHasher::new();
    buffer.hash(&mut hasher);
    hasher.finish()
}

/// Bytes that a refused call of an operation should have written.
#[derive(Debug, Clone)]
struct Suspect {
    bytes: Range<u64>,
    operation: &'static str,
}

impl Suspect {
    fn overlaps(&self, bytes: &Range<u64>) -> bool {
        self.bytes.start < bytes.end && bytes.start < self.bytes.end
    }

    /// What is left of it where `written` was written.
    fn without(self, written: &Range<u64>) -> impl Iterator<Item = Self> {
        let Self { bytes: Range { start, end }, operation } = self;
        let parts = [start..end.min(written.start), start.max(written.end)..end];
        parts.into_iter().filter(|bytes| !bytes.is_empty()).map(move |bytes| Self { bytes, operation })
    }
}

/// What is suspect on a device.
#[derive(Debug, Clone, Default)]
pub(crate) struct Suspects {
    of_buffer: HashMap<u64, Vec<Suspect>>,
    /// Buffers in the order in which they became suspect.
    order: VecDeque<u64>,
    /// Numbers of calls of which a command was refused.
    broken: BTreeSet<u64>,
}

/// Whether a command may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Runs,
    /// It belongs to a call of which a command was refused.
    Broken,
    /// It reads what this operation should have written.
    Stale(&'static str),
}

impl Suspects {
    pub(crate) fn is_empty(&self) -> bool {
        self.of_buffer.is_empty() && self.broken.is_empty()
    }

    /// Decides on a command of `operation` in the call of this number, or in none (0), and notes what becomes of what it writes.
    pub(crate) fn judge(&mut self, call: u64, operation: &'static str, accesses: &[Access]) -> Verdict {
        let stale = || accesses.iter().find_map(|access| self.stale(access));
        let verdict = match self.broken.contains(&call) {
            true => Verdict::Broken,
            false => stale().map_or(Verdict::Runs, Verdict::Stale),
        };
        match verdict {
            Verdict::Runs => accesses.iter().for_each(|access| self.written(access)),
            _ => self.refuse(call, operation, accesses),
        }
        verdict
    }

    /// Notes that a command was refused.
    pub(crate) fn refuse(&mut self, call: u64, operation: &'static str, accesses: &[Access]) {
        if call != 0 {
            self.broken.insert(call);
        }
        if self.broken.len() > MOST_BROKEN {
            self.broken.pop_first();
        }
        for access in accesses.iter().filter(|access| access.does != Use::Reads) {
            self.suspect(access, operation);
        }
    }

    /// The operation that should have written what is accessed, if that is read.
    fn stale(&self, access: &Access) -> Option<&'static str> {
        let suspects = self.of_buffer.get(&access.buffer).filter(|_| access.does != Use::Writes)?;
        suspects.iter().find(|suspect| suspect.overlaps(&access.bytes)).map(|suspect| suspect.operation)
    }

    fn written(&mut self, access: &Access) {
        if access.does != Use::Writes {
            return;
        }
        let Some(suspects) = self.of_buffer.get_mut(&access.buffer) else { return };
        let left = std::mem::take(suspects).into_iter().flat_map(|suspect| suspect.without(&access.bytes));
        *suspects = left.collect();
        bound(suspects);
        if suspects.is_empty() {
            self.of_buffer.remove(&access.buffer);
            self.order.retain(|buffer| *buffer != access.buffer);
        }
    }

    fn suspect(&mut self, access: &Access, operation: &'static str) {
        let suspects = self.of_buffer.entry(access.buffer).or_default();
        if suspects.is_empty() {
            self.order.push_back(access.buffer);
        }
        suspects.retain(|suspect| {
            suspect.bytes.start < access.bytes.start || access.bytes.end < suspect.bytes.end
        });
        suspects.push(Suspect { bytes: access.bytes.clone(), operation });
        bound(suspects);
        if self.order.len() > MOST_BUFFERS {
            self.order.pop_front().and_then(|oldest| self.of_buffer.remove(&oldest));
        }
    }
}

/// Makes too many ranges one.
fn bound(suspects: &mut Vec<Suspect>) {
    if suspects.len() <= MOST_RANGES {
        return;
    }
    let start = suspects.iter().map(|suspect| suspect.bytes.start).min().unwrap_or(0);
    let end = suspects.iter().map(|suspect| suspect.bytes.end).max().unwrap_or(0);
    let operation = suspects[0].operation;
    *suspects = vec![Suspect { bytes: start..end, operation }];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(does: Use, buffer: u64, bytes: Range<u64>) -> [Access; 1] {
        [Access { buffer, bytes, does }]
    }

    fn reads(suspects: &mut Suspects, buffer: u64, bytes: Range<u64>) -> Verdict {
        suspects.judge(0, "read", &access(Use::Reads, buffer, bytes))
    }

    #[test]
    fn only_what_was_not_written_again_is_suspect() {
        let mut suspects = Suspects::default();
        suspects.refuse(0, "write", &access(Use::Writes, 1, 8..24));
        suspects.judge(0, "write", &access(Use::Writes, 1, 12..20));
        for (bytes, verdict) in [
            (0..8, Verdict::Runs),
            (0..9, Verdict::Stale("write")),
            (12..20, Verdict::Runs),
            (19..21, Verdict::Stale("write")),
            (24..28, Verdict::Runs),
        ] {
            assert_eq!(reads(&mut suspects, 1, bytes.clone()), verdict, "{bytes:?}");
        }
        assert_eq!(reads(&mut suspects, 2, 8..24), Verdict::Runs);
        suspects.judge(0, "write", &access(Use::Writes, 1, 0..30));
        assert!(suspects.is_empty());
    }

    #[test]
    fn a_call_is_refused_from_its_first_refused_command_on() {
        let mut suspects = Suspects::default();
        suspects.refuse(7, "write", &[]);
        let write = access(Use::Writes, 1, 0..4);
        assert_eq!(suspects.judge(7, "write", &write), Verdict::Broken);
        assert_eq!(reads(&mut suspects, 1, 0..4), Verdict::Stale("write"));
        assert_eq!(suspects.judge(8, "write", &write), Verdict::Runs);
        assert_eq!(reads(&mut suspects, 1, 0..4), Verdict::Runs);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut suspects = Suspects::default();
        for range in 0..10_000u64 {
            suspects.refuse(range + 1, "write", &access(Use::Writes, 1, 8 * range..8 * range + 4));
        }
        assert!(suspects.of_buffer[&1].len() <= MOST_RANGES);
        for range in 0..10_000 {
            assert_eq!(reads(&mut suspects, 1, 8 * range..8 * range + 4), Verdict::Stale("write"));
        }
        (2..10_000).for_each(|buffer| suspects.refuse(0, "write", &access(Use::Writes, buffer, 0..4)));
        assert!(suspects.of_buffer.len() <= MOST_BUFFERS && suspects.order.len() <= MOST_BUFFERS);
        assert!(suspects.broken.len() <= MOST_BROKEN);
        assert_eq!(reads(&mut suspects, 9_999, 0..4), Verdict::Stale("write"));
    }
}
