//! Decoupled embeddings on every backend: published results, a grid of cases, random cases, and faults that must be
//! caught.

use longseq::*;
use proptest::prelude::*;

use super::extremes::*;
use super::scales::takes_scales_near_the_limits;
use super::{DecoupledCase, Scores};
use crate::case::{Rules, assert_check, check};
use crate::compare::{Bound, U, additions, compare};
use crate::data::{self, Data, Ids};
use crate::device::cpu;
use crate::golden::{self, Golden};
use crate::lookup::{Owned, Storage, Stored, upload_all, views};
use crate::mutant::{Fault, Mutant};
use crate::named::assert_small_cases;
use crate::registry::list_tests;
use crate::sample;

list_tests!("decoupled":
    matches_dare,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_sizes,
    matches_reference_from_every_storage,
    matches_reference_with_one_to_four_features,
    matches_reference_with_few_and_many_kept,
    matches_reference_with_the_most_kept_from_every_storage,
    matches_reference_when_every_score_ties,
    matches_reference_where_kept_rows_cancel,
    matches_reference_with_ids_outside,
    matches_reference_on_a_long_history,
    matches_reference_on_random_batches,
    ignores_rows_that_belong_to_nobody,
    sorts_nan_last,
    ignores_what_a_behaviour_without_weight_holds,
    matches_reference_on_the_small_named_cases,
    finds_the_best_in_any_order,
    names_the_limit_before_it_allocates,
    takes_scores_near_the_limits,
    weighs_rows_near_the_limits,
    counts_rows_without_weight,
    takes_scales_near_the_limits,
);

fn matches_dare<B: Backend>(backend: &B, rules: Rules) {
    for name in ["decoupled_k20_da8_dr16", "decoupled_k5_da16_dr48"] {
        let golden = Golden::load(name);
        let tables = |kind: &str| -> Vec<Owned<Host>> {
            let table = |feature| {
                let name = format!("{kind}_{feature}");
                let shape = golden.shape(&name);
                Owned { rows: shape[0], width: shape[1], data: Stored::F32(golden.f32(&name).into()) }
            };
            ["item", "category", "time"].map(table).into()
        };
        let (attention, representation) = (tables("attention"), tables("representation"));
        let top_k = golden.number("k");
        let op = Decoupled::dare(attention[0].width, attention[1].width, attention[2].width)
            .with_top_k(Some(top_k));
        let run = || -> Result<[Vec<f32>; 5]> {
            let (attention, representation) =
                (upload_all(backend, &attention)?, upload_all(backend, &representation)?);
            let (attention, representation) = (views(backend, &attention), views(backend, &representation));
            let (ids, target_ids) =
                (backend.upload(&golden.u32("ids"))?, backend.upload(&golden.u32("target_ids"))?);
            let (ids, target_ids) = (backend.view(&ids), backend.view(&target_ids));
            let batch = backend
                .batch(&golden.jagged("offsets", "ids"), &golden.jagged("target_offsets", "target_ids"))?;
            let search = SearchInputs::new(&attention, ids, target_ids);
            let kept = backend.decoupled_search(&op, &batch, search)?;
            let selection = Selection::new(
                backend.view(&kept.positions),
                backend.view(&kept.scores),
                backend.view(&kept.counts),
            );
            let aggregate = AggregateInputs::new(&representation, ids, target_ids);
            let two_steps = backend.decoupled_aggregate(&op, &batch, aggregate, selection)?;
            let inputs = DecoupledInputs::new(&attention, &representation, ids, target_ids);
            let fused = |op: &Decoupled| -> Result<Vec<f32>> {
                let out = backend.decoupled_attend(op, &batch, inputs)?;
                backend.download(backend.view(&out))
            };
            Ok([
                backend.download(backend.view(&kept.scores))?,
                backend.download(backend.view(&two_steps))?,
                fused(&op)?,
                fused(&op.clone().with_multiply_target(true))?,
                fused(&op.clone().with_top_k(None))?,
            ])
        };
        let [scores, two_steps, fused, multiplied, all] = run().expect("valid calls");
        let expected = golden.f64("top_scores");
        let largest = expected.iter().filter(|x| x.is_finite()).fold(0.0, |max: f64, x| max.max(x.abs()));
        compare("scores", &scores, &expected, &Bound::uniform(golden::PEER * largest, false), rules).unwrap();
        for (name, got) in [("out_topk", two_steps), ("out_topk", fused), ("out_full", all)] {
            let expected = golden.f64(name);
            compare(name, &got, &expected, &golden::bound(&expected), rules).unwrap();
        }
        let expected = golden.f64("out_topk_times_target");
        compare("times target", &multiplied, &expected, &golden::bound(&expected), rules).unwrap();
    }
}

