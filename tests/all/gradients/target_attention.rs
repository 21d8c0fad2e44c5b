//! Gradients of target attention and of its merge.

use longseq::reference::*;
use longseq::*;
use longseq_check::golden::Golden;

use super::*;

/// Inputs of target attention, and the gradients that come in.
struct Case {
    op: TargetAttention,
    batch: Batch,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Option<Vec<f32>>,
    bias: Option<Vec<f32>>,
    grad_out: Vec<f64>,
    grad_lse: Option<Vec<f64>>,
}

impl Case {
    /// Users with and without behaviours and candidates, rows of nobody, separate values, no bias, no `grad_lse`.
    fn new(op: TargetAttention) -> Self {
        let mut numbers = Numbers(7);
        let batch = batch(&[4, 0, 3, 1, 2], &[2, 3, 1, 2, 0], 1);
        let (n, m) = (batch.histories().rows(), batch.targets().rows());
        Self {
            op,
            queries: numbers.f32(m * op.heads * op.width),
            keys: numbers.f32(n * op.kv_heads * op.width),
            values: Some(numbers.f32(n * op.kv_heads * op.value_width)),
            bias: None,
            grad_out: numbers.f64(m * op.heads * op.value_width),
            grad_lse: None,
            batch,
        }
    }

    fn with_bias(self) -> Self {
        let bias = Some(Numbers(11).f32(self.batch.histories().rows() * self.op.heads));
        Self { bias, ..self }
    }

    fn with_grad_lse(self) -> Self {
        let grad_lse = Some(Numbers(13).f64(self.batch.targets().rows() * self.op.heads));
        Self { grad_lse, ..self }
    }

    fn aliased(self) -> Self {
        Self { values: None, ..self }
    }

    fn inputs(&self) -> TargetAttentionInputs<'_, Host, f32> {
        let mut inputs = TargetAttentionInputs::new(Host::view(&self.queries), Host::view(&self.keys));
        inputs.values = self.values.as_deref().map(Host::view);
        inputs.bias = self.bias.as_deref().map(Host::view);
        inputs
    }

    fn loss(&self) -> f64 {
        let result = target_attention(&self.op, &self.batch, &self.inputs()).expect("a valid case");
        // The lse of an empty history is -∞, whatever the inputs.
        let lse = |grad_lse: &Vec<f64>| -> f64 {
            let finite = |(lse, grad): (&f64, &f64)| if lse.is_finite() { lse * grad } else { 0.0 };
            result.lse.iter().zip(grad_lse).map(finite).sum()
        };
        dot(&result.out, &self.grad_out) + self.grad_lse.as_ref().map_or(0.0, lse)
    }

    fn gradient(&self) -> TargetAttentionGradientReference {
        let grad_lse = self.grad_lse.as_deref();
        target_attention_backward(&self.op, &self.batch, &self.inputs(), &self.grad_out, grad_lse)
            .expect("a valid case")
    }

    fn tensors(&mut self) -> Vec<Tensor<'_>> {
        let mut tensors = vec![("queries", &mut self.queries), ("keys", &mut self.keys)];
        tensors.extend(self.values.as_mut().map(|values| ("values", values)));
        tensors.extend(self.bias.as_mut().map(|bias| ("bias", bias)));
        tensors
    }

    fn compare(&mut self, gradient: TargetAttentionGradientReference) -> Result<(), String> {
        let mut gradients = vec![("queries", gradient.queries), ("keys", gradient.keys)];
        gradients.extend(gradient.values.map(|values| ("values", values)));
        gradients.extend(gradient.bias.map(|bias| ("bias", bias)));
        compare_with_differences(self, Self::tensors, Self::loss, &gradients)
    }

    #[track_caller]
    fn check(mut self) {
        let gradient = self.gradient();
        self.compare(gradient).unwrap_or_else(|error| panic!("{:?}: {error}", self.op));
    }
}

