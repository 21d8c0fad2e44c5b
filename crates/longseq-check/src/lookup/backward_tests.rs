//! The backward pass of look-ups, sorted ids and optimisers: a grid of cases, random cases, and faults that must be caught.

use longseq::*;
use proptest::prelude::*;

use super::update_rows_tests::*;
use super::{Form, LookupBackwardCase, LookupCase, Pool, Storage, UpdateRowsCase};
use crate::case::{Rules, assert_check, check};
use crate::data::{self, Data, Ids};
use crate::device::cpu;
use crate::mutant::{Fault, Mutant};
use crate::named::assert_small_cases;
use crate::registry::list_tests;

list_tests!("lookup_backward":
    matches_reference_from_every_storage,
    matches_reference_in_bags,
    matches_reference_in_every_form,
    matches_reference_on_unusual_numbers,
    matches_reference_on_long_runs,
    matches_reference_on_random_lookups,
    matches_reference_on_the_small_named_cases,
    keeps_nan_to_the_rows_that_read_it,
    matches_reference_with_weights,
    sorts_columns_and_their_continuations,
    refuses_bad_ids_and_orders,
    updates_rows_with_every_optimiser,
    updates_rows_of_any_width,
    steps_on_gradients_whose_squares_vanish,
    updates_random_rows,
    refuses_bad_updates_and_changes_nothing,
);

const POOLS: [Pool; 3] = [Pool::Each, Pool::Sum, Pool::Mean];

fn matches_reference_from_every_storage<B: Backend>(backend: &B, rules: Rules) {
    for storage in Storage::ALL {
        for (widths, second_widths) in [(vec![1], vec![]), (vec![16], vec![64]), (vec![3, 40], vec![5, 17])] {
            for sorted in [false, true] {
                let table_rows = vec![50, 7][..widths.len()].to_vec();
                let (widths, second_widths) = (widths.clone(), second_widths.clone());
                let forward = LookupCase { storage, table_rows, widths, second_widths, ..Default::default() };
                let case = LookupBackwardCase { forward, sorted, spare: 3, ..Default::default() };
                assert_check(&case, backend, rules);
            }
        }
    }
    let forward = LookupCase { bags: vec![], ..Default::default() };
    assert_check(&LookupBackwardCase { forward, ..Default::default() }, backend, rules);
}

fn matches_reference_in_bags<B: Backend>(backend: &B, rules: Rules) {
    for pool in POOLS {
        for policy in [IdPolicy::Error, IdPolicy::Zero, IdPolicy::Skip] {
            for ids in [Ids::Skewed, Ids::Uniform, Ids::Last, Ids::Hot] {
                let (widths, second_widths) = (vec![8, 33], vec![20, 1]);
                let (table_rows, bags) = (vec![300, 60], vec![0, 1, 2, 33, 1000, 0]);
                let forward = LookupCase {
                    pool,
                    policy,
                    ids,
                    table_rows,
                    widths,
                    second_widths,
                    bags,
                    tail: 2,
                    ..Default::default()
                };
                let sorted = policy == IdPolicy::Zero;
                assert_check(&LookupBackwardCase { forward, sorted, ..Default::default() }, backend, rules);
            }
        }
    }
}

/// Weights of ids of two features, in both sets of tables.
fn weighted(policy: IdPolicy, storage: Storage) -> LookupCase {
    LookupCase {
        storage,
        policy,
        pool: Pool::Sum,
        weights: Some(Data::Normal),
        table_rows: vec![300, 60],
        widths: vec![8, 33],
        second_widths: vec![20, 300],
        bags: vec![0, 1, 2, 33, 700, 0],
        tail: 2,
        ..Default::default()
    }
}

