//! The newest behaviours with a candidate's key.

use crate::cpu::threads::for_each;
use crate::cpu::vector::{Instructions, Kernel, Lanes};
use crate::host::Host;
use crate::jagged::Batch;
use crate::ops::{EMPTY_SLOT, SelectionMut};

/// Writes the selection of each candidate.
pub(super) fn write_newest(
    instructions: Instructions,
    top_k: usize,
    batch: &Batch,
    (queries, keys): (&[u32], &[u32]),
    out: SelectionMut<'_, Host>,
) {
    let histories = batch.requests().flat_map(|(history, targets)| targets.map(move |_| history.clone()));
    let slots = out.positions.into_slice().chunks_exact_mut(top_k);
    let slots = slots.zip(out.scores.into_slice().chunks_exact_mut(top_k)).zip(out.counts.into_slice());
    for_each(
        histories.zip(queries).zip(slots).collect(),
        |((history, &key), ((positions, scores), count))| {
            let kept = instructions.run(Newest { keys: &keys[history], key, positions: &mut *positions });
            positions[kept..].fill(EMPTY_SLOT);
            scores[..kept].fill(1.0);
            scores[kept..].fill(f32::NEG_INFINITY);
            *count = kept as u32;
        },
    );
}

/// Writes the positions of the last keys that are equal to one, from the end on, as many as there is room for; returns how many.
struct Newest<'a> {
    keys: &'a [u32],
    key: u32,
    positions: &'a mut [u32],
}

/// The number of keys that are compared before one branch on whether any is equal.
const COMPARED_TOGETHER: usize = 64;

impl Kernel for Newest<'_> {
    type Output = usize;

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) -> usize {
        let Self { keys, key, positions } = self;
        let mut kept = 0;
        let (oldest, chunks) = keys.as_rchunks::<COMPARED_TOGETHER>();
        let starts = (0..chunks.len()).map(|i| oldest.len() + i * COMPARED_TOGETHER);
        for (start, chunk) in starts.zip(chunks).rev() {
            if !chunk.iter().fold(false, |any, &other| any | (other == key)) {
                continue;
            }
            kept = add_newest(start, chunk, key, positions, kept);
            if kept == positions.len() {
                return kept;
            }
        }
        add_newest(0, oldest, key, positions, kept)
    }
}

/// Adds the positions of equal keys, the last one first, where so many are kept; returns how many are.
fn add_newest(start: usize, keys: &[u32], key: u32, positions: &mut [u32], kept: usize) -> usize {
    let equal = (start..start + keys.len()).zip(keys).rev().filter(|(_, other)| **other == key);
    let mut kept = kept;
    for (slot, (position, _)) in positions[kept..].iter_mut().zip(equal) {
        *slot = position as u32;
        kept += 1;
    }
    kept
}
