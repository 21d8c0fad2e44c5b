//! The behaviours that one candidate keeps, and their weights.

use crate::cpu::picked::{Picked, Side, Source};
use crate::cpu::softmax::softmax_weights;
use crate::cpu::vector::{Lanes, WideRows};
use crate::element::Element;
use crate::host::Host;
use crate::ops::{SelectedAttention, SelectedAttentionInputs, SelectedKeys, SelectedTableInputs};

/// Inputs of any storage type.
#[derive(Clone, Copy)]
pub(super) struct WideInputs<'a> {
    pub(super) queries: WideRows<'a>,
    keys: Source<'a>,
    pub(super) values: Option<Source<'a>>,
    pub(super) bias: Option<&'a [f32]>,
    gammas: Option<&'a [f32]>,
    positions: &'a [u32],
    similarities: &'a [f32],
    counts: &'a [u32],
}

impl<'a> WideInputs<'a> {
    pub(super) fn new<T: Element>(inputs: &SelectedAttentionInputs<'a, Host, T>) -> Self {
        Self {
            queries: WideRows::new(inputs.queries.as_slice()),
            keys: Source::Rows(WideRows::new(inputs.keys.as_slice())),
            values: inputs.values.map(|values| Source::Rows(WideRows::new(values.as_slice()))),
            bias: inputs.bias.map(|bias| bias.as_slice()),
            gammas: inputs.gammas.map(|gammas| gammas.as_slice()),
            positions: inputs.selection.positions.as_slice(),
            similarities: inputs.selection.scores.as_slice(),
            counts: inputs.selection.counts.as_slice(),
        }
    }

    /// With values from tables.
    pub(super) fn of_tables<T: Element>(inputs: &SelectedTableInputs<'a, Host, T>) -> Self {
        let ids = inputs.history_ids.as_slice();
        let values = Source::Tables(inputs.values, ids);
        let (keys, values) = match inputs.keys {
            SelectedKeys::Rows(keys) => (Source::Rows(WideRows::new(keys.as_slice())), Some(values)),
            SelectedKeys::Tables(tables) => (Source::Tables(tables, ids), Some(values)),
            SelectedKeys::Values => (values, None),
        };
        Self {
            queries: WideRows::new(inputs.queries.as_slice()),
            keys,
            values,
            bias: inputs.bias.map(|bias| bias.as_slice()),
            gammas: inputs.gammas.map(|gammas| gammas.as_slice()),
            positions: inputs.selection.positions.as_slice(),
            similarities: inputs.selection.scores.as_slice(),
            counts: inputs.selection.counts.as_slice(),
        }
    }

    /// How scores and similarities of a head add up.
    pub(super) fn gammas(&self, h: usize) -> Gammas {
        let [score, similarity, product] =
            self.gammas.map_or([1.0, 0.0, 0.0], |gammas| [0, 1, 2].map(|i| gammas[3 * h + i]));
        Gammas { score, similarity, product }
    }
}

/// `γ₁`, `γ₂`, `γ₃`. One of 0 leaves its term out.
#[derive(Clone, Copy)]
pub(super) struct Gammas {
    pub(super) score: f32,
    pub(super) similarity: f32,
    pub(super) product: f32,
}

impl Gammas {
    /// Whether scores count.
    pub(super) fn use_scores(self) -> bool {
        self.score != 0.0 || self.product != 0.0
    }

    /// Whether similarities count.
    pub(super) fn use_similarities(self) -> bool {
        self.similarity != 0.0 || self.product != 0.0
    }
}

/// `factor·number`, or nothing if the factor is 0.
#[inline(always)]
pub(super) fn term(factor: f32, number: f32) -> f32 {
    if factor == 0.0 { 0.0 } else { factor * number }
}

/// The candidates of a task.
pub(super) const CANDIDATES: usize = 8;

/// A candidate, and the first behaviour of its user.
#[derive(Clone, Copy)]
pub(super) struct Candidate {
    pub(super) m: usize,
    pub(super) history: usize,
}

