//! Gradients of DIN on every backend that has them: published ones, a grid of cases, random cases, and faults that must be caught.

use longseq::*;
use proptest::prelude::*;

use super::backward::{DinBackwardCase, Tensors, exact, names, run};
use super::backward_large::matches_reference_with_many_pieces_and_parts;
use super::statistics::StatisticsCase;
use super::tests::published;
use super::{DinCase, Kind, Network, Place};
use crate::case::{Once, Rules, assert_check, check};
use crate::compare::{Bound, compare};
use crate::data::{self, Data};
use crate::device::cpu;
use crate::golden::Golden;
use crate::mutant::{Fault, Mutant};
use crate::named::assert_small_cases;
use crate::registry::list_tests;
use crate::sample;

list_tests!("din_backward":
    matches_published_gradients,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_sizes,
    matches_reference_with_every_activation,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_on_a_long_history,
    matches_reference_on_many_users_and_candidates,
    matches_reference_on_wide_rows_in_parts,
    matches_reference_with_many_pieces_and_parts,
    matches_reference_on_random_batches,
    writes_what_is_asked_for,
    takes_scores_near_the_limits,
    keeps_nan_to_what_depends_on_it,
    ignores_what_a_removed_behaviour_holds,
    ignores_candidates_whose_behaviours_are_all_removed,
    takes_large_numbers_of_dice,
    takes_batches_without_candidates,
    ignores_rows_that_belong_to_nobody,
    measures_layers,
    matches_reference_on_the_small_named_cases,
);

const KINDS: [Kind; 5] = [Kind::Relu, Kind::Sigmoid, Kind::PreluShared, Kind::Prelu, Kind::Dice];
const POOLINGS: [DinPooling; 2] = [DinPooling::Sum, DinPooling::Softmax];

/// How far a published gradient may be from ours, relative to the largest of the tensor (or to 1, where softmax makes all of them
/// nearly 0): they computed in `f32`, in several passes.
const PUBLISHED: f64 = 1e-5;

fn all_of(forward: DinCase) -> DinBackwardCase {
    DinBackwardCase { forward, ..Default::default() }
}

fn matches_published_gradients<B: Backend>(backend: &B, rules: Rules) {
    for name in ["din_relu_sum", "din_sigmoid_softmax", "din_dice_sum", "din_dice_softmax"] {
        let golden = Golden::load(name);
        let (network, softmax) = (published(&golden), golden.flag("softmax"));
        let op = Din::new(golden.shape("history")[1]);
        let op = op.with_pooling(if softmax { DinPooling::Softmax } else { DinPooling::Sum });
        let (histories, targets) =
            (golden.jagged("offsets", "history"), golden.jagged("target_offsets", "targets"));
        let batch = Batch::new(histories, targets).expect("as many users");
        let layers = network.parameters.len();
        let tensors = Tensors {
            targets: golden.f32("targets"),
            history: golden.f32("history"),
            network,
            grad_out: golden.f32("grad_out"),
        };
        let got = run::<B, f32, f32>(backend, (&op, &batch), &tensors, u32::MAX, &mut Once).unwrap();
        let inside = |i: usize| {
            let alpha = format!("grad_dice{i}_alpha");
            let alpha = if golden.has(&alpha) { alpha } else { String::new() };
            [format!("grad_w{i}"), format!("grad_b{i}"), alpha, String::new(), String::new()]
        };
        let mut published = vec!["grad_targets".to_owned(), "grad_history".to_owned()];
        published.extend([format!("grad_w{layers}"), format!("grad_b{layers}")]);
        published.extend((0..layers).flat_map(inside));
        for (got, name) in got.iter().zip(&published).filter(|(_, name)| !name.is_empty()) {
            let (got, expected): (Vec<f32>, _) = (bytemuck::pod_collect_to_vec(got), golden.f64(name));
            let least = if softmax { 1.0 } else { 0.0 };
            let largest = expected.iter().fold(least, |largest: f64, x| largest.max(x.abs()));
            compare(name, &got, &expected, &Bound::uniform(PUBLISHED * largest, false), rules).unwrap();
        }
    }
}

