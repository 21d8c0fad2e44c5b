//! The backward passes of decoupled embeddings: published gradients, a grid of cases, random cases, and faults that must be caught.

use longseq::*;
use proptest::prelude::*;

use super::backward::DecoupledGradientOutput;
use super::backward_large::*;
use super::backward_refusals::{names_the_backward_call, refuses_what_has_no_gradient};
use super::overflow::removes_a_score_that_overflows;
use super::{DecoupledBackwardCase, DecoupledCase, Scores};
use crate::case::{Case, Rules, assert_check, check};
use crate::compare::compare;
use crate::data::{self, Data, Ids};
use crate::device::cpu;
use crate::golden::{self, Golden};
use crate::lookup::{Form, Owned, Storage, Stored, upload_all, views};
use crate::mutant::{Fault, Mutant};
use crate::named::assert_small_cases;
use crate::registry::list_tests;

list_tests!("decoupled_backward":
    matches_published_gradients,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_sizes,
    matches_reference_from_every_storage,
    matches_reference_with_one_to_four_features,
    matches_reference_with_few_and_many_kept,
    matches_reference_when_every_score_ties,
    matches_reference_on_unusual_numbers,
    matches_reference_with_ids_outside,
    matches_reference_on_hot_rows,
    matches_reference_on_a_long_history,
    matches_reference_on_random_batches,
    writes_what_is_asked_for,
    keeps_nan_to_its_candidate,
    ignores_what_a_removed_behaviour_holds,
    removes_a_score_that_overflows,
    takes_more_kept_than_a_search_finds,
    ignores_removed_behaviours_in_several_chunks,
    weighs_rows_near_the_limits,
    names_the_widest_rows,
    ignores_rows_that_belong_to_nobody,
    names_the_backward_call,
    refuses_what_has_no_gradient,
    matches_reference_on_the_small_named_cases,
);

/// With the selection, and searching again.
fn assert_both<B: Backend>(case: DecoupledBackwardCase, backend: &B, rules: Rules) {
    for given in [true, false] {
        assert_check(&DecoupledBackwardCase { given, ..case.clone() }, backend, rules);
    }
}

fn of(forward: DecoupledCase) -> DecoupledBackwardCase {
    DecoupledBackwardCase { forward, ..Default::default() }
}

fn matches_published_gradients<B: Backend>(backend: &B, rules: Rules) {
    for name in ["decoupled_k20_da8_dr16", "decoupled_k5_da16_dr48"] {
        let golden = Golden::load(name);
        let features = ["item", "category", "time"];
        let tables = |kind: &str| -> Vec<Owned<Host>> {
            let table = |feature| {
                let name = format!("{kind}_{feature}");
                let shape = golden.shape(&name);
                Owned { rows: shape[0], width: shape[1], data: Stored::F32(golden.f32(&name).into()) }
            };
            features.map(table).into()
        };
        let (attention, representation) = (tables("attention"), tables("representation"));
        let op = Decoupled::dare(attention[0].width, attention[1].width, attention[2].width)
            .with_top_k(Some(golden.number("k")))
            .with_multiply_target(true);
        let run = || -> Result<Vec<Vec<f32>>> {
            let (a, r) = (upload_all(backend, &attention)?, upload_all(backend, &representation)?);
            let (a, r) = (views(backend, &a), views(backend, &r));
            let (ids, target_ids) =
                (backend.upload(&golden.u32("ids"))?, backend.upload(&golden.u32("target_ids"))?);
            let batch = backend
                .batch(&golden.jagged("offsets", "ids"), &golden.jagged("target_offsets", "target_ids"))?;
            let inputs = DecoupledInputs::new(&a, &r, backend.view(&ids), backend.view(&target_ids));
            let grad_out = backend.upload(&golden.f32("grad_out_topk_times_target"))?;
            let zeros = |table: &Owned<Host>| backend.zeros::<f32>(table.rows * table.width);
            let mut grads: Vec<Buffer<B, f32>> =
                attention.iter().chain(&representation).map(zeros).collect::<Result<_>>()?;
            let mut places = grads.iter_mut().map(|grad| Some(TableGradient::Dense(backend.view_mut(grad))));
            let asked = DecoupledGradients::new().with_attention(places.by_ref().take(3).collect::<Vec<_>>());
            let asked = asked.with_representation(places.collect::<Vec<_>>());
            let (saved, grad_out) = (DecoupledSaved::new(), backend.view(&grad_out));
            backend.decoupled_attend_backward_into(&op, &batch, inputs, saved, grad_out, asked)?;
            grads.iter().map(|grad| backend.download(backend.view(grad))).collect()
        };
        let names = ["attention", "representation"];
        let names = names.iter().flat_map(|kind| features.map(|feature| format!("grad_{kind}_{feature}")));
        for (got, name) in run().expect("valid calls").iter().zip(names) {
            let expected = golden.f64(&name);
            compare(&name, got, &expected, &golden::bound(&expected), rules).unwrap();
        }
    }
}

