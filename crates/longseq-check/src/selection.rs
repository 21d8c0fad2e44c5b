//! How a selection is compared with exact scores.

use std::collections::HashMap;
use std::hash::Hash;

use longseq::EMPTY_SLOT;

/// One candidate's selection: `K` slots, of which the first `count` are kept.
pub(crate) struct Kept<'a> {
    /// The positions.
    pub(crate) positions: &'a [u32],
    /// The scores.
    pub(crate) scores: &'a [f32],
    /// How many are kept.
    pub(crate) count: usize,
}

impl Kept<'_> {
    /// Scores within their error, positions exact wherever scores differ by more than their error, ties by position; `exact` holds
    /// every behaviour that may be kept as (position, score), best first.
    ///
    /// # Errors
    /// The first mismatch.
    pub(crate) fn compare(&self, exact: &[(u32, f64)], score_error: f64) -> Result<(), String> {
        let Self { positions, scores, count: kept } = *self;
        for slot in kept..positions.len() {
            if positions[slot] != EMPTY_SLOT || scores[slot] != f32::NEG_INFINITY {
                return Err(format!("slot {slot} is not empty: {} {}", positions[slot], scores[slot]));
            }
        }
        if kept != positions.len().min(exact.len()) {
            return Err(format!("{kept} are kept of {}", exact.len()));
        }
        let apart = |a: usize, b: usize| match (exact.get(a), exact.get(b)) {
            (Some(a), Some(b)) => (a.1 - b.1).abs() > 2.0 * score_error || a.1.is_nan() != b.1.is_nan(),
            _ => true,
        };
        let mut left: HashMap<u32, f64> = exact.iter().copied().collect();
        for slot in 0..kept {
            let (position, score) = (positions[slot], f64::from(scores[slot]));
            let expected = exact[slot];
            let is_near = |score: f64, exact: f64| {
                score == exact || score.is_nan() && exact.is_nan() || (score - exact).abs() <= score_error
            };
            if !is_near(score, expected.1) {
                return Err(format!("slot {slot} has score {score:e}, reference {:e}", expected.1));
            }
            let Some(own) = left.remove(&position) else {
                return Err(format!("slot {slot} has position {position}, never to be kept, or kept twice"));
            };
            if !is_near(score, own) {
                return Err(format!("position {position} has score {score:e}, reference {own:e}"));
            }
            if (slot == 0 || apart(slot - 1, slot)) && apart(slot, slot + 1) && position != expected.0 {
                return Err(format!("slot {slot} has position {position}, reference {}", expected.0));
            }
            if slot > 0 && scores[slot] > scores[slot - 1] {
                return Err(format!("slot {slot} has a higher score than the one before"));
            }
            if slot > 0 && scores[slot] == scores[slot - 1] && position < positions[slot - 1] {
                return Err(format!("slots {} and {slot} tie, but the later position is first", slot - 1));
            }
        }
        Ok(())
    }

    /// Behaviours that read the same, by the `key` of a position below `length`, score the same on every device: the earlier one is
    /// kept first.
    ///
    /// # Errors
    /// The first that is not.
    pub(crate) fn compare_equal<K: Eq + Hash>(
        &self,
        length: usize,
        key: impl Fn(usize) -> K,
    ) -> Result<(), String> {
        let mut places: HashMap<K, Vec<u32>> = HashMap::new();
        for position in 0..length {
            places.entry(key(position)).or_default().push(position as u32);
        }
        let mut kept: HashMap<K, usize> = HashMap::new();
        for &position in &self.positions[..self.count] {
            let key = key(position as usize);
            let first = places[&key][kept.get(&key).copied().unwrap_or(0)];
            if first != position {
                return Err(format!("kept {position} before {first}, which reads the same"));
            }
            *kept.entry(key).or_default() += 1;
        }
        Ok(())
    }
}
