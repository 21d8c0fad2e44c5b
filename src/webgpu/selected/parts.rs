//! How the slots of a candidate are divided among workgroups, and the columns of a row among threads.

use crate::error::{Error, Result};
use crate::webgpu::launch::MOST_ITERATIONS;

/// The slots that fit workgroup memory, in two variants of the kernels.
pub(in crate::webgpu) const SLOTS: [usize; 2] = [128, 1024];

/// Workgroups that keep a device busy.
const WANTED: usize = 256;

/// The parts of a candidate's slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::webgpu) struct Parts {
    /// The variant.
    pub(in crate::webgpu) slots: usize,
    /// Slots of a part, and the number of parts.
    pub(in crate::webgpu) part: usize,
    pub(in crate::webgpu) parts: usize,
}

impl Parts {
    /// Of no candidates.
    pub(in crate::webgpu) const NONE: Self = Self { slots: SLOTS[0], part: 1, parts: 1 };

    /// Of `top_k` slots, for so many workgroups without parts, each of which goes over rows of so many numbers.
    ///
    /// # Errors
    /// [`Error::Limit`] for rows that are too wide for the loops of a thread.
    pub(in crate::webgpu) fn new(
        operation: &'static str,
        top_k: usize,
        workgroups: usize,
        numbers: usize,
    ) -> Result<Self> {
        // Iterations of a thread for 64 slots: its share of the columns, sums of lanes, and the softmax.
        let step = numbers.div_ceil(4) + 128;
        // Those of all sums of columns.
        let fixed = numbers.div_ceil(4) + 256;
        let most = MOST_ITERATIONS.saturating_sub(fixed) / step * 64;
        if most == 0 {
            let (needed, limit) = (numbers as u64, 4 * (MOST_ITERATIONS / 2 - 192) as u64);
            return Err(Error::Limit { operation, argument: "width", needed, limit });
        }
        let wanted = top_k.div_ceil(WANTED.div_ceil(workgroups.max(1))).max(SLOTS[0]);
        let part = wanted.min(SLOTS[1]).min(most).min(top_k).max(1);
        let parts = top_k.div_ceil(part);
        // Equal parts of whole blocks of 64, if there are several.
        let part = if parts > 1 { top_k.div_ceil(parts).next_multiple_of(64).min(most) } else { part };
        let slots = if part <= SLOTS[0] { SLOTS[0] } else { SLOTS[1] };
        Ok(Self { slots, part, parts: top_k.div_ceil(part) })
    }
}

/// How many threads share a row of `width` numbers: a power of two, at most `most`.
pub(in crate::webgpu) fn lanes(width: usize, most: usize) -> u32 {
    width.div_ceil(4).next_power_of_two().min(most) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_every_slot() {
        for top_k in [1, 2, 63, 64, 128, 129, 200, 1000, 1024, 1025, 4096, 1 << 20] {
            for workgroups in [0, 1, 10, 1000] {
                for numbers in [2, 128, 600, 20_000, 100_000] {
                    let Parts { slots, part, parts } = Parts::new("", top_k, workgroups, numbers).unwrap();
                    assert!(part <= slots && SLOTS.contains(&slots), "{top_k} {workgroups} {numbers}");
                    assert!((parts - 1) * part < top_k && top_k <= parts * part);
                    assert!(parts == 1 || part % 64 == 0);
                    let steps = part.div_ceil(64) * (numbers.div_ceil(4) + 128) + numbers.div_ceil(4) + 256;
                    assert!(steps <= MOST_ITERATIONS);
                }
            }
        }
        assert_eq!(Parts::new("", 128, 1, 128), Ok(Parts { slots: 128, part: 128, parts: 1 }));
        assert_eq!(Parts::new("", 1000, 1000, 128), Ok(Parts { slots: 1024, part: 1000, parts: 1 }));
        assert!(Parts::new("", 10, 1, 200_000).is_err());
    }

    #[test]
    fn lanes_are_powers_of_two() {
        assert_eq!([1, 4, 5, 33, 64, 300].map(|width| lanes(width, 16)), [1, 1, 2, 16, 16, 16]);
    }
}