fn matches_reference_on_odd_lengths<B: Backend>(backend: &B, rules: Rules) {
    let histories = vec![0, 1, 2, 31, 32, 33, 64, 255, 256, 257, 0];
    let targets = vec![3, 1, 0, 5, 16, 17, 1, 2, 33, 1, 0];
    assert_both(of(DecoupledCase { histories, targets, ..Default::default() }), backend, rules);
    assert_both(
        of(DecoupledCase { histories: vec![], targets: vec![], ..Default::default() }),
        backend,
        rules,
    );
    // More than one tile of candidates.
    let (histories, targets) = (vec![40, 600], vec![130, 70]);
    assert_both(of(DecoupledCase { histories, targets, ..Default::default() }), backend, rules);
}

fn matches_reference_on_odd_sizes<B: Backend>(backend: &B, rules: Rules) {
    for (attention, representation) in [
        (vec![1], vec![1]),
        (vec![64], vec![64]),
        (vec![3, 5, 7], vec![16, 2, 9]),
        (vec![128, 1], vec![1, 128]),
        (vec![16, 16, 16], vec![16, 16, 16]),
    ] {
        for multiply_target in [false, true] {
            let case = DecoupledCase {
                table_rows: vec![300, 40, 9][..attention.len()].to_vec(),
                attention_widths: attention.clone(),
                representation_widths: representation.clone(),
                histories: vec![70, 3],
                targets: vec![4, 18],
                multiply_target,
                ..Default::default()
            };
            assert_both(of(case), backend, rules);
        }
    }
}

fn matches_reference_from_every_storage<B: Backend>(backend: &B, rules: Rules) {
    for storage in Storage::ALL {
        for multiply_target in [false, true] {
            let (histories, targets) = (vec![100, 0, 17], vec![5, 2, 20]);
            let case = DecoupledCase { storage, histories, targets, multiply_target, ..Default::default() };
            assert_both(of(case), backend, rules);
        }
    }
}

fn matches_reference_with_one_to_four_features<B: Backend>(backend: &B, rules: Rules) {
    for storage in [Storage::F32, Storage::F16, Storage::Bf16] {
        for features in 1..=4 {
            let case = DecoupledCase {
                storage,
                histories: vec![300, 0, 17],
                targets: vec![9, 2, 3],
                table_rows: vec![50, 7, 1, 300][..features].to_vec(),
                attention_widths: vec![8, 5, 4, 1][..features].to_vec(),
                representation_widths: vec![4, 1, 3, 5][..features].to_vec(),
                multiply_target: features % 2 == 0,
                ..Default::default()
            };
            assert_both(of(case), backend, rules);
        }
    }
}

