//! Selections of every kind, numbers near the limits, and calls that are refused.

use longseq::*;

use crate::case::Rules;

/// A call for one user: keys of width 1 that are the values unless there are some, and what is kept of them.
struct One<'a> {
    queries: &'a [f32],
    keys: &'a [f32],
    values: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    gammas: Option<[f32; 3]>,
    positions: &'a [u32],
    similarities: &'a [f32],
    counts: &'a [u32],
}

impl One<'_> {
    /// The slots of a candidate.
    fn top_k(&self) -> usize {
        self.positions.len() / self.queries.len().max(1)
    }

    fn run<B: Backend>(&self, backend: &B, op: &SelectedAttention) -> Result<Vec<f32>> {
        let upload = |numbers: Option<&[f32]>| numbers.map(|numbers| backend.upload(numbers)).transpose();
        let (queries, keys) = (backend.upload(self.queries)?, backend.upload(self.keys)?);
        let gammas = upload(self.gammas.as_ref().map(|gammas| &gammas[..]))?;
        let (values, bias) = (upload(self.values)?, upload(self.bias)?);
        let similarities = backend.upload(self.similarities)?;
        let (positions, counts) = (backend.upload(self.positions)?, backend.upload(self.counts)?);
        let kept =
            Selection::new(backend.view(&positions), backend.view(&similarities), backend.view(&counts));
        let mut inputs = SelectedAttentionInputs::new(backend.view(&queries), backend.view(&keys), kept);
        inputs.values = values.as_ref().map(|values| backend.view(values));
        inputs.bias = bias.as_ref().map(|bias| backend.view(bias));
        inputs.gammas = gammas.as_ref().map(|gammas| backend.view(gammas));
        let batch = batch(backend, self.keys.len(), self.queries.len())?;
        let out = backend.selected_attention(op, &batch, inputs)?;
        backend.download(backend.view(&out))
    }
}

fn batch<B: Backend>(backend: &B, behaviours: usize, candidates: usize) -> Result<B::Batch> {
    backend.batch(&Jagged::from_lengths(&[behaviours])?, &Jagged::from_lengths(&[candidates])?)
}

/// One candidate that keeps all of two behaviours.
const TWO: One<'_> = One {
    queries: &[1.0],
    keys: &[0.0, 0.0],
    values: Some(&[1.0, 3.0]),
    bias: None,
    gammas: None,
    positions: &[0, 1],
    similarities: &[0.0, 0.0],
    counts: &[2],
};

fn op(top_k: usize) -> SelectedAttention {
    SelectedAttention::new(1).with_scale(1.0).with_top_k(top_k)
}

/// The argument that an error names.
fn argument<T: std::fmt::Debug>(result: Result<T>) -> &'static str {
    match result {
        Err(
            Error::Shape { argument, .. }
            | Error::Parameter { argument, .. }
            | Error::Limit { argument, .. }
            | Error::IndexOutOfRange { argument, .. },
        ) => argument,
        other => panic!("{other:?}"),
    }
}