/// The gradient of weights alone, those of tables alone, and both.
fn matches_reference_with_weights<B: Backend>(backend: &B, rules: Rules) {
    for storage in Storage::ALL {
        for (i, policy) in [IdPolicy::Error, IdPolicy::Zero, IdPolicy::Skip].into_iter().enumerate() {
            for (of_weights, form) in [(true, Form::None), (false, Form::Sparse), (true, Form::Dense)] {
                let (forward, forms) = (weighted(policy, storage), vec![form]);
                let (sorted, spare) = (i == 1, i);
                let case =
                    LookupBackwardCase { forward, forms, of_weights, sorted, spare, ..Default::default() };
                assert_check(&case, backend, rules);
            }
        }
    }
    for (bags, widths) in
        [(vec![5], vec![1]), (vec![40, 0, 7], vec![64]), (vec![], vec![4]), (vec![0], vec![4])]
    {
        let second_widths = if widths == [64] { Vec::new() } else { vec![6] };
        let one = LookupCase { pool: Pool::Sum, weights: Some(Data::Normal), ..Default::default() };
        let forward = LookupCase { bags, widths, second_widths, ..one };
        assert_check(&LookupBackwardCase { forward, ..Default::default() }, backend, rules);
    }
    // What is no number, in a weight and in a gradient.
    for place in [0, 1, 3, 90] {
        let forward = LookupCase { nan_weight: Some(place), ..weighted(IdPolicy::Skip, Storage::F32) };
        assert_check(&LookupBackwardCase { forward, ..Default::default() }, backend, rules);
        let (forward, nan) = (weighted(IdPolicy::Skip, Storage::F32), Some(place + 41));
        assert_check(&LookupBackwardCase { forward, nan, ..Default::default() }, backend, rules);
    }
}

/// Each subset of gradients, sparse and dense.
fn matches_reference_in_every_form<B: Backend>(backend: &B, rules: Rules) {
    let all = [Form::None, Form::Sparse, Form::Dense];
    for forms in (0..81).map(|i| [1, 3, 9, 27].map(|place| all[i / place % 3]).to_vec()) {
        let forward = LookupCase {
            pool: Pool::Sum,
            table_rows: vec![50, 7],
            widths: vec![3, 16],
            second_widths: vec![17, 1],
            bags: vec![9, 1, 0, 30],
            ..Default::default()
        };
        assert_check(&LookupBackwardCase { forward, forms, ..Default::default() }, backend, rules);
    }
}

fn matches_reference_on_unusual_numbers<B: Backend>(backend: &B, rules: Rules) {
    let kinds = [Data::Large, Data::Tiny, Data::Equal, Data::Zeros, Data::Scaled(1e-30), Data::Same(0.1)];
    for grad in kinds {
        for pool in POOLS {
            let bags = vec![3, 0, 40, 1];
            let forward = LookupCase { pool, bags, widths: vec![20], ..Default::default() };
            assert_check(&LookupBackwardCase { forward, grad, ..Default::default() }, backend, rules);
        }
    }
    // The gradients of a mean may have any size: no id occurs twice here.
    let forward = LookupCase { pool: Pool::Mean, bags: vec![1; 3], widths: vec![20], ..Default::default() };
    let forward = LookupCase { ids: Ids::Uniform, table_rows: vec![100_000], ..forward };
    assert_check(&LookupBackwardCase { forward, grad: Data::Huge, ..Default::default() }, backend, rules);
}

/// The error of a sum does not grow with the number of equal ids, and no position is left out.
fn matches_reference_on_long_runs<B: Backend>(backend: &B, rules: Rules) {
    let longest = if rules.slow { 20_000 } else { 1_000_000 };
    let lengths =
        [(longest, Ids::Last, 1), (longest / 10, Ids::Hot, 20), (383, Ids::Last, 16), (384, Ids::Last, 16)];
    for (length, ids, width) in lengths {
        // A million ids once.
        for pool in if width == 1 { &POOLS[..1] } else { &POOLS[..] } {
            let forward = LookupCase {
                pool: *pool,
                ids,
                bags: vec![2, length, 0, 5],
                table_rows: vec![1000],
                widths: vec![width],
                ..Default::default()
            };
            for grad in [Data::Same(0.1), Data::Normal] {
                let forward = forward.clone();
                assert_check(&LookupBackwardCase { forward, grad, ..Default::default() }, backend, rules);
            }
        }
    }
    // Runs of every length around those at which work is cut.
    for length in (150..1400).step_by(if rules.slow { 250 } else { 23 }) {
        let (table_rows, bags) = (vec![2], vec![2 * length]);
        let forward = LookupCase { ids: Ids::Uniform, table_rows, bags, ..Default::default() };
        assert_check(&LookupBackwardCase { forward, ..Default::default() }, backend, rules);
    }
}