/// One, many, and more than there are.
fn matches_reference_with_few_and_many_kept<B: Backend>(backend: &B, rules: Rules) {
    for top_k in [1, 2, 31, 64, 65, 200, 1024, 1600] {
        for multiply_target in [false, true] {
            let (histories, targets) = (vec![300, 40, 900.max(top_k + 100)], vec![3, 2, 1]);
            let table_rows = vec![5000, 50];
            let case = DecoupledCase {
                top_k,
                table_rows,
                histories,
                targets,
                multiply_target,
                ..Default::default()
            };
            assert_both(of(case), backend, rules);
        }
    }
}

fn matches_reference_when_every_score_ties<B: Backend>(backend: &B, rules: Rules) {
    for data in [Data::Equal, Data::Zeros] {
        for multiply_target in [false, true] {
            let (histories, targets) = (vec![300, 7], vec![3, 2]);
            let case = DecoupledCase { data, histories, targets, multiply_target, ..Default::default() };
            assert_both(of(case), backend, rules);
        }
    }
}

fn matches_reference_on_unusual_numbers<B: Backend>(backend: &B, rules: Rules) {
    for grad in [Data::Large, Data::Tiny, Data::Equal, Data::Zeros, Data::Scaled(1e-30), Data::Scaled(1e25)] {
        let (histories, targets) = (vec![200, 9], vec![3, 20]);
        let case = DecoupledCase { histories, targets, ..Default::default() };
        assert_both(DecoupledBackwardCase { grad, ..of(case) }, backend, rules);
    }
    for data in [Data::Large, Data::Tiny, Data::Scaled(30.0)] {
        let (histories, targets) = (vec![200, 9], vec![3, 20]);
        let representation_data = Some(Data::Scaled(1e8));
        let case = DecoupledCase { histories, targets, data, representation_data, ..Default::default() };
        assert_both(of(case), backend, rules);
    }
    // The only behaviour has the weight 1, however its score was rounded.
    for width in [16, 48, 17] {
        let (histories, targets, data) = (vec![1, 1, 1], vec![1, 4, 18], Data::Scaled(1e4));
        let (table_rows, attention_widths, representation_widths) = (vec![50], vec![width], vec![8]);
        let case = DecoupledCase {
            histories,
            targets,
            data,
            table_rows,
            attention_widths,
            representation_widths,
            representation_data: Some(Data::Normal),
            ..Default::default()
        };
        assert_both(of(case), backend, rules);
    }
}

fn matches_reference_with_ids_outside<B: Backend>(backend: &B, rules: Rules) {
    for multiply_target in [false, true] {
        let (histories, targets, policy) = (vec![100, 0, 17], vec![5, 2, 20], IdPolicy::Zero);
        let case = DecoupledCase { policy, multiply_target, histories, targets, ..Default::default() };
        assert_both(of(case), backend, rules);
    }
}

/// Ids that every behaviour has: their sums are long.
fn matches_reference_on_hot_rows<B: Backend>(backend: &B, rules: Rules) {
    for (ids, multiply_target) in [(Ids::Last, false), (Ids::Hot, false), (Ids::Hot, true)] {
        for grad in [Data::Same(0.1), Data::Normal] {
            let case = DecoupledCase {
                histories: vec![900, 20],
                targets: vec![40, 3],
                top_k: 100,
                ids,
                multiply_target,
                ..Default::default()
            };
            assert_both(DecoupledBackwardCase { grad, ..of(case) }, backend, rules);
        }
    }
}

/// More behaviours than have gradients at a time: wide rows make that a short history.
fn matches_reference_on_a_long_history<B: Backend>(backend: &B, rules: Rules) {
    for (forms, multiply_target, ids) in [
        (vec![Form::Sparse], true, Ids::Uniform),
        (vec![Form::Dense, Form::Sparse, Form::Sparse, Form::Dense], false, Ids::Hot),
    ] {
        let case = DecoupledCase {
            top_k: 64,
            table_rows: vec![1500, 50],
            attention_widths: vec![150, 1],
            representation_widths: vec![860, 2],
            histories: vec![20, if rules.slow { 4200 } else { 8300 }, 0, 5],
            targets: vec![2, 1, 1, 3],
            ids,
            multiply_target,
            ..Default::default()
        };
        assert_check(&DecoupledBackwardCase { forms, ..of(case) }, backend, rules);
    }
}