/// Both stages of DARE: softmax of the search's own scores is the aggregation's.
pub(super) fn attends_to_what_a_search_kept<B: Backend>(backend: &B, _: Rules) {
    let run = || -> Result<[Vec<f32>; 2]> {
        let (length, width, top_k) = (200, 8, 20);
        let number = |i: usize| ((i * 37 % 101) as f32 - 50.0) / 25.0;
        let rows: Vec<f32> = (0..length * width).map(number).collect();
        let candidates: Vec<f32> = (0..3 * width).map(|i| number(i + 7)).collect();
        let (rows, candidates) = (backend.upload(&rows)?, backend.upload(&candidates)?);
        let tables = [Table::new(length, width, TableData::F32(backend.view(&rows)))];
        let ids = backend.upload(&(0..length as u32).collect::<Vec<_>>())?;
        let target_ids = backend.upload(&[5_u32, 50, 199])?;
        let (history, targets) = (backend.view(&ids), backend.view(&target_ids));
        let decoupled = Decoupled::new([0.3]).with_top_k(Some(top_k));
        let batch = batch(backend, length, 3)?;
        let search = SearchInputs::new(&tables, history, targets);
        let kept = backend.decoupled_search(&decoupled, &batch, search)?;
        let aggregate = AggregateInputs::new(&tables, history, targets);
        let expected = backend.decoupled_aggregate(&decoupled, &batch, aggregate, kept.selection())?;
        let gammas = backend.upload(&[0.0_f32, 1.0, 0.0])?;
        let inputs =
            SelectedAttentionInputs::new(backend.view(&candidates), backend.view(&rows), kept.selection())
                .with_gammas(backend.view(&gammas));
        let op = SelectedAttention::new(width).with_top_k(top_k);
        let out = backend.selected_attention(&op, &batch, inputs)?;
        Ok([backend.download(backend.view(&expected))?, backend.download(backend.view(&out))?])
    };
    let [expected, out] = run().expect("valid calls");
    assert_eq!(expected.len(), out.len());
    for (expected, out) in expected.iter().zip(&out) {
        // Means of numbers of at most 2, in two orders of additions.
        assert!((expected - out).abs() < 1e-5, "{out} instead of {expected}");
    }
}

/// A γ of 0 leaves its term out, whatever it would hold.
pub(super) fn leaves_terms_out<B: Backend>(backend: &B, rules: Rules) {
    if !rules.nan {
        return;
    }
    let (nan, infinity) = (f32::NAN, f32::INFINITY);
    for (queries, similarities) in [([1.0], [nan, infinity]), ([nan], [0.5, 0.5]), ([infinity], [0.5, 0.5])] {
        let case = One { queries: &queries, similarities: &similarities, ..TWO };
        let uses_scores = queries == [1.0];
        let left_out = if uses_scores { [1.0, 0.0, 0.0] } else { [0.0, 1.0, 0.0] };
        let out = One { gammas: Some(left_out), ..case }.run(backend, &op(2)).expect("a valid call");
        assert_eq!(out, [2.0]);
        let out = One { gammas: Some([1.0, 1.0, 0.0]), ..case }.run(backend, &op(2)).expect("a valid call");
        assert!(out[0].is_nan(), "{out:?}");
    }
    // What is removed is so whatever γ is.
    let bias: &[f32] = &[f32::NEG_INFINITY, 0.0];
    let similarities: &[f32] = &[f32::NEG_INFINITY, 0.0];
    for gammas in [None, Some([0.0, 1.0, 0.0]), Some([-1.0, -1.0, 0.0]), Some([0.0; 3])] {
        let biased = One { bias: Some(bias), gammas, ..TWO };
        assert_eq!(biased.run(backend, &op(2)), Ok(vec![3.0]), "{gammas:?}");
        let similar = One { similarities, gammas, ..TWO };
        assert_eq!(similar.run(backend, &op(2)), Ok(vec![3.0]), "{gammas:?}");
    }
    // A repeated position counts as often; an order of slots does not matter.
    let repeated = One { positions: &[1, 0, 1], similarities: &[0.0; 3], counts: &[3], ..TWO };
    let out = repeated.run(backend, &op(3)).expect("a valid call");
    assert!((out[0] - 7.0 / 3.0).abs() < 1e-6, "{out:?}");
}

/// A mean is at most the largest value.
pub(super) fn weighs_values_near_the_limits<B: Backend>(backend: &B, rules: Rules) {
    if !rules.nan {
        return;
    }
    let max = f32::MAX;
    let positions: Vec<u32> = (0..300).collect();
    let (keys, values, similarities) = (vec![0.0; 300], vec![max; 300], vec![0.0; 300]);
    let case = One {
        keys: &keys,
        values: Some(&values),
        positions: &positions,
        similarities: &similarities,
        counts: &[300],
        ..TWO
    };
    assert_eq!(case.top_k(), 300);
    let out = case.run(backend, &op(300)).expect("a valid call");
    assert!((out[0] / max - 1.0).abs() < 1e-5, "{out:?}");
    assert_eq!(One { values: Some(&[max, -max]), ..TWO }.run(backend, &op(2)), Ok(vec![0.0]));
    let infinite = One { values: Some(&[f32::INFINITY, 1.0]), ..TWO };
    assert_eq!(infinite.run(backend, &op(2)), Ok(vec![f32::INFINITY]));
}