fn matches_reference_on_odd_lengths<B: Backend>(backend: &B, rules: Rules) {
    for pooling in POOLINGS {
        let histories = vec![0, 1, 2, 31, 63, 64, 65, 127, 128, 129, 257, 0];
        let targets = vec![3, 1, 0, 5, 16, 17, 1, 2, 3, 1, 2, 0];
        assert_check(&all_of(DinCase { pooling, histories, targets, ..Default::default() }), backend, rules);
    }
    assert_check(
        &all_of(DinCase { histories: vec![], targets: vec![], ..Default::default() }),
        backend,
        rules,
    );
}

fn matches_reference_on_odd_sizes<B: Backend>(backend: &B, rules: Rules) {
    for (width, hidden) in [
        (1, vec![1]),
        (3, vec![5, 7]),
        (33, vec![80, 40]),
        (64, vec![36]),
        (64, vec![80, 40, 10]),
        (128, vec![130, 3]),
        (20, vec![100, 120]),
        (301, vec![9]),
        (1100, vec![9]),
        (8, vec![4, 8, 100]),
    ] {
        for pooling in POOLINGS {
            let (histories, targets, hidden) = (vec![40, 3], vec![2, 9], hidden.clone());
            let case = DinCase { width, hidden, histories, targets, pooling, ..Default::default() };
            assert_check(&all_of(case), backend, rules);
        }
    }
}

fn matches_reference_with_every_activation<B: Backend>(backend: &B, rules: Rules) {
    for activation in KINDS {
        for pooling in POOLINGS {
            for hidden in [vec![20], vec![20, 12], vec![7, 5, 3]] {
                let (histories, targets) = (vec![0, 40, 150], vec![2, 3, 9]);
                let case = DinCase { activation, pooling, hidden, histories, targets, ..Default::default() };
                assert_check(&all_of(case), backend, rules);
            }
        }
    }
}

fn matches_reference_on_narrow_storage<B: Backend>(backend: &B, rules: Rules) {
    for dtype in [DType::F16, DType::Bf16] {
        for (width, hidden) in [(64, vec![80, 40]), (5, vec![7])] {
            for narrow in [false, true] {
                let (histories, targets, hidden) = (vec![100, 0, 17], vec![5, 2, 20], hidden.clone());
                let forward = DinCase { dtype, width, hidden, histories, targets, ..Default::default() };
                assert_check(&DinBackwardCase { narrow, ..all_of(forward) }, backend, rules);
            }
        }
    }
}

fn matches_reference_on_unusual_numbers<B: Backend>(backend: &B, rules: Rules) {
    for data in [Data::Tiny, Data::Equal, Data::Zeros, Data::Scaled(30.0)] {
        for pooling in POOLINGS {
            let (histories, targets) = (vec![90, 2], vec![3, 4]);
            assert_check(
                &all_of(DinCase { data, pooling, histories, targets, ..Default::default() }),
                backend,
                rules,
            );
        }
    }
}

fn matches_reference_on_a_long_history<B: Backend>(backend: &B, rules: Rules) {
    let length = if rules.slow { 3000 } else { 20_000 };
    for pooling in POOLINGS {
        let (histories, targets) = (vec![20, length, 0], vec![2, 3, 1]);
        let case = DinCase { pooling, width: 8, hidden: vec![10], histories, targets, ..Default::default() };
        assert_check(&all_of(case), backend, rules);
    }
}

fn matches_reference_on_many_users_and_candidates<B: Backend>(backend: &B, rules: Rules) {
    for pooling in POOLINGS {
        let forward = DinCase { width: 4, hidden: vec![6], pooling, ..Default::default() };
        let (histories, targets) = ((0..150).map(|i| i % 30).collect(), (0..150).map(|i| i % 3).collect());
        assert_check(&all_of(DinCase { histories, targets, ..forward.clone() }), backend, rules);
        // More candidates than a tile, and histories that are cut.
        let (histories, targets) = (vec![300, 70, 1], vec![150, 65, 64]);
        assert_check(&all_of(DinCase { histories, targets, ..forward }), backend, rules);
    }
}

