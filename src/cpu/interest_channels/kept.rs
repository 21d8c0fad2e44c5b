//! The rows of the behaviours that a channel keeps.

use crate::cpu::picked::{Picked, Side, Source};
use crate::cpu::vector::{Lanes, WideRows};
use crate::ops::InterestChannels;

/// What one channel keeps; for one channel after the other.
pub(super) struct KeptRows<'a> {
    side: Side<'a>,
    width: usize,
    normalise: bool,
    /// Rows of `f32` are read where they are.
    is_in_place: bool,
    pub(super) behaviours: Vec<usize>,
    places: Vec<usize>,
    /// `A/L`.
    pub(super) weights: Vec<f32>,
    part: Vec<f32>,
}

impl<'a> KeptRows<'a> {
    pub(super) fn new(op: &InterestChannels, history: WideRows<'a>) -> Self {
        let is_in_place = matches!(history, WideRows::F32(_));
        Self {
            side: Side::new(Source::Rows(history), op.width, is_in_place),
            width: op.width,
            normalise: op.normalise,
            is_in_place,
            behaviours: Vec::new(),
            places: Vec::new(),
            weights: Vec::new(),
            part: Vec::new(),
        }
    }

    /// Takes the next channel.
    #[inline(always)]
    pub(super) fn load<L: Lanes>(&mut self, l: L, behaviours: impl Iterator<Item = usize>) {
        self.behaviours.clear();
        self.behaviours.extend(behaviours);
        self.places.clear();
        self.side.prefetch(&self.behaviours);
        if self.is_in_place {
            self.places.extend_from_slice(&self.behaviours);
        } else {
            self.places.extend(0..self.behaviours.len());
            self.side.widen(l, &self.behaviours);
        }
    }

    #[inline(always)]
    fn rows(&self) -> Picked<'_> {
        self.side.picked(&self.places, 0, self.width)
    }

    /// `out[k] = ⟨e, with⟩`.
    #[inline(always)]
    pub(super) fn products<L: Lanes>(&self, l: L, with: &[f32], out: &mut Vec<f32>) {
        self.rows().products(l, with, out);
    }

    /// `out = Σ factor·e`.
    #[inline(always)]
    pub(super) fn sum<L: Lanes>(&mut self, l: L, factors: &[f32], out: &mut [f32]) {
        let mut part = std::mem::take(&mut self.part);
        self.rows().weighted_sum(l, factors, &mut part, out);
        self.part = part;
    }

    /// Divides scores along the axis by the length of the history, as the weights.
    #[inline(always)]
    pub(super) fn weigh(&mut self, scores: impl Iterator<Item = f32>, length: usize) {
        let length = length as f32;
        self.weights.clear();
        self.weights.extend(scores.map(|score| score / length));
    }

    /// `r` by the weights, and, if it is to be divided by its length, that length.
    #[inline(always)]
    pub(super) fn pool<L: Lanes>(&mut self, l: L, out: &mut [f32]) -> Option<f64> {
        let weights = std::mem::take(&mut self.weights);
        self.sum(l, &weights, out);
        self.weights = weights;
        self.normalise.then(|| {
            let squares = out.iter().map(|&number| f64::from(number) * f64::from(number));
            squares.sum::<f64>().sqrt()
        })
    }
}

/// `r/‖r‖`: NaN if that is not finite.
pub(super) fn normalise(row: &mut [f32], norm: f64) {
    if !norm.is_finite() {
        return row.fill(f32::NAN);
    }
    let divisor = norm.max(InterestChannels::MIN_NORM);
    row.iter_mut().for_each(|number| *number = (f64::from(*number) / divisor) as f32);
}