prop_compose! {
    /// Any backward pass whose sizes a test has time for.
    fn any_backward()(
        seed in any::<u64>(),
        storage in prop::sample::select(Storage::ALL.to_vec()),
        requests in prop::collection::vec((0usize..120, 0usize..20), 0..6),
        tail in 0usize..3,
        tables in prop::collection::vec((1usize..200, 1usize..40, 1usize..40), 1..4),
        top_k in 1usize..50,
        multiply_target in any::<bool>(),
        policy in prop::sample::select(vec![IdPolicy::Error, IdPolicy::Zero]),
        ids in prop::sample::select(vec![Ids::Skewed, Ids::Uniform, Ids::Hot]),
        forms in Form::lists(),
        (scores, given, spare) in (any::<bool>(), any::<bool>(), 0usize..4),
    ) -> DecoupledBackwardCase {
        let (histories, targets) = requests.into_iter().unzip();
        let table_rows = tables.iter().map(|table| table.0).collect();
        let attention_widths = tables.iter().map(|table| table.1).collect();
        let representation_widths = tables.iter().map(|table| table.2).collect();
        let forward = DecoupledCase {
            seed, storage, histories, targets, tail, table_rows, attention_widths, representation_widths,
            top_k, multiply_target, ids, policy, ..Default::default()
        };
        DecoupledBackwardCase { forward, forms, scores, given, spare, ..Default::default() }
    }
}

fn matches_reference_on_random_batches<B: Backend>(backend: &B, rules: Rules) {
    proptest!(data::random_cases(64), |(case in any_backward())| {
        check(&case, backend, rules).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    });
}

/// Each subset of gradients, sparse and dense.
fn writes_what_is_asked_for<B: Backend>(backend: &B, rules: Rules) {
    let all = [Form::None, Form::Sparse, Form::Dense];
    let step = if rules.slow { 7 } else { 1 };
    for forms in (0..81).step_by(step).map(|i| [1, 3, 9, 27].map(|place| all[i / place % 3]).to_vec()) {
        for multiply_target in [false, true] {
            let (histories, targets) = (vec![40, 0, 9], vec![3, 1, 2]);
            let case = DecoupledCase { histories, targets, multiply_target, ..Default::default() };
            let (forms, scores) = (forms.clone(), multiply_target);
            assert_check(&DecoupledBackwardCase { forms, scores, ..of(case) }, backend, rules);
        }
    }
}

/// A candidate whose gradient has a NaN gives it to what it keeps.
fn keeps_nan_to_its_candidate<B: Backend>(backend: &B, rules: Rules) {
    for (multiply_target, ids) in [(false, Ids::Uniform), (true, Ids::Uniform), (true, Ids::Hot)] {
        let case = DecoupledCase {
            histories: vec![300, 60, 9],
            targets: vec![5, 20, 2],
            table_rows: vec![400, 400],
            ids,
            multiply_target,
            ..Default::default()
        };
        for nan in [2, 100] {
            assert_both(DecoupledBackwardCase { nan: Some(nan), ..of(case.clone()) }, backend, rules);
        }
    }
}

/// One feature with these scores; what -∞ removes may hold NaN, and has no row.
fn ignores_what_a_removed_behaviour_holds<B: Backend>(backend: &B, rules: Rules) {
    // Many candidates, which take tiles of their own, where histories are short.
    for (length, top_k, candidates) in [(7, 3, 20), (40, 64, 20), (300, 20, 3), (700, 500, 1)] {
        for scores in [
            Scores::Some(f32::NEG_INFINITY),
            Scores::All(f32::NEG_INFINITY),
            Scores::All(-1e30),
            Scores::Some(-1e30),
            Scores::Some(f32::NAN),
            Scores::All(f32::NAN),
            Scores::Falling,
            Scores::OrganPipe,
        ] {
            for multiply_target in [false, true] {
                let held = (scores == Scores::Some(f32::NEG_INFINITY)).then_some(f32::NAN);
                let case = DecoupledCase {
                    scores: Some(scores),
                    held,
                    top_k,
                    histories: vec![length, length / 3],
                    targets: vec![2, candidates],
                    table_rows: vec![length + 1],
                    attention_widths: vec![1],
                    representation_widths: vec![4],
                    multiply_target,
                    ..Default::default()
                };
                assert_both(of(case), backend, rules);
            }
        }
    }
}