prop_compose! {
    /// Any backward pass whose sizes a test has time for.
    fn any_backward()(
        seed in any::<u64>(),
        storage in prop::sample::select(Storage::ALL.to_vec()),
        tables in prop::collection::vec((1usize..100, 1usize..40, 1usize..40), 1..4),
        second in any::<bool>(),
        bags in prop::collection::vec(0usize..50, 0..10),
        tail in 0usize..3,
        pool in prop::sample::select(POOLS.to_vec()),
        policy in prop::sample::select(vec![IdPolicy::Error, IdPolicy::Zero, IdPolicy::Skip]),
        (weighted, of_weights) in any::<(bool, bool)>(),
        forms in Form::lists(),
        sorted in any::<bool>(),
        spare in 0usize..4,
    ) -> LookupBackwardCase {
        let table_rows = tables.iter().map(|table| table.0).collect();
        let widths = tables.iter().map(|table| table.1).collect();
        let second_widths = tables.iter().filter(|_| second).map(|table| table.2).collect();
        let weights = (weighted && pool == Pool::Sum).then_some(Data::Normal);
        let forward = LookupCase {
            seed, storage, table_rows, widths, second_widths, bags, tail, pool, policy, weights, ..Default::default()
        };
        LookupBackwardCase { forward, forms, sorted, spare, of_weights, ..Default::default() }
    }
}

fn matches_reference_on_random_lookups<B: Backend>(backend: &B, rules: Rules) {
    proptest!(data::random_cases(48), |(case in any_backward())| {
        check(&case, backend, rules).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    });
}

fn matches_reference_on_the_small_named_cases<B: Backend>(backend: &B, rules: Rules) {
    assert_small_cases("lookup_backward", backend, rules);
}

fn keeps_nan_to_the_rows_that_read_it<B: Backend>(backend: &B, rules: Rules) {
    for pool in POOLS {
        for ids in [Ids::Uniform, Ids::Hot] {
            let (bags, widths, table_rows) = (vec![3, 900, 2], vec![20], vec![400]);
            let forward = LookupCase { pool, bags, widths, table_rows, ids, ..Default::default() };
            assert_check(
                &LookupBackwardCase { forward, nan: Some(43), ..Default::default() },
                backend,
                rules,
            );
        }
    }
    for optimiser in optimisers() {
        let case = UpdateRowsCase { optimiser, nan: Some(37), ..Default::default() };
        assert_check(&case, backend, rules);
    }
}

/// A column of one list, and of two: behaviours and candidates.
fn sorts_columns_and_their_continuations<B: Backend>(backend: &B, rules: Rules) {
    let largest = if rules.slow { 3000 } else { 200_000 };
    let sizes = [
        (0, 0, 5),
        (1, 0, 1),
        (0, 3, 2),
        (1000, 70, 3000),
        (700, 5, 65_536),
        (largest, 100, u32::MAX as usize),
    ];
    for (count, more, rows) in sizes {
        for (kind, features) in [(Ids::Uniform, 1), (Ids::Hot, 3)] {
            let mut rng = data::rng(7);
            let mut ids = data::ids(&mut rng, kind, count * features, rows);
            let more_ids = data::ids(&mut rng, kind, more * features, rows);
            // Some outside.
            let rows = rows - rows / 10;
            ids.iter_mut().step_by(11).for_each(|id| *id |= 1 << 31);
            let column = |feature| IdColumn::new(Host::view(&ids), features, feature, rows);
            let column =
                |feature| column(feature).with_more_ids(Host::view(&more_ids)).with_policy(IdPolicy::Zero);
            let run = |feature| -> Result<[Vec<u32>; 4]> {
                let (ids, more_ids) = (backend.upload(&ids)?, backend.upload(&more_ids)?);
                let column = IdColumn::new(backend.view(&ids), features, feature, rows);
                let column = column.with_more_ids(backend.view(&more_ids)).with_policy(IdPolicy::Zero);
                let sorted = backend.sort_ids(column)?;
                let views = sorted.sorted();
                Ok([
                    backend.download(views.ids)?,
                    backend.download(views.starts)?,
                    backend.download(views.positions)?,
                    backend.download(views.count)?,
                ])
            };
            for feature in 0..features {
                let exact = reference::sort_ids(&column(feature)).expect("a valid column");
                let [ids, starts, positions, count] = run(feature).expect("a valid column");
                let used = exact.ids.len();
                assert_eq!(count, [used as u32]);
                assert_eq!((&ids[..used], &starts[..=used]), (&exact.ids[..], &exact.starts[..]));
                assert_eq!(positions[..exact.positions.len()], exact.positions);
            }
        }
    }
}