const WEIGHTINGS: [Weighting; 5] = [
    Weighting::Softmax,
    Weighting::Relu,
    Weighting::silu(3.0),
    Weighting::Silu { divisor: SiluDivisor::HistoryLength },
    Weighting::Identity,
];

fn op(width: usize, weighting: Weighting) -> TargetAttention {
    TargetAttention::new(width).with_weighting(weighting)
}

#[test]
fn of_every_weighting() {
    for weighting in WEIGHTINGS {
        Case::new(op(5, weighting)).check();
        Case::new(op(5, weighting).with_value_width(3)).with_bias().check();
        Case::new(op(3, weighting)).aliased().check();
        Case::new(op(2, weighting)).aliased().with_bias().check();
    }
}

#[test]
fn of_grouped_heads() {
    for weighting in WEIGHTINGS {
        for (heads, kv_heads) in [(2, 2), (4, 2), (3, 1)] {
            let op = op(3, weighting).with_heads(heads, kv_heads).with_scale(0.75);
            Case::new(op.with_value_width(2)).with_bias().check();
            Case::new(op).aliased().check();
        }
    }
}

#[test]
fn of_the_lse() {
    let op = op(3, Weighting::Softmax).with_heads(2, 1);
    Case::new(op).with_grad_lse().check();
    Case::new(op).aliased().with_bias().with_grad_lse().check();
}

/// The comparison sees what a faulty backward pass is likely to forget.
#[test]
fn wrong_ones_are_noticed() {
    let op = op(3, Weighting::Softmax).with_heads(2, 1);
    let mut case = Case::new(op).with_bias();
    let right = case.gradient();

    // Without D: as if D came in as the gradient of the lse.
    let out = target_attention(&op, &case.batch, &case.inputs()).unwrap().out;
    let d = out.chunks(3).zip(case.grad_out.chunks(3)).map(|(out, grad)| dot(out, grad)).collect();
    case.grad_lse = Some(d);
    let without_d = case.gradient();
    case.grad_lse = None;
    assert!(case.compare(without_d).unwrap_err().starts_with("queries"));

    // Grouped heads not summed: the gradient of the last head alone.
    let whole = case.grad_out.clone();
    case.grad_out.chunks_mut(6).for_each(|heads| heads[..3].fill(0.0));
    let last = case.gradient();
    case.grad_out = whole;
    let TargetAttentionGradientReference { keys, values, .. } = last;
    let mut not_summed = right.clone();
    not_summed.keys = keys;
    assert!(case.compare(not_summed).unwrap_err().starts_with("keys"));
    let mut not_summed = right.clone();
    not_summed.values = values;
    assert!(case.compare(not_summed).unwrap_err().starts_with("values"));

    // Without the scale.
    let mut unscaled = right.clone();
    unscaled.queries.iter_mut().for_each(|grad| *grad /= f64::from(op.effective_scale()));
    assert!(case.compare(unscaled).unwrap_err().starts_with("queries"));
    case.compare(right).unwrap();

    // Keys that are the values, without the values' part.
    let mut case = Case::new(op).aliased();
    let keys = case.keys.clone();
    let separate = Case { values: Some(keys), ..Case::new(op) }.gradient();
    let mut wrong = case.gradient();
    wrong.keys = separate.keys.clone();
    assert!(case.compare(wrong).unwrap_err().starts_with("keys"));
    let sum: Vec<f64> =
        separate.keys.iter().zip(separate.values.unwrap()).map(|(key, value)| key + value).collect();
    super::compare("keys", &case.gradient().keys, &sum, 1e-12, 1.0).unwrap();
}