fn ignores_rows_that_belong_to_nobody<B: Backend>(backend: &B, rules: Rules) {
    let (histories, targets) = (vec![40, 9], vec![3, 20]);
    let case = DecoupledCase { tail: 5, histories, targets, ..Default::default() };
    assert_both(of(case), backend, rules);
}

fn matches_reference_on_the_small_named_cases<B: Backend>(backend: &B, rules: Rules) {
    assert_small_cases("decoupled_backward", backend, rules);
}

/// Every fault of this stem that a backend can have makes a check fail.
///
/// # Panics
/// Where a fault passes.
pub fn every_fault_is_caught() {
    let plain = of(DecoupledCase {
        histories: vec![30, 40],
        targets: vec![3, 4],
        table_rows: vec![50, 3],
        multiply_target: true,
        ..Default::default()
    });
    let with = |forward: DecoupledCase| of(DecoupledCase { multiply_target: false, ..forward });
    let single = with(plain.forward.clone());
    let outside = of(DecoupledCase { policy: IdPolicy::Zero, ..plain.forward.clone() });
    let removed = of(DecoupledCase {
        scores: Some(Scores::Some(f32::NEG_INFINITY)),
        table_rows: vec![31],
        attention_widths: vec![1],
        representation_widths: vec![4],
        histories: vec![30],
        targets: vec![2],
        ..Default::default()
    });
    let mut compared = [false; 5];
    for (fault, case) in [
        (Fault::DuplicatesOverwritten, &single),
        (Fault::JacobianTermDropped, &single),
        (Fault::MeanGradientDropped, &single),
        (Fault::CandidateHalfForgotten, &single),
        (Fault::BehaviourHalfForgotten, &single),
        (Fault::ScaleDropped, &single),
        (Fault::KeepsOneLess, &single),
        (Fault::HistoryShifted, &single),
        (Fault::TargetForgotten, &plain),
        (Fault::TargetGradientForgotten, &plain),
        (Fault::NewestPartial, &single),
        (Fault::IdsClamped, &outside),
        (Fault::RemovedGetRows, &removed),
    ] {
        assert_check(case, &cpu(), Rules::IEEE);
        assert!(check(case, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed");
        let caught = caught_outputs(case, fault);
        compared = std::array::from_fn(|i| compared[i] || caught[i]);
    }
    assert_eq!(compared, [true; 5], "search, aggregate, scores, attend, attend to all");
}

/// Which of the outputs of a faulty run, each put among right ones, the comparison refuses: it stops at the first mismatch.
fn caught_outputs(case: &DecoupledBackwardCase, fault: Fault) -> [bool; 5] {
    let right = case.run(&cpu()).expect("a valid run");
    // A fault may also make a call fail.
    let Ok(wrong) = case.run(&Mutant(fault)) else { return [false; 5] };
    let outputs = [
        DecoupledGradientOutput { search: wrong.search, ..right.clone() },
        DecoupledGradientOutput { aggregate: wrong.aggregate, ..right.clone() },
        DecoupledGradientOutput { scores: wrong.scores, ..right.clone() },
        DecoupledGradientOutput { attend: wrong.attend, ..right.clone() },
        DecoupledGradientOutput { attend_all: wrong.attend_all, ..right.clone() },
    ];
    outputs.map(|output| case.compare(&output, Rules::IEEE).is_err())
}
