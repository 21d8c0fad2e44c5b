//! The lists in which a search keeps the best behaviours: how long they are, and how many a workgroup has.

use crate::webgpu::shader::Slot;

/// The largest K whose lists are in workgroup memory.
const MOST_IN_WORKGROUP: usize = 1024;

/// One K for each kind of list.
const EACH_TOP_K: [usize; 7] = [32, 64, 128, 256, 512, MOST_IN_WORKGROUP, 4096];

/// The lists of a search for the best K, as a kernel's variants know them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::webgpu) struct Lists {
    /// Lists of a workgroup.
    pub(in crate::webgpu) count: usize,
    capacity: usize,
    /// Whether the best so far are in the device's memory, and only new entries in the list.
    pub(in crate::webgpu) in_memory: bool,
}

/// The capacity of a list, and how many lists a workgroup may have, within 12 KiB. A list has room for K entries and as many
/// candidates for a place among them, or half as many where that is too large. Where K entries do not fit, it holds new entries.
fn sizes(top_k: usize) -> (usize, &'static [usize]) {
    match top_k {
        0..=32 => (64, &[4, 8]),
        33..=64 => (128, &[4, 8]),
        65..=128 => (192, &[4, 8]),
        129..=256 => (384, &[4]),
        257..=512 => (768, &[2]),
        513..=MOST_IN_WORKGROUP => (1536, &[1]),
        _ => (1024, &[1]),
    }
}

impl Lists {
    /// The numbers of lists that a workgroup may have.
    pub(in crate::webgpu) fn counts(top_k: usize) -> &'static [usize] {
        sizes(top_k).1
    }

    pub(in crate::webgpu) fn new(top_k: usize, count: usize) -> Self {
        Self { count, capacity: sizes(top_k).0, in_memory: Self::are_in_memory(top_k) }
    }

    /// Whether the best K so far are in the device's memory.
    pub(in crate::webgpu) fn are_in_memory(top_k: usize) -> bool {
        top_k > MOST_IN_WORKGROUP
    }

    /// All of them.
    pub(in crate::webgpu) fn all() -> impl Iterator<Item = Self> {
        EACH_TOP_K
            .into_iter()
            .flat_map(|top_k| Self::counts(top_k).iter().map(move |&count| Self::new(top_k, count)))
    }

    /// The constants of a search kernel.
    pub(in crate::webgpu) fn constants(self, reversed: bool) -> Vec<(&'static str, u32)> {
        vec![
            ("LISTS", self.count as u32),
            ("CAPACITY", self.capacity as u32),
            ("GROUP4", if self.count > 4 { 2 } else { 1 }),
            ("REVERSED", u32::from(reversed)),
        ]
    }

    /// Rows of a packed tile of candidates.
    pub(in crate::webgpu) fn packed_rows(self) -> usize {
        self.count.max(4)
    }

    /// The last slots of a search kernel.
    pub(in crate::webgpu) fn slots(self) -> Vec<Slot> {
        let mut slots = vec![Slot::write("lists", "vec2<u32>")];
        if self.in_memory {
            slots.push(Slot::write("spare", "vec2<u32>"));
        }
        slots
    }

    /// The most iterations of a thread that a step of so many behaviours takes besides scoring: each offers its scores, and may fill
    /// the lists up; full lists are cut, and have some room again.
    pub(super) fn iterations_per_step(self, top_k: usize, step: usize) -> usize {
        let lists = self.count;
        let (room, merge) = match self.in_memory {
            false => (self.capacity - top_k, 0),
            true => (self.capacity, 2 * top_k.div_ceil(64) + top_k.ilog2() as usize + 1),
        };
        let cuts = step.div_ceil(room) + 1;
        cuts * (iterations_per_sort(self.capacity, lists) + merge + 4 * lists) + 2 * lists
    }
}

/// Iterations that sorting so many full lists takes.
fn iterations_per_sort(capacity: usize, lists: usize) -> usize {
    let pairs = capacity.next_power_of_two() / 2;
    let levels = pairs.ilog2() as usize + 1;
    let walks = (lists * pairs).div_ceil(64) + 1;
    levels * (levels + 1) / 2 * walks + 2 * levels + lists * (capacity.div_ceil(64) + 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webgpu::launch::MOST_ITERATIONS;

    #[test]
    fn lists_fit_workgroup_memory_and_have_room() {
        for top_k in (1..=4096).step_by(31).chain(EACH_TOP_K) {
            for &count in Lists::counts(top_k) {
                let lists = Lists::new(top_k, count);
                assert!(count * (8 * lists.capacity + 12) + 32 <= 16_384, "{lists:?}");
                assert!(lists.in_memory || lists.capacity > top_k, "{top_k}: {lists:?}");
                assert!(16 * lists.iterations_per_step(top_k, 256) <= MOST_ITERATIONS, "{top_k}");
            }
        }
    }
}