/// What one candidate keeps; for one candidate after the other.
pub(super) struct Kept<'a> {
    op: &'a SelectedAttention,
    inputs: &'a WideInputs<'a>,
    /// Whether all rows are read where they are.
    in_place: bool,
    keys: Option<Side<'a>>,
    /// Values of their own.
    values: Option<Side<'a>>,
    /// Of each behaviour that its similarity does not remove: the row, the slot among the candidate's, the similarity, and where its rows
    /// are gathered.
    behaviours: Vec<usize>,
    slots: Vec<usize>,
    similarities: Vec<f32>,
    places: Vec<usize>,
    /// Of one head.
    query: Vec<f32>,
    scores: Vec<f32>,
    /// Of each behaviour that counts for the head: its index above, and where its rows are gathered.
    indices: Vec<usize>,
    rows: Vec<usize>,
    pub(super) weights: Vec<f32>,
    part: Vec<f32>,
}

/// One behaviour that counts for a head.
pub(super) struct KeptOne {
    pub(super) behaviour: usize,
    pub(super) slot: usize,
    /// 0 unless scores count or were asked for.
    pub(super) score: f32,
    pub(super) similarity: f32,
}

impl<'a> Kept<'a> {
    /// Whether scores are read though they do not count, and whether values are read.
    pub(super) fn new(
        op: &'a SelectedAttention,
        inputs: &'a WideInputs<'a>,
        (needs_scores, needs_values): (bool, bool),
    ) -> Self {
        let uses_scores = needs_scores || (0..op.heads).any(|h| inputs.gammas(h).use_scores());
        let reads_keys = uses_scores || needs_values && inputs.values.is_none();
        let values = inputs.values.filter(|_| needs_values);
        let in_place = inputs.keys.is_in_place() && inputs.values.is_none_or(|values| values.is_in_place());
        Self {
            op,
            inputs,
            in_place,
            keys: reads_keys.then(|| Side::new(inputs.keys, op.kv_heads * op.width, in_place)),
            values: values.map(|values| Side::new(values, op.kv_heads * op.value_width, in_place)),
            behaviours: Vec::new(),
            slots: Vec::new(),
            similarities: Vec::new(),
            places: Vec::new(),
            query: vec![0.0; op.width],
            scores: Vec::new(),
            indices: Vec::new(),
            rows: Vec::new(),
            weights: Vec::new(),
            part: Vec::new(),
        }
    }

    /// Takes the next candidate.
    #[inline(always)]
    pub(super) fn load<L: Lanes>(&mut self, l: L, candidate: Candidate) {
        let (inputs, first) = (self.inputs, candidate.m * self.op.top_k);
        self.behaviours.clear();
        self.slots.clear();
        self.similarities.clear();
        for slot in 0..inputs.counts[candidate.m] as usize {
            let similarity = inputs.similarities[first + slot];
            if similarity != f32::NEG_INFINITY {
                self.behaviours.push(candidate.history + inputs.positions[first + slot] as usize);
                self.slots.push(slot);
                self.similarities.push(similarity);
            }
        }
        self.places.clear();
        if self.in_place {
            self.places.extend_from_slice(&self.behaviours);
        } else {
            self.places.extend(0..self.behaviours.len());
        }
        for side in [&mut self.keys, &mut self.values].into_iter().flatten() {
            side.prefetch(&self.behaviours);
        }
        if !self.in_place {
            for side in [&mut self.keys, &mut self.values].into_iter().flatten() {
                side.widen(l, &self.behaviours);
            }
        }
    }

    /// Computes the weights of a head. Returns the largest `α` and `Σ exp(α − max)`.
    #[inline(always)]
    pub(super) fn weigh<L: Lanes>(&mut self, l: L, m: usize, h: usize, needs_scores: bool) -> (f32, f32) {
        let gammas = self.inputs.gammas(h);
        let uses_scores = gammas.use_scores();
        self.scores.clear();
        if uses_scores || needs_scores {
            self.score(l, m, h);
        }
        self.indices.clear();
        self.rows.clear();
        self.weights.clear();
        for (i, (&behaviour, &similarity)) in self.behaviours.iter().zip(&self.similarities).enumerate() {
            let bias = self.inputs.bias.map_or(0.0, |bias| bias[behaviour * self.op.heads + h]);
            let mut alpha = term(gammas.similarity, similarity);
            let mut is_removed = bias == f32::NEG_INFINITY;
            if uses_scores {
                let score = self.scores[i];
                is_removed |= score == f32::NEG_INFINITY;
                alpha += term(gammas.score, score) + term(gammas.product, score * similarity);
            }
            if !is_removed && alpha != f32::NEG_INFINITY {
                self.indices.push(i);
                self.rows.push(self.places[i]);
                self.weights.push(alpha);
            }
        }
        let (max, sum) = softmax_weights(l, &mut self.weights);
        for weight in &mut self.weights {
            *weight /= sum;
        }
        (max, sum)
    }

