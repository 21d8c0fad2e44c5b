//! Signatures of items, which are read in place.

use crate::element::Signature;
use crate::error::{Error, Result};
use crate::ops::Sdim;

/// The signatures of items, and the item of each row.
#[derive(Clone, Copy)]
pub(super) struct Items<'a, W> {
    /// `[items, G]`.
    signatures: &'a [W],
    /// `[rows]`, each below `items`.
    ids: &'a [u32],
}

impl<'a, W: Signature> Items<'a, W> {
    /// Checks the ids.
    pub(super) fn new(
        operation: &'static str,
        op: &Sdim,
        signatures: &'a [W],
        ids: &'a [u32],
    ) -> Result<Self> {
        let items = signatures.len() / op.groups;
        // Finding the largest id is many times faster than finding the first one outside.
        let largest = ids.iter().copied().max();
        if largest.is_none_or(|id| (id as usize) < items) {
            return Ok(Self { signatures, ids });
        }
        let position = ids.iter().position(|&id| id as usize >= items).unwrap_or(0);
        let (id, bound) = (ids[position].into(), items as u64);
        Err(Error::IndexOutOfRange { operation, argument: "ids", position: position as u64, id, bound })
    }

    /// The signatures of the item of a row.
    #[inline(always)]
    fn of(&self, groups: usize, id: u32) -> &'a [W] {
        &self.signatures[id as usize * groups..][..groups]
    }

    /// The position and value of the first signature outside the buckets, among those of items that rows name.
    pub(super) fn first_outside(&self, op: &Sdim) -> Option<(usize, u32)> {
        if op.bits == W::BITS || self.all_bits(op.groups) >> op.bits == 0 {
            return None;
        }
        let places = self.ids.iter().flat_map(|&id| {
            let first = id as usize * op.groups;
            first..first + op.groups
        });
        let outside = places.filter(|&place| self.signatures[place].to_u32() as usize >= op.buckets());
        outside.min().map(|place| (place, self.signatures[place].to_u32()))
    }

    /// The bits that any of the signatures has. Bytes at the same place in signatures are at the same place in chunks, whatever the number
    /// of groups.
    fn all_bits(&self, groups: usize) -> u32 {
        const CHUNK: usize = 16;
        let mut all = [0; CHUNK];
        for &id in self.ids {
            let (chunks, tail) = bytemuck::cast_slice::<W, u8>(self.of(groups, id)).as_chunks::<CHUNK>();
            for chunk in chunks {
                all.iter_mut().zip(chunk).for_each(|(all, byte)| *all |= byte);
            }
            all.iter_mut().zip(tail).for_each(|(all, byte)| *all |= byte);
        }
        let words = all.chunks_exact(size_of::<W>()).map(bytemuck::pod_read_unaligned::<W>);
        words.fold(0, |all, word| all | word.to_u32())
    }

    /// Copies the signatures of rows, from row `first` on, as `u32`.
    #[inline(always)]
    pub(super) fn fill(&self, groups: usize, first: usize, out: &mut [u32]) {
        for (&id, out) in self.ids[first..].iter().zip(out.chunks_exact_mut(groups)) {
            out.iter_mut().zip(self.of(groups, id)).for_each(|(out, word)| *out = word.to_u32());
        }
    }
}