/// Numbers from -1 to 1.
fn number(i: usize) -> f32 {
    ((i * 37 % 101) as f32 - 50.0) / 50.0
}

/// The output and all gradients of a call whose inputs begin so many elements into their buffers.
fn run_at<B: Backend>(backend: &B, offset: usize) -> Result<Vec<f32>> {
    const SIZES: [usize; 8] = [2 * 2 * 8, 6 * 8, 6 * 8, 6 * 2, 2 * 3, 6, 2 * 2 * 8, 2 * 2];
    let op = SelectedAttention::new(8).with_heads(2, 1).with_top_k(3);
    let batch = batch(backend, 6, 2)?;
    let after = |numbers: Vec<f32>| -> Result<Buffer<B, f32>> {
        backend.upload(&[vec![f32::MAX; offset], numbers].concat())
    };
    let upload = |(input, size): (usize, usize)| after((0..size).map(|i| number(i + 7 * input)).collect());
    let inputs = SIZES.into_iter().enumerate().map(upload).collect::<Result<Vec<_>>>()?;
    let view = |input: usize| backend.view(&inputs[input]).slice(offset, SIZES[input]);
    let positions = backend.upload(&[vec![u32::MAX; offset], vec![0, 5, 2, 4, 1, 1]].concat())?;
    let counts = backend.upload(&[vec![u32::MAX; offset], vec![3, 2]].concat())?;
    let (positions, counts) =
        (backend.view(&positions).slice(offset, 6)?, backend.view(&counts).slice(offset, 2)?);
    let inputs =
        SelectedAttentionInputs::new(view(0)?, view(1)?, Selection::new(positions, view(5)?, counts))
            .with_values(view(2)?)
            .with_bias(view(3)?)
            .with_gammas(view(4)?);
    let mut all = {
        let out = backend.selected_attention(&op, &batch, inputs)?;
        backend.download(backend.view(&out))?
    };
    let mut grads = SIZES[..6].iter().map(|&size| backend.zeros::<f32>(size)).collect::<Result<Vec<_>>>()?;
    if let [queries, keys, values, bias, gammas, similarities] = &mut grads[..] {
        let asked = SelectedAttentionGradients::new()
            .with_queries(backend.view_mut(queries))
            .with_keys(backend.view_mut(keys))
            .with_values(backend.view_mut(values))
            .with_bias(backend.view_mut(bias))
            .with_gammas(backend.view_mut(gammas))
            .with_similarities(backend.view_mut(similarities));
        let grad = SelectedAttentionGradOut::new(view(6)?).with_lse(view(7)?);
        backend.selected_attention_backward_into(&op, &batch, inputs, grad, asked)?;
    }
    for grad in &grads {
        all.extend(backend.download(backend.view(grad))?);
    }
    Ok(all)
}

pub(super) fn reads_views_at_any_offset<B: Backend>(backend: &B, _: Rules) {
    let expected = run_at(backend, 0).expect("a valid call");
    for offset in 1..5 {
        let got = run_at(backend, offset).expect("a valid call");
        for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
            // Sums of a few numbers of about 1, in another order.
            assert!((got - expected).abs() < 1e-5, "offset {offset}, [{i}]: {got} instead of {expected}");
        }
    }
}