    /// Computes the scores of a head.
    #[inline(always)]
    fn score<L: Lanes>(&mut self, l: L, m: usize, h: usize) {
        let (op, inputs) = (self.op, self.inputs);
        let Some(keys) = &self.keys else { return };
        let query = (m * op.heads + h) * op.width;
        inputs.queries.widen_to(l, query..query + op.width, &mut self.query);
        let keys = keys.picked(&self.places, op.kv_head(h) * op.width, op.width);
        keys.products(l, &self.query, &mut self.scores);
        let scale = op.effective_scale();
        for (score, &behaviour) in self.scores.iter_mut().zip(&self.behaviours) {
            let bias = inputs.bias.map_or(0.0, |bias| bias[behaviour * op.heads + h]);
            *score = *score * scale + bias;
        }
    }

    /// The values of the behaviours that count for a head, with values of their own or not.
    #[inline(always)]
    fn picked_values(&self, h: usize) -> Option<Picked<'_>> {
        let (side, width) = (self.values.as_ref().or(self.keys.as_ref())?, self.op.value_width);
        Some(side.picked(&self.rows, self.op.kv_head(h) * width, width))
    }

    /// `out = Σ w·v` of a head: zeros where nothing counts.
    #[inline(always)]
    pub(super) fn mean<L: Lanes>(&mut self, l: L, h: usize, out: &mut [f32]) {
        let mut part = std::mem::take(&mut self.part);
        if let Some(values) = self.picked_values(h) {
            values.weighted_sum(l, &self.weights, &mut part, out);
            if out.iter().any(|value| !value.is_finite()) {
                mean_exactly(&values, &self.weights, out);
            }
        }
        self.part = part;
    }

    /// `out[j] = ⟨v, with⟩` for each behaviour that counts for a head.
    #[inline(always)]
    pub(super) fn value_products<L: Lanes>(&self, l: L, h: usize, with: &[f32], out: &mut Vec<f32>) {
        if let Some(values) = self.picked_values(h) {
            values.products(l, with, out);
        }
    }

    /// `out = Σ factor·k` of a head.
    #[inline(always)]
    pub(super) fn sum_of_keys<L: Lanes>(&mut self, l: L, h: usize, factors: &[f32], out: &mut [f32]) {
        let (op, mut part) = (self.op, std::mem::take(&mut self.part));
        if let Some(keys) = &self.keys {
            let keys = keys.picked(&self.rows, op.kv_head(h) * op.width, op.width);
            keys.weighted_sum(l, factors, &mut part, out);
        }
        self.part = part;
    }

    /// The `j`-th behaviour that counts for the head.
    #[inline(always)]
    pub(super) fn one(&self, j: usize) -> KeptOne {
        let i = self.indices[j];
        KeptOne {
            behaviour: self.behaviours[i],
            slot: self.slots[i],
            score: self.scores.get(i).copied().unwrap_or(0.0),
            similarity: self.similarities[i],
        }
    }
}

/// Computes in `f64` a weighted mean that is not finite in `f32`. It is at most the largest value, which a rounding error may
/// exceed.
fn mean_exactly(values: &Picked<'_>, weights: &[f32], out: &mut [f32]) {
    for (column, out) in out.iter_mut().enumerate() {
        let value = |&row: &usize| values.data[row * values.stride + values.offset + column];
        let products = values.rows.iter().zip(weights);
        let mean: f64 = products.map(|(row, &weight)| f64::from(weight) * f64::from(value(row))).sum();
        let clamped = mean.clamp(f32::MIN.into(), f32::MAX.into());
        *out = if mean.is_finite() { clamped as f32 } else { mean as f32 };
    }
}