/// Runs the backward pass of `[N, 1]` ids in a table of 4 rows of 2, with these ids in order if there are any.
fn backward<B: Backend>(backend: &B, ids: &[u32], sorted: Option<[&[u32]; 4]>) -> Result<Vec<f32>> {
    let table = backend.zeros::<f32>(8)?;
    let tables = [Table::new(4, 2, TableData::F32(backend.view(&table)))];
    let grad = backend.upload(&vec![1.0f32; 2 * ids.len()])?;
    let ids = backend.upload(ids)?;
    let inputs = LookupInputs::new(backend.view(&ids), &tables);
    let uploaded = sorted.map(|lists| lists.map(|list| backend.upload(list)));
    let buffers: Vec<Buffer<B, u32>> = uploaded.into_iter().flatten().collect::<Result<_>>()?;
    let views = buffers.chunks(4).map(|b| {
        let [ids, starts, positions, count] = [0, 1, 2, 3].map(|i| backend.view(&b[i]));
        SortedIds::new(ids, starts, positions, count)
    });
    let views: Vec<SortedIds<'_, B::Memory>> = views.collect();
    let saved = LookupSaved::new().with_sorted(&views);
    let mut out = backend.zeros::<f32>(8)?;
    let grads = LookupGradients::new().with_tables([Some(TableGradient::Dense(backend.view_mut(&mut out)))]);
    let grad_out = LookupGradOut::new(backend.view(&grad));
    backend.lookup_backward_into(&Lookup::default(), Bags::Each, inputs, saved, grad_out, grads)?;
    backend.download(backend.view(&out))
}

fn refuses_bad_ids_and_orders<B: Backend>(backend: &B, _: Rules) {
    assert_eq!(backward(backend, &[3, 0, 3], None), Ok(vec![1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 2.0, 2.0]));
    assert_eq!(argument(backward(backend, &[3, 4, u32::MAX], None)), "ids[1] = 4 >= 4");
    // Ids in order need not be of all positions, and what follows them is not read.
    let partly = Some([&[0, 3, 9][..], &[0, 1, 2, 7], &[1, 0, 77], &[2]]);
    assert_eq!(backward(backend, &[3, 0, 3], partly), Ok(vec![1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]));
    for (sorted, expected) in [
        ([&[0, 3][..], &[0, 1, 2], &[1, 0], &[3]], "sorted.count[0] = 3 >= 3"),
        // More ids than positions: they exceed the capacity of the gradient.
        ([&[0, 1, 2, 3], &[0, 1, 2, 3, 4], &[1, 0, 1, 0], &[4]], "sorted.count[0] = 4 >= 4"),
        ([&[3, 0], &[0, 1, 2], &[1, 0], &[2]], "sorted.ids"),
        ([&[0, 0], &[0, 1, 2], &[1, 0], &[2]], "sorted.ids"),
        ([&[0, 4], &[0, 1, 2], &[1, 0], &[2]], "sorted.ids[1] = 4 >= 4"),
        ([&[0, 3], &[1, 1, 2], &[1, 0], &[2]], "sorted.starts"),
        ([&[0, 3], &[0, 2, 1], &[1, 0], &[2]], "sorted.starts"),
        ([&[0, 3], &[0, 1, 3], &[1, 0], &[2]], "sorted.starts[2] = 3 >= 3"),
        ([&[0, 3], &[0, 1, 2], &[1, 3], &[2]], "sorted.positions[1] = 3 >= 3"),
        ([&[0, 3], &[0, 1], &[1, 0], &[2]], "sorted"),
    ] {
        assert_eq!(argument(backward(backend, &[3, 0, 3], Some(sorted))), expected);
    }
    let sort = |features: usize, feature: usize| -> Result<Vec<u32>> {
        let (ids, more) = (backend.upload(&[0u32, 1, 2, 3])?, backend.upload(&[0u32, 4])?);
        let column = IdColumn::new(backend.view(&ids), features, feature, 4);
        let sorted = backend.sort_ids(column.with_more_ids(backend.view(&more)))?;
        backend.download(sorted.sorted().positions)
    };
    assert_eq!(sort(2, 0), Ok(vec![0, 2, 1]));
    assert_eq!(argument(sort(2, 1)), "more_ids[1] = 4 >= 4");
    assert_eq!(argument(sort(2, 2)), "feature");
    assert_eq!(argument(sort(0, 0)), "feature");
    assert_eq!(argument(sort(3, 0)), "ids");
    assert_eq!(argument(sort(4, 0)), "more_ids");
    backend.synchronize().expect("all errors were reported");
}