/// What a score of -∞ removes gets zeros, though it holds NaN; the others are as if it were not there.
#[test]
fn removed_behaviours_and_rows_of_nobody_get_zeros() {
    for weighting in [Weighting::Softmax, Weighting::Relu, Weighting::silu(2.0)] {
        let mut case = Case::new(op(2, weighting)).with_bias();
        let bias = case.bias.as_mut().unwrap();
        // One of the first user's four, and all three of the third's.
        let removed = [1, 4, 5, 6];
        removed.iter().for_each(|&l| bias[l] = f32::NEG_INFINITY);
        let values = case.values.as_mut().unwrap();
        removed.iter().for_each(|&l| values[2 * l..2 * l + 2].fill(f32::NAN));
        // The tail.
        let last = case.queries.len() - 2;
        case.queries[last..].fill(f32::NAN);
        case.grad_out[last..].fill(f64::NAN);
        let gradient = case.gradient();
        let (keys, values) = (gradient.keys, gradient.values.unwrap());
        let bias = gradient.bias.unwrap();
        for l in removed.into_iter().chain([10]) {
            assert_eq!((&keys[2 * l..2 * l + 2], &values[2 * l..2 * l + 2]), (&[0.0; 2][..], &[0.0; 2][..]));
            assert_eq!(bias[l], 0.0);
        }
        // The candidate of the third user, the tail.
        assert_eq!((&gradient.queries[10..12], &gradient.queries[last..]), (&[0.0; 2][..], &[0.0; 2][..]));
        let all = keys.iter().chain(&values).chain(&bias).chain(&gradient.queries);
        assert!(all.into_iter().all(|grad| grad.is_finite()));
        assert!(keys[..2].iter().all(|&grad| grad != 0.0));
    }
}

/// A weight of 0 counts: 0 · NaN is NaN, in the gradients of that candidate's user alone.
#[test]
fn nan_that_is_not_removed_stays_with_its_user() {
    let mut case = Case::new(op(2, Weighting::Softmax)).with_bias();
    case.bias.as_mut().unwrap()[1] = -1e30;
    case.values.as_mut().unwrap()[2] = f32::NAN;
    let gradient = case.gradient();
    assert!(gradient.queries[..4].iter().all(|grad| grad.is_nan()));
    assert!(gradient.queries[4..].iter().all(|grad| grad.is_finite()));
    assert!(gradient.keys[..8].iter().all(|grad| grad.is_nan()));
    assert!(gradient.keys[8..].iter().all(|grad| grad.is_finite()));
}

#[test]
fn match_published_ones() {
    for name in ["jagged_attention_d16_t4", "jagged_attention_d64_t9"] {
        let golden = Golden::load(name);
        let op = TargetAttention::new(golden.shape("key")[1]);
        let batch =
            Batch::new(golden.jagged("offsets", "key"), golden.jagged("target_offsets", "query")).unwrap();
        let [query, key, value] = ["query", "key", "value"].map(|name| golden.f32(name));
        let inputs =
            TargetAttentionInputs::new(Host::view(&query), Host::view(&key)).with_values(Host::view(&value));
        let gradient =
            target_attention_backward(&op, &batch, &inputs, &golden.f64("grad_out"), None).unwrap();
        assert_published(&golden, "grad_query", &gradient.queries);
        assert_published(&golden, "grad_key", &gradient.keys);
        assert_published(&golden, "grad_value", &gradient.values.unwrap());
    }
}

#[test]
fn need_gradients_of_the_right_size() {
    let case = Case::new(op(3, Weighting::Softmax));
    let call = |op: &TargetAttention, grad_out: &[f64], grad_lse| {
        target_attention_backward(op, &case.batch, &case.inputs(), grad_out, grad_lse)
    };
    assert_eq!(shape_argument(call(&case.op, &case.grad_out[1..], None)), "grad_out");
    assert_eq!(shape_argument(call(&case.op, &case.grad_out, Some(&[0.0]))), "grad_lse");
    let relu = case.op.with_weighting(Weighting::Relu);
    let result = call(&relu, &case.grad_out, Some(&vec![0.0; case.batch.targets().rows()]));
    assert!(matches!(result, Err(Error::Unsupported { .. })));
}

