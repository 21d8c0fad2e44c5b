//! What does not change while the service runs: the items, their embeddings, SDIM's rotations and each item's signatures. Made once from
//! the first log, then kept in the store, so that tables that were saved stay right.

use std::collections::HashMap;

use longseq::prelude::*;
use longseq::{Cpu, Host, Sdim};

use crate::Outcome;
use crate::embeddings::Embeddings;
use crate::log::{Item, Log};
use crate::progress::Progress;

/// The seed of the embeddings and of the rotations.
const SEED: u64 = 1;

/// Items and what is known of them.
pub(crate) struct Model {
    pub(crate) items: Vec<Item>,
    pub(crate) arrays: Arrays,
    /// The item of each id.
    numbers: HashMap<u64, u32>,
}

/// The numbers of a model.
pub(crate) struct Arrays {
    pub(crate) width: usize,
    /// `[items, d]`: each row as long as the root of `d`, or zeros for an item without events.
    pub(crate) embeddings: Vec<f32>,
    /// `[d, G, τ]`.
    pub(crate) rotations: Vec<f32>,
    /// `[items, G]`. Kept, since another processor could round a projection near 0 to the other side.
    pub(crate) signatures: Vec<u8>,
    /// How many users each item had in the first log.
    pub(crate) popularity: Vec<u32>,
}

impl Arrays {
    /// A number that tells models apart: what a table holds means something only with the model that it was made with.
    pub(crate) fn fingerprint(&self) -> u32 {
        let mut hash = crc32fast::Hasher::new();
        hash.update(&(self.width as u64).to_le_bytes());
        hash.update(bytemuck::cast_slice(&self.embeddings));
        hash.update(bytemuck::cast_slice(&self.rotations));
        hash.update(&self.signatures);
        hash.update(bytemuck::cast_slice(&self.popularity));
        hash.finalize()
    }

    /// SDIM for rows of this width: 16 groups of 3 bits, as in its paper.
    pub(crate) fn sdim(&self) -> Sdim {
        Sdim::new(self.width)
    }
}

impl Model {
    /// A model of a log's items, whose embeddings are a truncated SVD of which user met which item, as in `examples/rank`.
    pub(crate) fn new(log: &Log, width: usize) -> Outcome<Self> {
        let made = Embeddings::new(&log.by_user(), log.items.len(), [width, 1], SEED, &Progress);
        let sdim = Sdim::new(width);
        let rotations = sdim.rotations(SEED)?;
        let mut signatures = vec![0_u8; log.items.len() * sdim.groups];
        let embeddings = made.tables.full;
        let out = Host::view_mut(&mut signatures);
        Cpu::new().sdim_signatures_into(&sdim, Host::view(&embeddings), Host::view(&rotations), out)?;
        let popularity = made.popularity;
        Self::of(log.items.clone(), Arrays { width, embeddings, rotations, signatures, popularity })
    }

    /// A model of arrays, whose lengths are checked.
    pub(crate) fn of(items: Vec<Item>, arrays: Arrays) -> Outcome<Self> {
        let (sdim, count) = (arrays.sdim(), items.len());
        let lengths = [
            ("embeddings", arrays.embeddings.len(), count * arrays.width),
            ("rotations", arrays.rotations.len(), arrays.width * sdim.groups * sdim.bits),
            ("signatures", arrays.signatures.len(), count * sdim.groups),
            ("popularity", arrays.popularity.len(), count),
        ];
        for (name, got, expected) in lengths {
            if got != expected {
                return Err(format!("the model's {name}: expected {expected} numbers, got {got}").into());
            }
        }
        let numbers = items.iter().zip(0..).map(|(item, number)| (item.id, number)).collect();
        Ok(Self { items, arrays, numbers })
    }

    /// The number of an item's row.
    pub(crate) fn number(&self, id: u64) -> Option<u32> {
        self.numbers.get(&id).copied()
    }

    /// The embedding of an item.
    pub(crate) fn row(&self, item: u32) -> &[f32] {
        &self.arrays.embeddings[item as usize * self.arrays.width..][..self.arrays.width]
    }

    /// Items by falling number of users.
    pub(crate) fn popular(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.items.len() as u32).collect();
        order.sort_by_key(|&item| std::cmp::Reverse(self.arrays.popularity[item as usize]));
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Sizes;

    #[test]
    fn models_are_the_same_each_time_and_tell_themselves_apart() {
        let log = Log::synthetic(Sizes { users: 20, items: 60, events: 300 }, 1);
        let models = [8, 8, 4].map(|width| Model::new(&log, width).unwrap());
        let [one, again, other] = models.map(|model| model.arrays.fingerprint());
        assert!(one == again && one != other);
    }

    #[test]
    fn arrays_of_other_lengths_are_refused() {
        let log = Log::synthetic(Sizes { users: 5, items: 9, events: 50 }, 1);
        let model = Model::new(&log, 4).unwrap();
        assert_eq!((model.number(1003), model.number(1)), (Some(1), None));
        let error = Model::of(model.items[1..].to_vec(), model.arrays).err().unwrap().to_string();
        assert!(error.contains("embeddings"), "{error}");
    }
}