/// Every fault of this stem that a backend can have makes a check fail.
///
/// # Panics
/// Where a fault passes.
pub fn every_fault_is_caught() {
    let bags = LookupCase { pool: Pool::Mean, bags: vec![4, 2, 70], ids: Ids::Hot, ..Default::default() };
    let mean = LookupBackwardCase { forward: bags.clone(), ..Default::default() };
    let outside = LookupCase { policy: IdPolicy::Zero, ..bags.clone() };
    let outside = LookupBackwardCase { forward: outside, ..Default::default() };
    let skipped = LookupCase { policy: IdPolicy::Skip, ..bags.clone() };
    let skipped = LookupBackwardCase { forward: skipped, ..Default::default() };
    let weights = weighted(IdPolicy::Skip, Storage::F32);
    let weights = LookupBackwardCase { forward: weights, ..Default::default() };
    let of_weights = LookupBackwardCase { forms: vec![Form::None], ..weights.clone() };
    let long = LookupCase { bags: vec![5000], pool: Pool::Each, ..bags.clone() };
    let long = LookupBackwardCase { forward: long, ..Default::default() };
    for (fault, case) in [
        (Fault::MeanIsSum, &mean),
        (Fault::HistoryShifted, &mean),
        (Fault::DuplicatesOverwritten, &mean),
        (Fault::LastOfRunDropped, &mean),
        (Fault::IdsClamped, &outside),
        (Fault::IdsClamped, &skipped),
        (Fault::IdsClamped, &of_weights),
        (Fault::HistoryShifted, &of_weights),
        (Fault::SkippedCounted, &skipped),
        (Fault::WeightsIgnored, &weights),
        (Fault::WeightOfNeighbour, &weights),
        (Fault::NewestPartialTaken, &long),
    ] {
        assert_check(case, &cpu(), Rules::IEEE);
        assert!(check(case, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed");
    }
    let sorts = |fault| sorts_columns_and_their_continuations(&Mutant(fault), Rules::IEEE);
    let caught = std::panic::catch_unwind(|| sorts(Fault::SortUnstable));
    assert!(caught.is_err(), "SortUnstable passed");
    let with = |optimiser| UpdateRowsCase { optimiser, ..Default::default() };
    let decay = Optimiser::sgd(0.1).with_weight_decay(0.1);
    for (fault, optimiser) in [
        (Fault::StateIgnored, Optimiser::row_wise_adagrad(0.1)),
        (Fault::StateIgnored, Optimiser::adagrad(0.1)),
        (Fault::StateIgnored, Optimiser::adam(0.1, 5)),
        (Fault::BiasCorrectionLeftOut, Optimiser::adam(0.1, 5)),
        (Fault::AllRowsDecay, decay),
    ] {
        assert_check(&with(optimiser), &cpu(), Rules::IEEE);
        assert!(check(&with(optimiser), &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed");
    }
}
