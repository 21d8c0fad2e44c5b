//! Optimisers on rows of a table, on every backend that has them.

use longseq::*;
use proptest::prelude::*;

use super::UpdateRowsCase;
use crate::case::{Rules, assert_check, check};
use crate::data::{self, Data, Ids};

/// The argument of an error, with what is wrong about a number in it.
#[track_caller]
pub(super) fn argument<T: std::fmt::Debug>(result: Result<T>) -> String {
    match result {
        Err(Error::Shape { argument, .. } | Error::Parameter { argument, .. }) => argument.into(),
        Err(Error::IndexOutOfRange { argument, position, id, bound, .. }) => {
            format!("{argument}[{position}] = {id} >= {bound}")
        }
        other => panic!("{other:?}"),
    }
}

/// Every optimiser, with and without weight decay; Adam at its first and at later steps.
pub(super) fn optimisers() -> Vec<Optimiser> {
    let plain = [
        Optimiser::sgd(0.3),
        Optimiser::row_wise_adagrad(0.1),
        Optimiser::adagrad(0.1).with_eps(1e-3),
        Optimiser::adam(0.01, 1),
        Optimiser::adam(0.01, 1000).with_betas(0.5, 0.99),
        Optimiser::adam(0.01, 7).with_betas(0.0, 0.9),
    ];
    plain.into_iter().flat_map(|op| [op, op.with_weight_decay(0.1)]).collect()
}

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

pub(super) fn updates_rows_with_every_optimiser<B: Backend>(backend: &B, rules: Rules) {
    for optimiser in optimisers() {
        for dtype in DTYPES {
            for data in [Data::Normal, Data::Scaled(1e3), Data::Scaled(1e-6), Data::Zeros] {
                let case = UpdateRowsCase { optimiser, dtype, data, spare: 2, ..Default::default() };
                assert_check(&case, backend, rules);
            }
        }
    }
}

/// The first step with gradients whose squares `f32` does not hold, or only as subnormal numbers, and with none.
pub(super) fn steps_on_gradients_whose_squares_vanish<B: Backend>(backend: &B, rules: Rules) {
    for plain in [Optimiser::row_wise_adagrad(0.1), Optimiser::adagrad(1e3), Optimiser::adam(0.01, 1)] {
        for eps in [Optimiser::MIN_EPS, 1e-8] {
            for data in [Data::Scaled(1e-15), Data::Scaled(1e-19), Data::Scaled(1e-22), Data::Zeros] {
                let optimiser = plain.with_eps(eps);
                let case = UpdateRowsCase { optimiser, data, fresh: true, ..Default::default() };
                assert_check(&case, backend, rules);
            }
        }
    }
    // The largest factor of a gradient.
    let optimiser = Optimiser::row_wise_adagrad(1e26);
    for data in [Data::Zeros, Data::Scaled(1e-22)] {
        let case = UpdateRowsCase { optimiser, data, fresh: true, ..Default::default() };
        assert_check(&case, backend, rules);
    }
}

pub(super) fn updates_rows_of_any_width<B: Backend>(backend: &B, rules: Rules) {
    for width in [1, 3, 15, 16, 17, 64, 300] {
        for optimiser in [Optimiser::row_wise_adagrad(0.1), Optimiser::adam(0.1, 3)] {
            for (rows, ids) in [(1, 1), (40, 0), (2000, 3000)] {
                let case =
                    UpdateRowsCase { optimiser, width, rows, ids, draw: Ids::Uniform, ..Default::default() };
                assert_check(&case, backend, rules);
            }
        }
    }
}

prop_compose! {
    /// Any step whose sizes a test has time for.
    fn any_update()(
        seed in any::<u64>(),
        dtype in prop::sample::select(DTYPES.to_vec()),
        rows in 1usize..1500,
        width in 1usize..40,
        ids in 0usize..1500,
        draw in prop::sample::select(vec![Ids::Skewed, Ids::Uniform, Ids::Last]),
        spare in 0usize..3,
        optimiser in prop::sample::select(optimisers()),
    ) -> UpdateRowsCase {
        UpdateRowsCase { seed, dtype, rows, width, ids, draw, spare, optimiser, ..Default::default() }
    }
}

pub(super) fn updates_random_rows<B: Backend>(backend: &B, rules: Rules) {
    proptest!(data::random_cases(48), |(case in any_update())| {
        check(&case, backend, rules).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    });
}