/// GPU backends compute a bounded number of pairs at a time: here about 200 times 16 behaviours. One user has more candidates than
/// fit with 256 behaviours, another a history that two parts share.
fn matches_reference_on_wide_rows_in_parts<B: Backend>(backend: &B, rules: Rules) {
    // Not the CPU backend: emulated, it would take minutes for nothing.
    if rules == Rules::CPU && rules.slow {
        return;
    }
    let cases = [(DinPooling::Softmax, DType::Bf16), (DinPooling::Sum, DType::F32)];
    for (pooling, dtype) in cases.into_iter().take(if rules.slow || sample::is_small() { 1 } else { 2 }) {
        let [first, last] = sample::by_size([60, 600], [300, 1100], [300, 1100]);
        let (histories, targets, hidden) = (vec![first, 9, last], vec![16, 0, 3], vec![2]);
        let forward =
            DinCase { pooling, dtype, width: 1200, hidden, histories, targets, ..Default::default() };
        assert_check(&DinBackwardCase { narrow: true, ..all_of(forward.clone()) }, backend, rules);
        assert_check(&StatisticsCase { forward }, backend, rules);
    }
}

prop_compose! {
    /// Any batch whose sizes a test has time for.
    fn any_case()(
        seed in any::<u64>(),
        dtype in prop::sample::select(vec![DType::F32, DType::F16, DType::Bf16]),
        requests in prop::collection::vec((0usize..90, 0usize..9), 0..5),
        tail in 0usize..3,
        width in 1usize..40,
        hidden in prop::collection::vec(1usize..50, 1..4),
        activation in prop::sample::select(KINDS.to_vec()),
        pooling in prop::sample::select(POOLINGS.to_vec()),
        asked in prop_oneof![Just(u32::MAX), any::<u32>()],
        narrow in any::<bool>(),
    ) -> DinBackwardCase {
        let (histories, targets) = requests.into_iter().unzip();
        let forward = DinCase {
            seed, dtype, histories, targets, tail, width, hidden, activation, pooling, ..Default::default()
        };
        DinBackwardCase { forward, asked, narrow, nan: None }
    }
}

fn matches_reference_on_random_batches<B: Backend>(backend: &B, rules: Rules) {
    proptest!(data::random_cases(32), |(case in any_case())| {
        check(&case, backend, rules).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    });
}

/// Each gradient alone, each left out, and none.
fn writes_what_is_asked_for<B: Backend>(backend: &B, rules: Rules) {
    for (activation, pooling) in [(Kind::Dice, DinPooling::Softmax), (Kind::PreluShared, DinPooling::Sum)] {
        let (histories, targets, hidden) = (vec![70, 5], vec![2, 3], vec![6, 5, 4]);
        let forward = DinCase { activation, pooling, hidden, histories, targets, ..Default::default() };
        let count = names(3).len();
        for asked in (0..count).flat_map(|i| [1 << i, !(1 << i)]).chain([0]) {
            assert_check(&DinBackwardCase { asked, ..all_of(forward.clone()) }, backend, rules);
        }
    }
}

/// Only `-∞` removes: equal scores give equal weights, whatever they are.
fn takes_scores_near_the_limits<B: Backend>(backend: &B, rules: Rules) {
    for output_bias in [f32::MIN, -2.5e38, 3e38, f32::MAX, f32::NEG_INFINITY] {
        let (histories, targets, hidden) = (vec![0, 40, 130], vec![2, 3, 9], vec![8]);
        let forward = DinCase {
            histories,
            targets,
            hidden,
            weights: 0.0,
            output_bias: Some(output_bias),
            pooling: DinPooling::Softmax,
            ..Default::default()
        };
        assert_check(&all_of(forward), backend, rules);
    }
}

fn keeps_nan_to_what_depends_on_it<B: Backend>(backend: &B, rules: Rules) {
    for pooling in POOLINGS {
        for activation in [Kind::Relu, Kind::Sigmoid, Kind::Prelu, Kind::Dice] {
            for hidden in [vec![12], vec![20, 12]] {
                let (histories, targets) = (vec![3, 40, 9], vec![3, 4, 1]);
                let plain = DinCase { pooling, activation, hidden, histories, targets, ..Default::default() };
                for place in [Place::Target, Place::History, Place::Weight, Place::Bias] {
                    let puts = vec![(place, 4, f32::NAN)];
                    assert_check(&all_of(DinCase { puts, ..plain.clone() }), backend, rules);
                }
                assert_check(&DinBackwardCase { nan: Some(4), ..all_of(plain) }, backend, rules);
            }
        }
    }
}

