//! The best behaviours found so far.

use std::sync::atomic::{AtomicU32, Ordering};

/// A behaviour and its score as one number that is smaller for better behaviours: score descending, NaN last, then
/// position ascending. Zeros of both signs are equal.
fn key(score: f32, position: u32) -> u64 {
    let bits = (score + 0.0).to_bits();
    // The bits of positive floats, read as integers, ascend with the value; those of negative floats descend.
    let descending = if score.is_nan() {
        u32::MAX
    } else if bits >> 31 == 1 {
        bits
    } else {
        0x7fff_ffff - bits
    };
    u64::from(descending) << 32 | u64::from(position)
}

/// The score in a [`key`].
fn score_of(key: u64) -> f32 {
    match (key >> 32) as u32 {
        u32::MAX => f32::NAN,
        bits if bits >> 31 == 1 => f32::from_bits(bits),
        descending => f32::from_bits(0x7fff_ffff - descending),
    }
}

/// At least the `K` best of the behaviours pushed so far. The others are discarded only when the list is full.
#[derive(Debug)]
pub(in crate::cpu) struct Best {
    top_k: usize,
    keys: Vec<u64>,
    /// The `K`-th best key when the list was last cut to `K`: keys that are not better are not kept.
    worst: u64,
}

/// The length at which a list is cut to `K`.
fn full(top_k: usize) -> usize {
    top_k.saturating_add(top_k.max(16))
}

impl Best {
    /// Nothing yet.
    pub(in crate::cpu) fn new(top_k: usize) -> Self {
        Self { top_k, keys: Vec::new(), worst: u64::MAX }
    }

    /// Nothing yet, with room for the behaviours of a history of this length.
    pub(super) fn with_room_for(top_k: usize, length: usize) -> Self {
        Self { keys: Vec::with_capacity(full(top_k).min(length)), ..Self::new(top_k) }
    }

    /// Adds a behaviour. Returns true if [`worst`](Self::worst) may have changed.
    pub(in crate::cpu) fn push(&mut self, score: f32, position: u32) -> bool {
        self.push_key(key(score, position))
    }

    /// Adds the behaviours found in another span of the history.
    pub(super) fn combine(&mut self, other: Self) {
        if self.keys.is_empty() {
            *self = other;
        } else {
            for key in other.keys {
                self.push_key(key);
            }
        }
        // Other pieces benefit from a floor as early as possible.
        if self.worst == u64::MAX {
            self.discard_worst();
        }
    }

    fn push_key(&mut self, key: u64) -> bool {
        if key >= self.worst {
            return false;
        }
        self.keys.push(key);
        let is_full = self.keys.len() >= full(self.top_k);
        if is_full {
            self.discard_worst();
        }
        is_full
    }

    /// Cuts the list to the `K` best.
    fn discard_worst(&mut self) {
        if self.keys.len() >= self.top_k {
            let (_, &mut worst, _) = self.keys.select_nth_unstable(self.top_k - 1);
            self.worst = worst;
            self.keys.truncate(self.top_k);
        }
    }

    /// A score that at least `K` of the behaviours reach; NaN if none is known or it is NaN.
    pub(in crate::cpu) fn worst(&self) -> f32 {
        score_of(self.worst)
    }

    /// Positions and scores of those that are among the `K` best of another list, best first.
    pub(in crate::cpu) fn into_sorted_among(
        mut self,
        mut all: Self,
    ) -> impl ExactSizeIterator<Item = (u32, f32)> {
        all.discard_worst();
        self.keys.retain(|&key| key <= all.worst);
        self.into_sorted()
    }

    /// Positions and scores, best first.
    pub(in crate::cpu) fn into_sorted(mut self) -> impl ExactSizeIterator<Item = (u32, f32)> {
        self.discard_worst();
        self.keys.sort_unstable();
        self.keys.into_iter().map(|key| (key as u32, score_of(key)))
    }
}

/// A score that at least `K` behaviours of a candidate reach, according to the pieces that are finished: behaviours that
/// score less are not among the best. When it becomes known depends on the threads; what is kept does not.
pub(in crate::cpu) struct Floor(AtomicU32);

impl Floor {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(f32::NAN.to_bits()))
    }

    /// The score; NaN if there is none yet.
    pub(in crate::cpu) fn get(&self) -> f32 {
        f32::from_bits(self.0.load(Ordering::Relaxed))
    }

    pub(super) fn set(&self, score: f32) {
        self.0.store(score.to_bits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_scores_and_can_be_read_back() {
        let descending = [
            f32::INFINITY,
            f32::MAX,
            1.5,
            1.0,
            1e-45,
            0.0,
            -1e-45,
            -1.0,
            f32::MIN,
            f32::NEG_INFINITY,
            f32::NAN,
        ];
        assert!(descending.windows(2).all(|pair| key(pair[0], u32::MAX) < key(pair[1], 0)));
        for score in descending {
            let back = score_of(key(score, 7));
            assert!(back == score || back.is_nan() && score.is_nan(), "{score} came back as {back}");
            assert!(key(score, 1) < key(score, 2));
        }
        assert_eq!(key(-0.0, 3), key(0.0, 3));
        assert_eq!(key(-f32::NAN, 3), key(f32::NAN, 3));
    }

    #[test]
    fn the_best_are_kept_in_any_order_of_arrival() {
        let scores: Vec<f32> = (0..1000u32).map(|i| (i * 7919 % 500) as f32).collect();
        let mut expected: Vec<(u32, f32)> = (0..).zip(scores.iter().copied()).collect();
        expected.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        for top_k in [1, 2, 15, 64, 999, 1000, 5000] {
            let (mut first, mut second) = (Best::new(top_k), Best::new(top_k));
            for position in (0..1000).rev() {
                let half = if position % 3 == 0 { &mut first } else { &mut second };
                half.push(scores[position as usize], position);
            }
            second.combine(first);
            assert_eq!(second.worst().is_nan(), top_k > 1000);
            let kept: Vec<(u32, f32)> = second.into_sorted().collect();
            assert_eq!(kept, expected[..top_k.min(1000)]);
        }
    }
}