fn matches_reference_on_odd_lengths<B: Backend>(backend: &B, rules: Rules) {
    let histories = vec![0, 1, 2, 31, 32, 33, 64, 255, 256, 257, 0];
    let targets = vec![3, 1, 0, 5, 16, 17, 1, 2, 33, 1, 0];
    assert_check(&DecoupledCase { histories, targets, ..Default::default() }, backend, rules);
    assert_check(&DecoupledCase { histories: vec![], targets: vec![], ..Default::default() }, backend, rules);
}

fn matches_reference_on_odd_sizes<B: Backend>(backend: &B, rules: Rules) {
    for (attention, representation) in [
        (vec![1], vec![1]),
        (vec![64], vec![64]),
        (vec![3, 5, 7], vec![16, 2, 9]),
        (vec![128, 1], vec![1, 128]),
        (vec![16, 16, 16], vec![16, 16, 16]),
    ] {
        let case = DecoupledCase {
            table_rows: vec![300, 40, 9][..attention.len()].to_vec(),
            attention_widths: attention,
            representation_widths: representation,
            histories: vec![70, 3],
            targets: vec![4, 18],
            multiply_target: true,
            ..Default::default()
        };
        assert_check(&case, backend, rules);
    }
}

fn matches_reference_from_every_storage<B: Backend>(backend: &B, rules: Rules) {
    for storage in Storage::ALL {
        let (histories, targets) = (vec![100, 0, 17], vec![5, 2, 20]);
        assert_check(&DecoupledCase { storage, histories, targets, ..Default::default() }, backend, rules);
    }
}

/// Backends may read up to three tables in place and gather the rows of more.
fn matches_reference_with_one_to_four_features<B: Backend>(backend: &B, rules: Rules) {
    for storage in Storage::ALL {
        for features in [1, 3, 4] {
            let case = DecoupledCase {
                storage,
                histories: vec![300, 0, 17],
                targets: vec![9, 2, 3],
                table_rows: vec![50, 7, 1, 300][..features].to_vec(),
                attention_widths: vec![8, 5, 4, 1][..features].to_vec(),
                representation_widths: vec![4, 1, 3, 5][..features].to_vec(),
                ..Default::default()
            };
            assert_check(&case, backend, rules);
        }
    }
}

fn matches_reference_with_few_and_many_kept<B: Backend>(backend: &B, rules: Rules) {
    for top_k in [1, 2, 31, 64, 65, 200, 1024, 1700, Search::MAX_TOP_K] {
        let (histories, targets) = (vec![300, 40, 2000], vec![3, 2, 1]);
        let table_rows = vec![5000, 50];
        assert_check(
            &DecoupledCase { top_k, table_rows, histories, targets, ..Default::default() },
            backend,
            rules,
        );
    }
}

/// Backends may have longer lists, and fewer places for tables, where more are kept than workgroups have memory for.
fn matches_reference_with_the_most_kept_from_every_storage<B: Backend>(backend: &B, rules: Rules) {
    for storage in Storage::ALL {
        for features in [1, 3] {
            let case = DecoupledCase {
                storage,
                histories: vec![1800, 0, 40],
                targets: vec![2, 1, 1],
                table_rows: vec![900, 7, 50][..features].to_vec(),
                attention_widths: vec![8, 5, 1][..features].to_vec(),
                representation_widths: vec![4, 1, 3][..features].to_vec(),
                top_k: 1600,
                ..Default::default()
            };
            assert_check(&case, backend, rules);
        }
    }
}

/// The two rows that candidate 14 keeps nearly cancel, so the result is small compared with its error.
fn matches_reference_where_kept_rows_cancel<B: Backend>(backend: &B, rules: Rules) {
    let case = DecoupledCase {
        seed: 7_894_258_532_478_634_361,
        storage: Storage::Int8,
        histories: vec![115, 106, 44, 102],
        targets: vec![2, 1, 5, 16],
        tail: 2,
        table_rows: vec![192, 64],
        attention_widths: vec![28, 14],
        representation_widths: vec![37, 1],
        top_k: 2,
        ..Default::default()
    };
    assert_check(&case, backend, rules);
}

fn matches_reference_when_every_score_ties<B: Backend>(backend: &B, rules: Rules) {
    for data in [Data::Equal, Data::Zeros] {
        let (histories, targets) = (vec![300, 7], vec![3, 2]);
        assert_check(&DecoupledCase { data, histories, targets, ..Default::default() }, backend, rules);
    }
}