/// A behaviour that a score of `-∞` removes adds nothing to any gradient, whatever it holds.
fn ignores_what_a_removed_behaviour_holds<B: Backend>(backend: &B, rules: Rules) {
    let op = Din::new(1).with_pooling(DinPooling::Softmax);
    for length in [3, 70, 200] {
        let batch = data::batch(&[length, 2], &[2, 1], 0);
        let mut history: Vec<f32> = (0..length + 2).map(|l| (l % 7) as f32 / 4.0 - 0.75).collect();
        for removed in [1, length / 2, length - 1] {
            history[removed] = f32::NEG_INFINITY;
        }
        let tensors = Tensors {
            targets: vec![1.0, 0.5, -0.25],
            history,
            // For a behaviour of -∞, [q ; s ; q − s ; q ⊙ s] is -∞, ∞ and -∞ after the first: all of them take the sum to -∞.
            // (The second user's candidate is negative: its product of +∞ does not occur.)
            network: Network {
                weights: vec![vec![0.25, 1.0, -0.5, 0.5], vec![1.0]],
                biases: vec![vec![0.125], vec![0.0]],
                parameters: vec![[vec![], vec![], vec![0.75]]],
                kind: Kind::PreluShared,
            },
            grad_out: vec![1.0, -0.5, 0.25],
        };
        assert_near(backend, (&op, &batch), &tensors, rules);
    }
}

fn assert_near<B: Backend>(backend: &B, case: (&Din, &Batch), tensors: &Tensors<f32>, rules: Rules) {
    assert_near_without(backend, case, tensors, "", rules);
}

/// The reference's gradients are finite, and the backend's near them but for the one left out, which is finite.
fn assert_near_without<B: Backend>(
    backend: &B,
    (op, batch): (&Din, &Batch),
    tensors: &Tensors<f32>,
    left_out: &str,
    rules: Rules,
) {
    let exact = exact(op, batch, tensors).unwrap();
    let got = run::<B, f32, f32>(backend, (op, batch), tensors, u32::MAX, &mut Once).unwrap();
    for ((name, got), exact) in names(tensors.network.parameters.len()).iter().zip(&got).zip(&exact) {
        assert!(exact.iter().all(|grad| grad.is_finite()), "{name}: {exact:?}");
        let got: Vec<f32> = bytemuck::pod_collect_to_vec(got);
        if *name == left_out {
            assert!(got.iter().all(|grad| grad.is_finite()), "{name}: {got:?}");
            continue;
        }
        // A few hundred roundings of sums whose terms are below 10, with weights of 1 in sum.
        compare(name, &got, exact, &Bound::uniform(1e-4, false), rules).unwrap();
    }
}

/// The candidate's own infinity reaches no gradient of the network, nor its own.
fn ignores_candidates_whose_behaviours_are_all_removed<B: Backend>(backend: &B, rules: Rules) {
    let op = Din::new(1).with_pooling(DinPooling::Softmax);
    for length in [3, 70, 200] {
        let batch = data::batch(&[length, 2], &[2, 1], 0);
        let tensors = Tensors {
            targets: vec![f32::NEG_INFINITY, 0.5, -0.25],
            history: (0..length + 2).map(|l| (l % 7) as f32 / 8.0 + 0.25).collect(),
            // Of the first candidate with any behaviour, which is positive, [q ; s ; q − s ; q ⊙ s] is -∞ but for s.
            network: Network {
                weights: vec![vec![0.5, 1.0, 0.25, 0.5], vec![1.0]],
                biases: vec![vec![0.125], vec![0.0]],
                parameters: vec![[vec![], vec![], vec![0.75]]],
                kind: Kind::PreluShared,
            },
            grad_out: vec![1.0, -0.5, 0.25],
        };
        assert_near(backend, (&op, &batch), &tensors, rules);
    }
}

/// Numbers whose squares are infinite, where Dice is flat.
fn takes_large_numbers_of_dice<B: Backend>(backend: &B, rules: Rules) {
    for pooling in POOLINGS {
        let op = Din::new(1).with_pooling(pooling);
        let batch = data::batch(&[20, 3], &[2, 1], 0);
        let tensors = Tensors {
            targets: vec![1.0, 0.5, -0.25],
            history: (0..23).map(|l| (l % 7) as f32 / 8.0 - 0.25).collect(),
            network: Network {
                weights: vec![vec![0.5, 1.0, 0.25, 0.5, 0.25, -0.5, 1.0, 0.5], vec![1.0, 1.0]],
                biases: vec![vec![-1e20, 0.125], vec![0.0]],
                // Of the large number nothing is left.
                parameters: vec![[vec![0.5, 1.0], vec![0.25, 0.5], vec![0.0, 0.5]]],
                kind: Kind::Dice,
            },
            grad_out: vec![1.0, -0.5, 0.25],
        };
        // But for the gradient of α, which is as large as the number.
        assert_near_without(backend, (&op, &batch), &tensors, "hidden[0].alpha", rules);
    }
}

