//! Tables and selections that are hard for attention from tables, and calls that are refused.

use longseq::*;

use super::tables_tests::{EVERY, assert_both, of};
use super::tests::shape;
use super::{KeysFrom, Mix, SelectedCase};
use crate::case::Rules;
use crate::compare::{Bound, compare};
use crate::lookup::views;

/// One candidate over two behaviours of a user, with values from a table of three rows.
struct One<'a> {
    rows: [f32; 3],
    ids: [u32; 2],
    positions: [u32; 2],
    similarities: [f32; 2],
    count: u32,
    bias: Option<&'a [f32]>,
    policy: IdPolicy,
}

const ONE: One<'_> = One {
    rows: [1.0, 2.0, 8.0],
    ids: [2, 0],
    positions: [0, 1],
    similarities: [0.5, 0.5],
    count: 2,
    bias: None,
    policy: IdPolicy::Error,
};

impl One<'_> {
    /// The output, the ids of the sparse gradient for a `grad_out` of 1, and its rows.
    fn run<B: Backend>(&self, backend: &B) -> Result<(f32, Vec<u32>, Vec<f32>)> {
        let op = SelectedAttention::new(1).with_top_k(2).with_ids(self.policy);
        let batch = backend.batch(&Jagged::from_lengths(&[2])?, &Jagged::from_lengths(&[1])?)?;
        let (query, rows, ids) =
            (backend.upload(&[0.0_f32])?, backend.upload(&self.rows)?, backend.upload(&self.ids)?);
        let bias = self.bias.map(|bias| backend.upload(bias)).transpose()?;
        let tables = [Table::new(3, 1, TableData::F32(backend.view(&rows)))];
        let (positions, similarities) =
            (backend.upload(&self.positions)?, backend.upload(&self.similarities)?);
        let counts = backend.upload(&[self.count])?;
        let kept =
            Selection::new(backend.view(&positions), backend.view(&similarities), backend.view(&counts));
        let (query, ids) = (backend.view(&query), backend.view(&ids));
        let mut inputs = SelectedTableInputs::new(query, SelectedKeys::Values, &tables, ids, kept);
        inputs.bias = bias.as_ref().map(|bias| backend.view(bias));
        let out = backend.selected_table_attention(&op, &batch, inputs)?;
        let out = backend.download(backend.view(&out))?;
        let grad_out = backend.upload(&[1.0_f32])?;
        let mut places = (backend.zeros::<u32>(2)?, backend.zeros::<f32>(2)?, backend.zeros::<u32>(1)?);
        let gradient = SparseGradientMut::new(
            backend.view_mut(&mut places.0),
            backend.view_mut(&mut places.1),
            backend.view_mut(&mut places.2),
        );
        let grads = SelectedTableGradients::<_, f32>::new().with_values([Some(gradient.into())]);
        let grad_out = SelectedAttentionGradOut::new(backend.view(&grad_out));
        backend.selected_table_attention_backward_into(&op, &batch, inputs, grad_out, grads)?;
        let count = backend.download(backend.view(&places.2))?[0] as usize;
        let (mut ids, mut rows) =
            (backend.download(backend.view(&places.0))?, backend.download(backend.view(&places.1))?);
        ids.truncate(count);
        rows.truncate(count);
        Ok((out[0], ids, rows))
    }
}

/// What is removed may hold anything, and its id has no gradient; what is not counts with a weight of 0, too.
pub(super) fn ignores_rows_of_removed_behaviours<B: Backend>(backend: &B, rules: Rules) {
    const REMOVED: f32 = f32::NEG_INFINITY;
    let rows = if rules.nan { [1.0, 2.0, f32::NAN] } else { ONE.rows };
    let similar = One { rows, similarities: [REMOVED, 0.5], ..ONE };
    assert_eq!(similar.run(backend), Ok((1.0, vec![0], vec![1.0])));
    let biased = One { rows, bias: Some(&[REMOVED, 0.0]), ..ONE };
    assert_eq!(biased.run(backend), Ok((1.0, vec![0], vec![1.0])));
    let both = One { bias: Some(&[REMOVED, REMOVED]), ..ONE };
    assert_eq!(both.run(backend), Ok((0.0, vec![], vec![])));
    let weightless = One { bias: Some(&[-1e4, 0.0]), ..ONE };
    assert_eq!(weightless.run(backend), Ok((1.0, vec![0, 2], vec![1.0, 0.0])));
    // The same id twice.
    let twice = One { ids: [2, 2], ..ONE };
    assert_eq!(twice.run(backend), Ok((8.0, vec![2], vec![1.0])));
    assert_eq!(ONE.run(backend), Ok((4.5, vec![0, 2], vec![0.5, 0.5])));
}

