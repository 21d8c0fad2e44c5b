//! Pending asynchronous copies, in groups per thread ("cp.async", "cp.async.commit_group").

use super::access::{Span, Words};
use super::fault::Fault;
use super::machine::Machine;
use super::registers::lanes;
use super::shared;

/// A copy that has not completed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Copy {
    /// Destination in shared memory.
    pub(crate) offset: u64,
    pub(crate) size: u32,
    pub(crate) data: [u32; 4],
}

/// A thread's copies, each with the number of its group, oldest first.
#[derive(Debug, Default, Clone)]
struct Queue {
    copies: Vec<(u32, Copy)>,
    /// The current group.
    group: u32,
}

/// The copies of a block.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    queues: Vec<Queue>,
}

impl Copies {
    pub(crate) fn new(threads: u32) -> Self {
        Self { queues: vec![Queue::default(); threads.next_multiple_of(32) as usize] }
    }

    pub(crate) fn clear(&mut self) {
        for q in &mut self.queues {
            q.copies.clear();
            q.group = 0;
        }
    }

    pub(crate) fn issue(&mut self, warp: usize, lane: usize, copy: Copy) {
        let q = &mut self.queues[warp * 32 + lane];
        q.copies.push((q.group, copy));
    }

    /// Commits the current group of each lane; an empty group counts as well.
    pub(crate) fn commit(&mut self, warp: usize, mask: u32) {
        for lane in lanes(mask) {
            self.queues[warp * 32 + lane].group += 1;
        }
    }

    /// Removes and returns the copies of all groups except the last `keep` committed ones.
    pub(crate) fn wait(&mut self, warp: usize, mask: u32, keep: u32) -> Vec<(usize, Copy)> {
        let mut done = Vec::new();
        for lane in lanes(mask) {
            let q = &mut self.queues[warp * 32 + lane];
            let end = q.group.saturating_sub(keep);
            let n = q.copies.partition_point(|(group, _)| *group < end);
            done.extend(q.copies.drain(..n).map(|(_, copy)| (lane, copy)));
        }
        done
    }
}

impl Machine<'_> {
    /// Completes copies of the running warp. The race shadow records a write by the thread that waited.
    pub(crate) fn finish_copies(&mut self, done: Vec<(usize, Copy)>) -> Result<(), Fault> {
        // All are written before any is checked: lanes of one instruction may copy the same bytes to one place. Nobody else
        // can have written there since the copies were issued, because that is an access to an unfinished copy.
        for (_, copy) in &done {
            self.shared.set_pending(copy.offset, copy.size, false);
            let at = (copy.offset >> 2) as usize;
            let words = (copy.size / 4) as usize;
            self.shared.data[at..at + words].copy_from_slice(&copy.data[..words]);
        }
        for (lane, copy) in done {
            let (addresses, mask) = ([copy.offset; 32], 1 << lane);
            let span = Span::of(&addresses, mask, copy.size);
            let data: Words = copy.data.map(|word| [word; 32]);
            shared::check_write(self, &addresses, mask, copy.size, span, false, |s, grain| {
                grain.is_unchanged(&addresses, mask, &data, |word| s.data[word as usize])
            })?;
        }
        Ok(())
    }
}