fn matches_reference_with_ids_outside<B: Backend>(backend: &B, rules: Rules) {
    let (histories, targets) = (vec![100, 0, 17], vec![5, 2, 20]);
    let case = DecoupledCase {
        policy: IdPolicy::Zero,
        multiply_target: true,
        histories,
        targets,
        ..Default::default()
    };
    assert_check(&case, backend, rules);
}

fn matches_reference_on_a_long_history<B: Backend>(backend: &B, rules: Rules) {
    let smallest = sample::is_smallest();
    let long = if rules.shortened() || smallest { 30_000 } else { 100_000 };
    let (histories, targets) = (vec![20, long, 0, 5], vec![2, 2, 1, 3]);
    // To fill a table takes longer than the search.
    let table_rows = vec![if smallest { 100_000 } else { 1_000_000 }, 50];
    assert_check(
        &DecoupledCase { top_k: 64, table_rows, histories, targets, ..Default::default() },
        backend,
        rules,
    );
}

prop_compose! {
    /// Any batch whose sizes a test has time for.
    fn any_case()(
        seed in any::<u64>(),
        storage in prop::sample::select(Storage::ALL.to_vec()),
        requests in prop::collection::vec((0usize..120, 0usize..20), 0..6),
        tail in 0usize..3,
        tables in prop::collection::vec((1usize..200, 1usize..40, 1usize..40), 1..4),
        top_k in 1usize..50,
        multiply_target in any::<bool>(),
        policy in prop::sample::select(vec![IdPolicy::Error, IdPolicy::Zero]),
    ) -> DecoupledCase {
        let (histories, targets) = requests.into_iter().unzip();
        let table_rows = tables.iter().map(|table| table.0).collect();
        let attention_widths = tables.iter().map(|table| table.1).collect();
        let representation_widths = tables.iter().map(|table| table.2).collect();
        let (data, ids) = (Data::Normal, Ids::Skewed);
        DecoupledCase {
            seed, storage, data, histories, targets, tail, table_rows, attention_widths, representation_widths,
            top_k, multiply_target, ids, policy, ..Default::default()
        }
    }
}

fn matches_reference_on_random_batches<B: Backend>(backend: &B, rules: Rules) {
    proptest!(data::random_cases(48), |(case in any_case())| {
        check(&case, backend, rules).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    });
}

fn ignores_rows_that_belong_to_nobody<B: Backend>(backend: &B, rules: Rules) {
    let (histories, targets) = (vec![40, 9], vec![3, 20]);
    assert_check(&DecoupledCase { tail: 5, histories, targets, ..Default::default() }, backend, rules);
}

fn sorts_nan_last<B: Backend>(backend: &B, rules: Rules) {
    if !rules.nan {
        return;
    }
    let nan = f32::NAN;
    let run = || -> Result<(Vec<u32>, Vec<f32>, Vec<f32>)> {
        let attention = backend.upload(&[nan, 1.0, 3.0, 2.0])?;
        let representation = backend.upload(&[10.0, 1.0, 3.0, 2.0])?;
        let table = |data| [Table::new(4, 1, TableData::F32(backend.view(data)))];
        let (attention, representation) = (table(&attention), table(&representation));
        let (ids, target_ids) = (backend.upload(&[0u32, 1, 0, 2, 3])?, backend.upload(&[1u32])?);
        let (ids, target_ids) = (backend.view(&ids), backend.view(&target_ids));
        let batch = backend.batch(&Jagged::from_lengths(&[5])?, &Jagged::from_lengths(&[1])?)?;
        let op = Decoupled::new([1.0]).with_top_k(Some(5));
        let search = SearchInputs::new(&attention, ids, target_ids);
        let kept = backend.decoupled_search(&op, &batch, search)?;
        let inputs = DecoupledInputs::new(&attention, &representation, ids, target_ids);
        let three = backend.decoupled_attend(&op.with_top_k(Some(3)), &batch, inputs)?;
        Ok((
            backend.download(backend.view(&kept.positions))?,
            backend.download(backend.view(&kept.scores))?,
            backend.download(backend.view(&three))?,
        ))
    };
    let (positions, scores, three) = run().expect("valid calls");
    assert_eq!(positions, [3, 4, 1, 0, 2]);
    assert_eq!(scores[..3], [3.0, 2.0, 1.0]);
    assert!(scores[3].is_nan() && scores[4].is_nan());
    // With three numbers, no NaN is kept.
    assert!(three[0] > 1.0 && three[0] < 3.0, "{three:?}");
    for length in [3, 1500] {
        assert!(attends_all_of(backend, length, nan).expect("a valid call")[0].is_nan(), "{length} of NaN");
    }
}