pub(super) fn finds_positions_counts_and_ids_outside<B: Backend>(backend: &B, _: Rules) {
    let argument = |one: One<'_>| match one.run(backend) {
        Err(Error::IndexOutOfRange { argument, .. }) => argument,
        other => panic!("{other:?}"),
    };
    assert_eq!(argument(One { positions: [0, 2], ..ONE }), "positions");
    assert_eq!(argument(One { count: 3, ..ONE }), "counts");
    assert_eq!(argument(One { ids: [2, 3], ..ONE }), "history_ids");
    // Though nobody keeps it.
    assert_eq!(argument(One { ids: [2, u32::MAX], count: 1, ..ONE }), "history_ids");
    let zero = One { ids: [2, u32::MAX], policy: IdPolicy::Zero, ..ONE };
    assert_eq!(zero.run(backend), Ok((4.0, vec![2], vec![0.5])));
    // What is not counted may hold anything.
    let one = One { positions: [1, u32::MAX], count: 1, ..ONE };
    assert_eq!(one.run(backend), Ok((1.0, vec![0], vec![1.0])));
    assert_eq!(One { count: 0, ..ONE }.run(backend), Ok((0.0, vec![], vec![])));
}

pub(super) fn takes_batches_of_nobody<B: Backend>(backend: &B, rules: Rules) {
    for keys in EVERY {
        for (histories, targets) in [(vec![0, 0], vec![0, 0]), (vec![3], vec![0]), (vec![0], vec![2])] {
            let forward = SelectedCase { histories, targets, tail: 2, ..Default::default() };
            assert_both(of(forward, keys), backend, rules);
        }
    }
}

pub(super) fn refuses_what_does_not_fit<B: Backend>(backend: &B, _: Rules) {
    let run = |op: SelectedAttention, width: usize, ids: usize| -> Result<()> {
        let batch = backend.batch(&Jagged::from_lengths(&[3])?, &Jagged::from_lengths(&[2])?)?;
        let (numbers, places) = (backend.zeros::<f32>(64)?, backend.zeros::<u32>(8)?);
        let part = |length: usize| backend.view(&numbers).slice(0, length);
        let places = |length: usize| backend.view(&places).slice(0, length);
        let tables = [Table::new(3, width, TableData::F32(part(3 * width)?))];
        let kept = Selection::new(places(4)?, part(4)?, places(2)?);
        let inputs = SelectedTableInputs::new(part(8)?, SelectedKeys::Values, &tables, places(ids)?, kept);
        backend.selected_table_attention(&op, &batch, inputs).map(drop)
    };
    let argument = |result: Result<()>| match result {
        Err(
            Error::Shape { argument, .. } | Error::Parameter { argument, .. } | Error::Limit { argument, .. },
        ) => argument,
        other => panic!("{other:?}"),
    };
    let op = SelectedAttention::new(4).with_top_k(2);
    run(op, 4, 3).expect("a valid call");
    assert_eq!(argument(run(op, 5, 3)), "values");
    assert_eq!(argument(run(op, 4, 4)), "history_ids");
    assert_eq!(argument(run(op.with_value_width(5), 5, 3)), "keys");
    assert_eq!(argument(run(op.with_top_k(3), 4, 3)), "positions");
    assert_eq!(argument(run(op.with_top_k(usize::MAX), 4, 3)), "positions");
    assert_eq!(argument(run(op.with_ids(IdPolicy::Skip), 4, 3)), "ids");
    assert_eq!(argument(run(op.with_heads(usize::MAX, usize::MAX), 4, 3)), "queries");
}

/// With γ = (0, 1, 0) they are those of an aggregation.
pub(super) fn aggregates_as_decoupled_embeddings_do<B: Backend>(backend: &B, rules: Rules) {
    let forward = SelectedCase { mix: Mix::All([0.0, 1.0, 0.0]), ..shape(&[40, 9], &[3, 20]) };
    let case = of(forward, KeysFrom::Rows);
    let inputs = case.inputs::<f32>();
    let run = || -> Result<[Vec<f32>; 2]> {
        let batch = case.forward.batch();
        let device_batch = backend.batch(batch.histories(), batch.targets())?;
        let inputs = inputs.upload(backend)?;
        let values = views(backend, &inputs.values);
        let given = inputs.views(backend, KeysFrom::Rows, [&[], &values]);
        let attention = backend.selected_table_attention(&case.op(), &device_batch, given)?;
        let op = Decoupled::new(vec![1.0; values.len()]).with_top_k(Some(case.forward.top_k));
        // The ids of candidates are not read.
        let targets = backend.zeros::<u32>(batch.targets().rows() * values.len())?;
        let aggregate = AggregateInputs::new(&values, given.history_ids, backend.view(&targets));
        let mean = backend.decoupled_aggregate(&op, &device_batch, aggregate, given.selection)?;
        Ok([backend.download(backend.view(&attention))?, backend.download(backend.view(&mean))?])
    };
    let [attention, mean] = run().expect("valid calls");
    let exact: Vec<f64> = mean.iter().map(|&x| x.into()).collect();
    // Both are within the same bound.
    let bound = Bound::uniform(2.0 * case.errors(&inputs).out::<f32>(rules), false);
    compare("out", &attention, &exact, &bound, rules).unwrap();
}