pub(super) fn finds_positions_and_counts_outside<B: Backend>(backend: &B, _: Rules) {
    let run = |positions: [u32; 2], counts: [u32; 1]| {
        One { positions: &positions, counts: &counts, ..TWO }.run(backend, &op(2))
    };
    assert_eq!(run([1, 0], [2]), Ok(vec![2.0]));
    // What is not counted may hold anything.
    assert_eq!(run([1, u32::MAX], [1]), Ok(vec![3.0]));
    assert_eq!(run([u32::MAX, 7], [0]), Ok(vec![0.0]));
    for (positions, counts, name) in [
        ([2, 0], [1], "positions"),
        ([0, 2], [2], "positions"),
        ([u32::MAX, 0], [2], "positions"),
        ([0, 1], [3], "counts"),
        ([0, 1], [u32::MAX], "counts"),
    ] {
        assert_eq!(argument(run(positions, counts)), name);
    }
    let histogram = |counts: [u32; 1]| -> Result<Vec<u32>> {
        let similarities = backend.upload(&[0.5_f32, 1.0])?;
        let (positions, counts) = (backend.upload(&[u32::MAX; 2])?, backend.upload(&counts)?);
        let kept =
            Selection::new(backend.view(&positions), backend.view(&similarities), backend.view(&counts));
        let op = SimilarityHistogram::new(1).with_top_k(2);
        let out = backend.similarity_histogram(&op, &batch(backend, 0, 1)?, kept)?;
        backend.download(backend.view(&out))
    };
    assert_eq!(histogram([2]), Ok(vec![0, 0, 2]));
    assert_eq!(argument(histogram([3])), "counts");
    backend.synchronize().expect("all errors were reported");
}

pub(super) fn takes_batches_of_nobody<B: Backend>(backend: &B, _: Rules) {
    let none = One { queries: &[], positions: &[], similarities: &[], counts: &[], ..TWO };
    assert_eq!(none.run(backend, &op(2)), Ok(vec![]));
    assert_eq!(One { keys: &[], values: Some(&[]), ..none }.run(backend, &op(1 << 40)), Ok(vec![]));
    // Without behaviours there is nothing to keep.
    let empty = One { keys: &[], values: None, counts: &[0], ..TWO };
    assert_eq!(empty.run(backend, &op(2)), Ok(vec![0.0]));
}

pub(super) fn refuses_what_does_not_fit<B: Backend>(backend: &B, _: Rules) {
    let run = |op: SelectedAttention| argument(TWO.run(backend, &op));
    assert_eq!(run(op(0)), "top_k");
    assert_eq!(run(op(3)), "positions");
    assert_eq!(run(op(2).with_heads(2, 1)), "queries");
    assert_eq!(run(op(2).with_heads(3, 2)), "kv_heads");
    assert_eq!(run(op(2).with_scale(f32::NAN)), "scale");
    assert_eq!(run(op(2).with_value_width(2)), "values");
    assert_eq!(run(op(usize::MAX)), "positions");
    assert_eq!(argument(One { values: None, ..TWO }.run(backend, &op(2).with_value_width(2))), "values");
    assert_eq!(argument(One { bias: Some(&[0.0]), ..TWO }.run(backend, &op(2))), "bias");
    assert_eq!(argument(One { similarities: &[0.0], ..TWO }.run(backend, &op(2))), "scores");
    assert_eq!(argument(One { counts: &[], ..TWO }.run(backend, &op(2))), "counts");
    let histogram = |op: SimilarityHistogram| -> Result<usize> {
        let numbers = backend.zeros::<f32>(2)?;
        let (positions, counts) = (backend.zeros::<u32>(2)?, backend.zeros::<u32>(1)?);
        let kept = Selection::new(backend.view(&positions), backend.view(&numbers), backend.view(&counts));
        let out = backend.similarity_histogram(&op, &batch(backend, 0, 1)?, kept)?;
        Ok(backend.download(backend.view(&out))?.len())
    };
    let right = SimilarityHistogram::new(10).with_top_k(2);
    assert_eq!(histogram(right), Ok(21));
    assert_eq!(argument(histogram(right.with_top_k(1))), "positions");
    assert_eq!(argument(histogram(SimilarityHistogram::new(0).with_top_k(2))), "steps");
    let (most, more) = (SimilarityHistogram::MAX_STEPS, SimilarityHistogram::MAX_STEPS + 1);
    assert_eq!(histogram(SimilarityHistogram::new(most).with_top_k(2)), Ok(2 * most + 1));
    assert_eq!(argument(histogram(SimilarityHistogram::new(more).with_top_k(2))), "steps");
}