/// Two parts of a merge, and the gradients that come in.
struct Merge {
    parts: [(Vec<f32>, Vec<f32>); 2],
    grad_out: Vec<f64>,
    grad_lse: Vec<f64>,
}

impl Merge {
    fn new() -> Self {
        let mut numbers = Numbers(3);
        let mut part = || (numbers.f32(12), numbers.f32(4));
        let parts = [part(), part()];
        Self { parts, grad_out: numbers.f64(12), grad_lse: numbers.f64(4) }
    }

    fn part(&self, part: usize) -> PartialAttention<'_, Host, f32> {
        let (out, lse) = &self.parts[part];
        PartialAttention::new(Host::view(out), Host::view(lse))
    }

    fn loss(&self) -> f64 {
        let merged = merge_attention(&TargetAttention::new(3), self.part(0), self.part(1)).unwrap();
        let finite = |(lse, grad): (&f64, &f64)| if lse.is_finite() { lse * grad } else { 0.0 };
        dot(&merged.out, &self.grad_out) + merged.lse.iter().zip(&self.grad_lse).map(finite).sum::<f64>()
    }

    fn gradient(&self) -> [PartialAttentionGradientReference; 2] {
        let (op, grad_lse) = (TargetAttention::new(3), Some(&self.grad_lse[..]));
        let (first, second) =
            merge_attention_backward(&op, self.part(0), self.part(1), &self.grad_out, grad_lse).unwrap();
        [first, second]
    }

    fn tensors(&mut self) -> Vec<Tensor<'_>> {
        let [first, second] = &mut self.parts;
        vec![
            ("first.out", &mut first.0),
            ("first.lse", &mut first.1),
            ("second.out", &mut second.0),
            ("second.lse", &mut second.1),
        ]
    }
}

#[test]
fn of_a_merge() {
    let mut merge = Merge::new();
    let [first, second] = merge.gradient();
    let gradients = [
        ("first.out", first.out),
        ("first.lse", first.lse),
        ("second.out", second.out),
        ("second.lse", second.lse),
    ];
    compare_with_differences(&mut merge, Merge::tensors, Merge::loss, &gradients).unwrap();
    let mut wrong = gradients;
    wrong[1].1.iter_mut().zip(&merge.grad_lse).for_each(|(lse, grad)| *lse -= grad);
    let result = compare_with_differences(&mut merge, Merge::tensors, Merge::loss, &wrong);
    assert!(result.unwrap_err().starts_with("first.lse"));
}

#[test]
fn of_a_merge_with_dead_parts() {
    let mut merge = Merge::new();
    // Row 0: the first part is dead; row 1: both are.
    for (part, row) in [(0, 0), (0, 1), (1, 1)] {
        merge.parts[part].1[row] = f32::NEG_INFINITY;
        merge.parts[part].0[3 * row..3 * row + 3].fill(f32::NAN);
    }
    let [first, second] = merge.gradient();
    assert_eq!((&first.out[..6], &first.lse[..2]), (&[0.0; 6][..], &[0.0; 2][..]));
    assert_eq!((&second.out[..3], second.lse[0]), (&merge.grad_out[..3], merge.grad_lse[0]));
    assert_eq!((&second.out[3..6], second.lse[1]), (&[0.0; 3][..], 0.0));
    assert!(first.out[6..].iter().chain(&second.out[6..]).all(|grad| grad.is_finite() && *grad != 0.0));

    let op = TargetAttention::new(3);
    let call = |grad_out: &[f64], grad_lse| {
        merge_attention_backward(&op, merge.part(0), merge.part(1), grad_out, grad_lse)
    };
    assert_eq!(shape_argument(call(&merge.grad_out[1..], None)), "grad_out");
    assert_eq!(shape_argument(call(&merge.grad_out, Some(&[0.0]))), "grad_lse");
}