/// The attention of a candidate, without a limit, to so many behaviours with one score.
fn attends_all_of<B: Backend>(backend: &B, length: usize, score: f32) -> Result<Vec<f32>> {
    let attention = backend.upload(&[score, 1.0])?;
    let tables = [Table::new(2, 1, TableData::F32(backend.view(&attention)))];
    let representation = backend.upload(&[2.0f32, 3.0])?;
    let representation = [Table::new(2, 1, TableData::F32(backend.view(&representation)))];
    let (ids, target_ids) = (backend.upload(&vec![0u32; length])?, backend.upload(&[1u32])?);
    let batch = backend.batch(&Jagged::from_lengths(&[length])?, &Jagged::from_lengths(&[1])?)?;
    let inputs =
        DecoupledInputs::new(&tables, &representation, backend.view(&ids), backend.view(&target_ids));
    let out = backend.decoupled_attend(&Decoupled::new([1.0]).with_top_k(None), &batch, inputs)?;
    backend.download(backend.view(&out))
}

/// A score of `-∞` removes a behaviour, whatever its row holds.
fn ignores_what_a_behaviour_without_weight_holds<B: Backend>(backend: &B, rules: Rules) {
    // WGSL guarantees no arithmetic on infinities.
    if !rules.nan {
        return;
    }
    // Behaviours 0 and 5 of every 7 score -∞, the others 1, of which the mean is taken.
    let out_of = |id: usize| [0, 5].contains(&(id % 7));
    for length in [7, 40, 700, 20_000] {
        for (held, width) in [(f32::NAN, 1), (f32::INFINITY, 64), (f32::NAN, 130)] {
            let attention: Vec<f32> =
                (0..length).map(|id| if out_of(id) { f32::NEG_INFINITY } else { 1.0 }).collect();
            let representation: Vec<f32> = (0..length * width)
                .map(|i| if out_of(i / width) { held } else { (i % width) as f32 })
                .collect();
            let run = |top_k| -> Result<Vec<f32>> {
                let attention = backend.upload(&attention)?;
                let representation = backend.upload(&representation)?;
                let table = |width, data| [Table::new(length, width, TableData::F32(backend.view(data)))];
                let (attention, representation) = (table(1, &attention), table(width, &representation));
                let ids = backend.upload(&(0..length as u32).collect::<Vec<u32>>())?;
                let target_ids = backend.upload(&[1u32, 2, 3])?;
                let batch = backend.batch(&Jagged::from_lengths(&[length])?, &Jagged::from_lengths(&[3])?)?;
                let inputs = DecoupledInputs::new(
                    &attention,
                    &representation,
                    backend.view(&ids),
                    backend.view(&target_ids),
                );
                let out =
                    backend.decoupled_attend(&Decoupled::new([1.0]).with_top_k(top_k), &batch, inputs)?;
                backend.download(backend.view(&out))
            };
            let mean: Vec<f64> = (0..3 * width).map(|i| (i % width) as f64).collect();
            for top_k in [None, Some(length.min(1000))] {
                // The weights and their sum, and the products.
                let error = width as f64 * (additions(length) + 16.0) * U;
                let out = run(top_k).expect("a valid call");
                compare("out", &out, &mean, &Bound::uniform(error, false), rules).unwrap();
            }
        }
    }
}

/// Every fault of this stem that a backend can have makes a check fail.
///
/// # Panics
/// Where a fault passes.
pub fn every_fault_is_caught() {
    let plain = DecoupledCase {
        histories: vec![30, 40],
        targets: vec![3, 4],
        table_rows: vec![50, 3],
        multiply_target: true,
        ..Default::default()
    };
    let ties = DecoupledCase { data: Data::Equal, ..plain.clone() };
    let outside = DecoupledCase { policy: IdPolicy::Zero, ..plain.clone() };
    let falling = DecoupledCase {
        scores: Some(Scores::Falling),
        table_rows: vec![770],
        attention_widths: vec![1],
        representation_widths: vec![4],
        histories: vec![769],
        targets: vec![1],
        top_k: 577,
        ..Default::default()
    };
    let lowest = DecoupledCase { scores: Some(Scores::All(f32::MIN)), top_k: 5, ..falling.clone() };
    for (fault, case) in [
        (Fault::KeepsAtMost(576), &falling),
        (Fault::LowScoresRemoved, &lowest),
        (Fault::HistoryShifted, &plain),
        (Fault::ScaleDropped, &plain),
        (Fault::KeepsOneLess, &plain),
        (Fault::TargetForgotten, &plain),
        (Fault::TiesReversed, &ties),
        (Fault::IdsClamped, &outside),
    ] {
        assert_check(case, &cpu(), Rules::IEEE);
        assert!(check(case, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed");
    }
}

fn matches_reference_on_the_small_named_cases<B: Backend>(backend: &B, rules: Rules) {
    assert_small_cases("decoupled", backend, rules);
}