/// Runs a step of Adagrad on a table of 3 rows of 2 with these ids and this count; the table and the sums afterwards.
fn update<B: Backend>(backend: &B, ids: &[u32], count: u32) -> (Result<()>, Vec<f32>) {
    let run = |table: &mut Buffer<B, f32>, sums: &mut Buffer<B, f32>| -> Result<()> {
        let (rows, ids) = (backend.upload(&vec![2.0f32; 2 * ids.len()])?, backend.upload(ids)?);
        let count = backend.upload(&[count])?;
        let gradient = SparseGradient::new(backend.view(&ids), backend.view(&rows), backend.view(&count));
        let state = OptimiserState::Sums(backend.view_mut(sums));
        let table = TableMut::new(3, 2, backend.view_mut(table));
        backend.update_rows(&Optimiser::adagrad(1.0), table, state, gradient)?;
        backend.synchronize()
    };
    let mut table = backend.upload(&[5.0f32; 6]).expect("memory");
    let mut sums = backend.zeros::<f32>(6).expect("memory");
    let result = run(&mut table, &mut sums);
    let after = [backend.download(backend.view(&table)), backend.download(backend.view(&sums))];
    (result, after.map(|numbers| numbers.expect("a device that works")).concat())
}

pub(super) fn refuses_bad_updates_and_changes_nothing<B: Backend>(backend: &B, _: Rules) {
    let (result, after) = update(backend, &[0, 2, 9], 2);
    assert_eq!(
        (result, &after[..]),
        (Ok(()), &[4.0, 4.0, 5.0, 5.0, 4.0, 4.0, 4.0, 4.0, 0.0, 0.0, 4.0, 4.0][..])
    );
    let before = [[5.0f32; 6], [0.0; 6]].concat();
    for (ids, count, expected) in [
        (&[0, 3][..], 2, "gradient.ids[1] = 3 >= 3"),
        (&[0, u32::MAX], 2, "gradient.ids[1] = 4294967295 >= 3"),
        (&[2, 0], 2, "gradient.ids"),
        (&[1, 1], 2, "gradient.ids"),
        (&[0, 1], 3, "gradient.count[0] = 3 >= 3"),
        (&[0, 1], u32::MAX, "gradient.count[0] = 4294967295 >= 3"),
    ] {
        let (result, after) = update(backend, ids, count);
        assert_eq!(argument(result), expected);
        assert_eq!(after, before, "{ids:?} changed something");
    }
    let with = |op: Optimiser, state: usize, second: usize, rows: usize| -> Result<()> {
        let (mut table, mut sums) = (backend.zeros::<f32>(6)?, backend.zeros::<f32>(state.max(1))?);
        let mut moments = backend.zeros::<f32>(second.max(1))?;
        let (ids, rows, count) = (backend.zeros(1)?, backend.zeros(rows)?, backend.zeros(1)?);
        let gradient = SparseGradient::new(backend.view(&ids), backend.view(&rows), backend.view(&count));
        let state = match (state, second) {
            (0, _) => OptimiserState::Empty,
            (_, 0) => OptimiserState::Sums(backend.view_mut(&mut sums)),
            _ => OptimiserState::Moments {
                first: backend.view_mut(&mut sums),
                second: backend.view_mut(&mut moments),
            },
        };
        backend.update_rows(&op, TableMut::new(3, 2, backend.view_mut(&mut table)), state, gradient)?;
        backend.synchronize()
    };
    assert_eq!(with(Optimiser::adam(0.1, 1), 6, 6, 2), Ok(()));
    for (op, state, second, rows, expected) in [
        (Optimiser::sgd(0.1), 6, 0, 2, "state"),
        (Optimiser::adagrad(0.1), 0, 0, 2, "state"),
        (Optimiser::adagrad(0.1), 3, 0, 2, "state"),
        (Optimiser::row_wise_adagrad(0.1), 6, 0, 2, "state"),
        (Optimiser::adam(0.1, 1), 6, 0, 2, "state"),
        (Optimiser::adam(0.1, 1), 5, 6, 2, "state.first"),
        (Optimiser::adam(0.1, 1), 6, 5, 2, "state.second"),
        (Optimiser::sgd(0.1), 0, 0, 3, "gradient.rows"),
        (Optimiser::sgd(f32::NAN), 0, 0, 2, "rate"),
        (Optimiser::sgd(0.1).with_weight_decay(f32::INFINITY), 0, 0, 2, "weight_decay"),
        (Optimiser::sgd(1e30).with_weight_decay(1e30), 0, 0, 2, "weight_decay"),
        (Optimiser::adagrad(0.1).with_eps(0.0), 6, 0, 2, "eps"),
        (Optimiser::adagrad(0.1).with_eps(9e-13), 6, 0, 2, "eps"),
        (Optimiser::row_wise_adagrad(0.1).with_eps(1e-20), 3, 0, 2, "eps"),
        (Optimiser::adam(0.1, 1).with_eps(f32::INFINITY), 6, 6, 2, "eps"),
        (Optimiser::row_wise_adagrad(1e31), 3, 0, 2, "rate"),
        (Optimiser::adam(-1e30, 1).with_eps(1e-9), 6, 6, 2, "rate"),
        (Optimiser::adam(0.1, 0), 6, 6, 2, "step"),
        (Optimiser::adam(0.1, 1).with_betas(1.0, 0.9), 6, 6, 2, "beta1"),
        (Optimiser::adam(0.1, 1).with_betas(0.9, f32::NAN), 6, 6, 2, "beta2"),
    ] {
        assert_eq!(argument(with(op, state, second, rows)), expected, "{op:?}");
    }
}
