//! Gradients of attention over a selection.

use longseq::reference::*;
use longseq::*;

use super::*;

/// Inputs of attention over a selection, and the gradients that come in.
struct Case {
    op: SelectedAttention,
    batch: Batch,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Option<Vec<f32>>,
    bias: Option<Vec<f32>>,
    gammas: Option<Vec<f32>>,
    positions: Vec<u32>,
    similarities: Vec<f32>,
    counts: Vec<u32>,
    grad_out: Vec<f64>,
    grad_lse: Option<Vec<f64>>,
}

/// The slots of a candidate.
const TOP_K: usize = 3;

impl Case {
    /// Users with and without behaviours and candidates, rows of nobody, candidates that keep all, some and none, one behaviour twice.
    fn new(op: SelectedAttention) -> Self {
        let op = op.with_top_k(TOP_K);
        let mut numbers = Numbers(7);
        let batch = batch(&[4, 0, 3, 1, 2], &[3, 3, 2, 2, 0], 1);
        let (n, m) = (batch.histories().rows(), batch.targets().rows());
        let mut positions = vec![EMPTY_SLOT; m * TOP_K];
        let mut counts = vec![u32::MAX; m];
        for (history, targets) in batch.requests() {
            for m in targets {
                let kept = if m % 4 == 2 { TOP_K - 1 } else { TOP_K }.min(history.len());
                counts[m] = if m == 6 { 0 } else { kept as u32 };
                let slots = positions[m * TOP_K..].iter_mut().take(kept);
                slots.enumerate().for_each(|(slot, place)| *place = ((slot + m) % history.len()) as u32);
            }
        }
        // The second candidate keeps a behaviour twice.
        positions[TOP_K] = positions[TOP_K + 1];
        Self {
            op,
            queries: numbers.f32(m * op.heads * op.width),
            keys: numbers.f32(n * op.kv_heads * op.width),
            values: Some(numbers.f32(n * op.kv_heads * op.value_width)),
            bias: None,
            gammas: None,
            positions,
            similarities: numbers.f32(m * TOP_K),
            counts,
            grad_out: numbers.f64(m * op.heads * op.value_width),
            grad_lse: None,
            batch,
        }
    }

    fn with_bias(self) -> Self {
        let bias = Some(Numbers(11).f32(self.batch.histories().rows() * self.op.heads));
        Self { bias, ..self }
    }

    fn with_gammas(self) -> Self {
        let gammas = Some(Numbers(17).f32(3 * self.op.heads));
        Self { gammas, ..self }
    }

    fn with_grad_lse(self) -> Self {
        let grad_lse = Some(Numbers(13).f64(self.batch.targets().rows() * self.op.heads));
        Self { grad_lse, ..self }
    }

    fn aliased(self) -> Self {
        Self { values: None, ..self }
    }

    fn inputs(&self) -> SelectedAttentionInputs<'_, Host, f32> {
        let kept = Selection::new(
            Host::view(&self.positions),
            Host::view(&self.similarities),
            Host::view(&self.counts),
        );
        let (queries, keys) = (Host::view(&self.queries), Host::view(&self.keys));
        let mut inputs = SelectedAttentionInputs::new(queries, keys, kept);
        inputs.values = self.values.as_deref().map(Host::view);
        inputs.bias = self.bias.as_deref().map(Host::view);
        inputs.gammas = self.gammas.as_deref().map(Host::view);
        inputs
    }

    fn loss(&self) -> f64 {
        let result = selected_attention(&self.op, &self.batch, &self.inputs()).expect("a valid case");
        // The lse of a candidate that keeps nothing is -∞, whatever the inputs.
        let lse = |grad_lse: &Vec<f64>| -> f64 {
            let finite = |(lse, grad): (&f64, &f64)| if lse.is_finite() { lse * grad } else { 0.0 };
            result.lse.iter().zip(grad_lse).map(finite).sum()
        };
        dot(&result.out, &self.grad_out) + self.grad_lse.as_ref().map_or(0.0, lse)
    }

    fn gradient(&self) -> SelectedAttentionGradientReference {
        let grad_lse = self.grad_lse.as_deref();
        selected_attention_backward(&self.op, &self.batch, &self.inputs(), &self.grad_out, grad_lse)
            .expect("a valid case")
    }

    fn tensors(&mut self) -> Vec<Tensor<'_>> {
        let mut tensors = vec![
            ("queries", &mut self.queries),
            ("keys", &mut self.keys),
            ("similarities", &mut self.similarities),
        ];
        tensors.extend(self.values.as_mut().map(|values| ("values", values)));
        tensors.extend(self.bias.as_mut().map(|bias| ("bias", bias)));
        tensors.extend(self.gammas.as_mut().map(|gammas| ("gammas", gammas)));
        tensors
    }

    fn compare(&mut self, gradient: SelectedAttentionGradientReference) -> Result<(), String> {
        let mut gradients = vec![
            ("queries", gradient.queries),
            ("keys", gradient.keys),
            ("similarities", gradient.similarities),
        ];
        gradients.extend(gradient.values.map(|values| ("values", values)));
        gradients.extend(gradient.bias.map(|bias| ("bias", bias)));
        gradients.extend(gradient.gammas.map(|gammas| ("gammas", gammas)));
        compare_with_differences(self, Self::tensors, Self::loss, &gradients)
    }

    #[track_caller]
    fn check(mut self) {
        let gradient = self.gradient();
        self.compare(gradient).unwrap_or_else(|error| panic!("{:?}: {error}", self.op));
    }
}

#[test]
fn of_scores_alone() {
    Case::new(SelectedAttention::new(5)).check();
    Case::new(SelectedAttention::new(5).with_value_width(3)).with_bias().check();
    Case::new(SelectedAttention::new(3)).aliased().check();
}

#[test]
fn of_scores_and_similarities() {
    for (heads, kv_heads) in [(1, 1), (2, 2), (4, 2), (3, 1)] {
        let op = SelectedAttention::new(3).with_heads(heads, kv_heads).with_scale(0.75);
        Case::new(op.with_value_width(2)).with_gammas().with_bias().check();
        Case::new(op).with_gammas().aliased().check();
    }
}

#[test]
fn of_the_lse() {
    let op = SelectedAttention::new(3).with_heads(2, 1);
    Case::new(op).with_gammas().with_grad_lse().check();
    Case::new(op).aliased().with_bias().with_grad_lse().check();
}

/// The comparison sees what a faulty backward pass is likely to forget.
#[test]
fn wrong_ones_are_noticed() {
    let op = SelectedAttention::new(3).with_heads(2, 1);
    let mut case = Case::new(op).with_gammas().with_bias();
    let right = case.gradient();
    case.compare(right.clone()).expect("the right one");

    // As if `γ₃` had no part in the gradient of scores.
    let all = case.gammas.clone().expect("gammas");
    let first_alone: Vec<f32> = all.chunks(3).flat_map(|gammas| [gammas[0], gammas[1], 0.0]).collect();
    let first = Case { gammas: Some(first_alone), ..Case::new(op).with_bias() };
    let mut wrong = right.clone();
    wrong.queries = first.gradient().queries;
    assert!(case.compare(wrong).is_err());

    let mut wrong = right.clone();
    wrong.similarities.iter_mut().for_each(|grad| *grad *= 0.5);
    assert!(case.compare(wrong).is_err());

    let mut wrong = right;
    wrong.gammas.iter_mut().flatten().for_each(|grad| *grad *= 0.9);
    assert!(case.compare(wrong).is_err());
}