/// Users with histories and no candidates.
fn takes_batches_without_candidates<B: Backend>(backend: &B, rules: Rules) {
    for dtype in [DType::F32, DType::Bf16] {
        for tail in [0, 2] {
            let (histories, targets) = (vec![3, 0], vec![0, 0]);
            let case = DinCase { dtype, tail, histories, targets, ..Default::default() };
            assert_check(&all_of(case), backend, rules);
        }
    }
}

fn ignores_rows_that_belong_to_nobody<B: Backend>(backend: &B, rules: Rules) {
    for pooling in POOLINGS {
        let (histories, targets) = (vec![40, 9, 3], vec![3, 20, 0]);
        let case = DinCase { tail: 5, pooling, histories, targets, ..Default::default() };
        assert_check(&all_of(case), backend, rules);
    }
}

fn measures_layers<B: Backend>(backend: &B, rules: Rules) {
    let long = if rules.slow { 700 } else { 5000 };
    for activation in KINDS {
        let shapes = [(vec![], vec![]), (vec![3, 0, 200, 64], vec![2, 1, 5, 0]), (vec![long], vec![3])];
        // The statistics are those before the activation: the longest history once.
        let count = if activation == Kind::Dice { 3 } else { 2 };
        for (histories, targets) in shapes.into_iter().take(count) {
            for dtype in [DType::F32, DType::Bf16] {
                let (histories, targets, hidden) = (histories.clone(), targets.clone(), vec![20, 5, 33]);
                let forward = DinCase {
                    dtype,
                    activation,
                    hidden,
                    histories,
                    targets,
                    tail: 2,
                    width: 9,
                    ..Default::default()
                };
                assert_check(&StatisticsCase { forward }, backend, rules);
            }
        }
    }
}

fn matches_reference_on_the_small_named_cases<B: Backend>(backend: &B, rules: Rules) {
    assert_small_cases("din_backward", backend, rules);
}

/// Every fault of this stem that a backend can have makes a check fail.
///
/// # Panics
/// Where a fault passes.
pub fn every_fault_is_caught() {
    let (histories, targets, hidden) = (vec![9, 70], vec![3, 4], vec![12, 5]);
    let plain = DinCase { histories, targets, hidden, ..Default::default() };
    let with =
        |activation: Kind, pooling: DinPooling| all_of(DinCase { activation, pooling, ..plain.clone() });
    let (sum, softmax) = (DinPooling::Sum, DinPooling::Softmax);
    for (fault, case) in [
        (Fault::SlopeForgotten, with(Kind::Sigmoid, sum)),
        (Fault::SlopeForgotten, with(Kind::Relu, softmax)),
        (Fault::JacobianTermDropped, with(Kind::Sigmoid, softmax)),
        (Fault::MeanGradientDropped, with(Kind::Dice, softmax)),
        (Fault::DifferenceReversed, with(Kind::Sigmoid, sum)),
        (Fault::DifferenceReversed, with(Kind::Dice, softmax)),
        (Fault::NewestPartial, with(Kind::Sigmoid, sum)),
        (Fault::BiasOfOneCandidate, with(Kind::Sigmoid, sum)),
        (Fault::AlphaGradientMissing, with(Kind::Prelu, sum)),
        (Fault::AlphaGradientMissing, with(Kind::PreluShared, sum)),
        (Fault::AlphaGradientMissing, with(Kind::Dice, sum)),
        (Fault::PooledGradientForgotten, with(Kind::Sigmoid, softmax)),
        (Fault::HistoryShifted, with(Kind::Sigmoid, sum)),
    ] {
        assert_check(&case, &cpu(), Rules::IEEE);
        // The faulty pass without its fault is right.
        assert_check(&case, &Mutant(Fault::LeavesOut), Rules::IEEE);
        assert!(check(&case, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed");
    }
    let statistics = StatisticsCase { forward: DinCase { activation: Kind::Dice, ..plain } };
    assert_check(&statistics, &cpu(), Rules::IEEE);
    for fault in [Fault::HistoryShifted, Fault::DifferenceReversed, Fault::AlphaDropped] {
        assert!(check(&statistics, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed");
    }
}
