//! What a case of attention over a selection reads, on the host or on a device.

use longseq::*;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::SelectedCase;
use crate::data::{self, Data};
use crate::target_attention::Bias;

/// Which behaviours are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Choice {
    /// Some of the user's, in any order; every seventh candidate keeps none, and every fifth half as many.
    Some,
    /// All candidates the oldest ones, in the order of the history.
    Oldest,
    /// The same behaviour in every slot.
    Same,
}

/// How scores and similarities add up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mix {
    /// Without `gammas`.
    None,
    /// The same numbers for each head.
    All([f32; 3]),
    /// Other numbers for each head; every second one leaves scores out.
    Normal,
}

/// The inputs in a kind of memory.
pub(super) struct Inputs<S: Memory, T: Element> {
    pub(super) queries: S::Buffer<T>,
    pub(super) keys: S::Buffer<T>,
    pub(super) values: Option<S::Buffer<T>>,
    pub(super) bias: Option<S::Buffer<f32>>,
    pub(super) gammas: Option<S::Buffer<f32>>,
    pub(super) positions: S::Buffer<u32>,
    pub(super) similarities: S::Buffer<f32>,
    pub(super) counts: S::Buffer<u32>,
}

impl<S: Memory, T: Element> Inputs<S, T> {
    /// These as the operation takes them.
    pub(super) fn views<B: Backend<Memory = S>>(&self, backend: &B) -> SelectedAttentionInputs<'_, S, T> {
        let selection = Selection::new(
            backend.view(&self.positions),
            backend.view(&self.similarities),
            backend.view(&self.counts),
        );
        let (queries, keys) = (backend.view(&self.queries), backend.view(&self.keys));
        let mut views = SelectedAttentionInputs::new(queries, keys, selection);
        views.values = self.values.as_ref().map(|values| backend.view(values));
        views.bias = self.bias.as_ref().map(|bias| backend.view(bias));
        views.gammas = self.gammas.as_ref().map(|gammas| backend.view(gammas));
        views
    }
}

impl<T: Element> Inputs<Host, T> {
    /// These on a backend.
    pub(super) fn upload<B: Backend>(&self, backend: &B) -> Result<Inputs<B::Memory, T>> {
        Ok(Inputs {
            queries: backend.upload(&self.queries)?,
            keys: backend.upload(&self.keys)?,
            values: self.values.as_ref().map(|values| backend.upload(values)).transpose()?,
            bias: self.bias.as_ref().map(|bias| backend.upload(bias)).transpose()?,
            gammas: self.gammas.as_ref().map(|gammas| backend.upload(gammas)).transpose()?,
            positions: backend.upload(&self.positions)?,
            similarities: backend.upload(&self.similarities)?,
            counts: backend.upload(&self.counts)?,
        })
    }
}

/// Positions, similarities and counts.
type Kept = (Vec<u32>, Vec<f32>, Vec<u32>);

impl SelectedCase {
    pub(super) fn inputs<T: Element>(&self) -> Inputs<Host, T> {
        let (op, batch, mut rng) = (self.op(), self.batch(), data::rng(self.seed));
        let (n, m) = (batch.histories().rows(), batch.targets().rows());
        let mut queries: Vec<T> = data::rows(&mut rng, self.data, m, op.heads * op.width);
        if let Some(candidate) = self.nan {
            queries[candidate * op.heads * op.width] = T::from_f32(f32::NAN);
        }
        let is_removed = |l: usize| l.is_multiple_of(3) || batch.histories().range(0).contains(&l);
        let mut rows = |width: usize| -> Vec<T> {
            let mut rows = data::rows(&mut rng, self.data, n, width);
            if let Some(held) = self.removed {
                let removed = rows.chunks_mut(width).enumerate().filter(|(l, _)| is_removed(*l));
                removed.for_each(|(_, row)| row.fill(T::from_f32(held)));
            }
            rows
        };
        let keys = rows(op.kv_heads * op.width);
        let values = self.value_width.map(|width| rows(op.kv_heads * width));
        let normal: Vec<f32> = data::rows(&mut rng, Data::Normal, n, op.heads);
        let masked = |mask: f32| -> Vec<f32> {
            (0..n * op.heads).map(|i| if is_removed(i / op.heads) { mask } else { 0.0 }).collect()
        };
        let bias = match self.bias {
            Bias::None => None,
            Bias::Mask => Some(masked(f32::NEG_INFINITY)),
            Bias::MaskWith(mask) => Some(masked(mask)),
            Bias::All(number) => Some(vec![number; n * op.heads]),
            _ => Some(normal),
        };
        let gammas = match self.mix {
            Mix::None => None,
            Mix::All(numbers) => Some(numbers.repeat(op.heads)),
            Mix::Normal => {
                let mut gammas: Vec<f32> = data::rows(&mut rng, Data::Normal, op.heads, 3);
                for head in gammas.chunks_mut(3).skip(1).step_by(2) {
                    (head[0], head[2]) = (0.0, 0.0);
                }
                Some(gammas)
            }
        };
        let (positions, similarities, counts) = self.selection(&mut rng);
        Inputs {
            queries: queries.into(),
            keys: keys.into(),
            values: values.map(HostBuffer::from),
            bias: bias.map(HostBuffer::from),
            gammas: gammas.map(HostBuffer::from),
            positions: positions.into(),
            similarities: similarities.into(),
            counts: counts.into(),
        }
    }

    /// What is kept. Slots after the last one kept, and candidates that are nobody's, hold what must not be read.
    fn selection(&self, rng: &mut StdRng) -> Kept {
        let (batch, k) = (self.batch(), self.top_k);
        let rows = batch.targets().rows();
        let (mut positions, mut similarities) = (vec![EMPTY_SLOT; rows * k], vec![f32::NAN; rows * k]);
        let mut counts = vec![u32::MAX; rows];
        for (history, targets) in batch.requests() {
            let mut all: Vec<u32> = (0..history.len() as u32).collect();
            for m in targets {
                let count = match self.choice {
                    Choice::Some if m % 7 == 5 => 0,
                    Choice::Some if m % 5 == 3 => k.min(history.len()) / 2,
                    Choice::Same if history.is_empty() => 0,
                    Choice::Same => k,
                    _ => k.min(history.len()),
                };
                if self.choice == Choice::Some {
                    all.shuffle(rng);
                }
                counts[m] = count as u32;
                for slot in 0..count {
                    let same = self.choice == Choice::Same;
                    positions[m * k + slot] = if same { all[m % all.len()] } else { all[slot] };
                    let similarity = rng.random_range(-1.0..=1.0);
                    let is_removed = self.some_removed && slot % 6 == 2;
                    similarities[m * k + slot] = if is_removed { f32::NEG_INFINITY } else { similarity };
                }
            }
        }
        (positions, similarities, counts)
    }
}
