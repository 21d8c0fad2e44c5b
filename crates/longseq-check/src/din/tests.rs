//! DIN on every backend: published results, a grid of cases, random cases, and faults that must be caught.

use longseq::*;
use proptest::prelude::*;

use super::extremes::*;
use super::{DinCase, Kind, Network};
use crate::case::{Rules, assert_check, check};
use crate::compare::compare;
use crate::data::{self, Data};
use crate::device::cpu;
use crate::golden::{self, Golden};
use crate::mutant::{Fault, Mutant};
use crate::named::assert_small_cases;
use crate::registry::list_tests;

list_tests!("din":
    matches_fuxictr,
    matches_deepctr,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_sizes,
    matches_reference_with_every_activation,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_on_a_long_history,
    matches_reference_on_random_batches,
    ignores_rows_that_belong_to_nobody,
    matches_reference_on_the_small_named_cases,
    takes_scores_near_the_limits,
    keeps_nan_to_its_candidates,
    weighs_behaviours_near_the_limits,
);

const KINDS: [Kind; 5] = [Kind::Relu, Kind::Sigmoid, Kind::PreluShared, Kind::Prelu, Kind::Dice];

fn matches_fuxictr<B: Backend>(backend: &B, rules: Rules) {
    for name in ["din_relu_sum", "din_sigmoid_softmax", "din_dice_sum", "din_dice_softmax"] {
        let golden = Golden::load(name);
        let network = published(&golden);
        matches_published(&golden, &network, golden.flag("softmax"), backend, rules);
    }
}

/// The network of a golden file of FuxiCTR.
pub(super) fn published(golden: &Golden) -> Network<f32> {
    let hidden = golden.meta["hidden"].as_array().expect("sizes").len();
    let kind = match golden.meta["activation"].as_str() {
        Some("ReLU") => Kind::Relu,
        Some("Sigmoid") => Kind::Sigmoid,
        Some("Dice") => Kind::Dice,
        other => panic!("activation {other:?}"),
    };
    let dice = |i: usize| {
        if kind != Kind::Dice {
            return [vec![], vec![], vec![]];
        }
        let [mean, variance, alpha] =
            ["mean", "var", "alpha"].map(|part| golden.f32(&format!("dice{i}_{part}")));
        let epsilon = golden.meta["dice_eps"].as_f64().expect("a number") as f32;
        let statistics = DiceStatistics::new(&mean, &variance, epsilon);
        let (gain, shift) = fold_dice(&statistics).expect("vectors of one length");
        [gain, shift, alpha]
    };
    Network {
        weights: (0..=hidden).map(|i| golden.f32(&format!("w{i}"))).collect(),
        biases: (0..=hidden).map(|i| golden.f32(&format!("b{i}"))).collect(),
        parameters: (0..hidden).map(dice).collect(),
        kind,
    }
}

fn matches_deepctr<B: Backend>(backend: &B, rules: Rules) {
    let golden = Golden::load("din_deepctr_sigmoid_sum");
    let layers = ["dnn.linears.0", "dnn.linears.1", "dense"];
    let part = |part: &str| layers.map(|layer| golden.f32(&format!("local_att.{layer}.{part}"))).to_vec();
    let network = Network {
        weights: part("weight"),
        biases: part("bias"),
        parameters: vec![[vec![], vec![], vec![]], [vec![], vec![], vec![]]],
        kind: Kind::Sigmoid,
    };
    matches_published(&golden, &network, false, backend, rules);
}

fn matches_published<B: Backend>(
    golden: &Golden,
    network: &Network<f32>,
    softmax: bool,
    backend: &B,
    rules: Rules,
) {
    let op = Din::new(golden.shape("history")[1]);
    let op = op.with_pooling(if softmax { DinPooling::Softmax } else { DinPooling::Sum });
    let (histories, target_rows) =
        (golden.jagged("offsets", "history"), golden.jagged("target_offsets", "targets"));
    let batch = backend.batch(&histories, &target_rows).expect("a batch");
    let [targets, history] =
        ["targets", "history"].map(|name| backend.upload(&golden.f32(name)).expect("an upload"));
    let out = network.with_uploaded(backend, |hidden, output_weight, output_bias| {
        let (targets, history) = (backend.view(&targets), backend.view(&history));
        let inputs = DinInputs::new(targets, history, hidden, output_weight, output_bias);
        Ok(backend.download(backend.view(&backend.din(&op, &batch, inputs)?))?)
    });
    // An empty history gives zeros here; with softmax, FuxiCTR gives the mean of its padding, which is zero.
    let expected = golden.f64("out");
    compare("out", &out.unwrap(), &expected, &golden::bound(&expected), rules).unwrap();
}

fn matches_reference_on_odd_lengths<B: Backend>(backend: &B, rules: Rules) {
    for pooling in [DinPooling::Sum, DinPooling::Softmax] {
        let histories = vec![0, 1, 2, 31, 32, 33, 64, 255, 256, 257, 0];
        let targets = vec![3, 1, 0, 5, 16, 17, 1, 2, 33, 1, 0];
        assert_check(&DinCase { pooling, histories, targets, ..Default::default() }, backend, rules);
    }
    assert_check(&DinCase { histories: vec![], targets: vec![], ..Default::default() }, backend, rules);
}

fn matches_reference_on_odd_sizes<B: Backend>(backend: &B, rules: Rules) {
    for (width, hidden) in [
        (1, vec![1]),
        (3, vec![5, 7]),
        (33, vec![80, 40]),
        (64, vec![36]),
        (64, vec![80, 40, 10]),
        (128, vec![200, 3]),
        (20, vec![256, 256]),
        (256, vec![16]),
        // Wider than a GPU workgroup sums; layers that need all its memory, or whose later layers need more than the earlier.
        (301, vec![9]),
        (7, vec![256, 256, 256]),
        (8, vec![4, 8, 200]),
    ] {
        let (histories, targets) = (vec![40, 3], vec![2, 18]);
        assert_check(&DinCase { width, hidden, histories, targets, ..Default::default() }, backend, rules);
    }
}

fn matches_reference_with_every_activation<B: Backend>(backend: &B, rules: Rules) {
    for activation in KINDS {
        for pooling in [DinPooling::Sum, DinPooling::Softmax] {
            let (histories, targets, hidden) = (vec![0, 40, 300], vec![2, 3, 9], vec![20, 12]);
            let case = DinCase { activation, pooling, hidden, histories, targets, ..Default::default() };
            assert_check(&case, backend, rules);
        }
    }
}

fn matches_reference_on_narrow_storage<B: Backend>(backend: &B, rules: Rules) {
    for dtype in [DType::F16, DType::Bf16] {
        for (width, hidden) in [(64, vec![80, 40]), (5, vec![7])] {
            let (histories, targets) = (vec![100, 0, 17], vec![5, 2, 20]);
            let case = DinCase { dtype, width, hidden, histories, targets, ..Default::default() };
            assert_check(&case, backend, rules);
        }
    }
}

fn matches_reference_on_unusual_numbers<B: Backend>(backend: &B, rules: Rules) {
    for data in [Data::Tiny, Data::Equal, Data::Zeros] {
        let (histories, targets) = (vec![90, 2], vec![3, 4]);
        assert_check(&DinCase { data, histories, targets, ..Default::default() }, backend, rules);
    }
}

fn matches_reference_on_a_long_history<B: Backend>(backend: &B, rules: Rules) {
    for pooling in [DinPooling::Sum, DinPooling::Softmax] {
        let (histories, targets) = (vec![20, 20_000, 0], vec![2, 2, 1]);
        let case = DinCase { pooling, width: 8, hidden: vec![10], histories, targets, ..Default::default() };
        assert_check(&case, backend, rules);
    }
}

prop_compose! {
    /// Any batch whose sizes a test has time for.
    fn any_case()(
        seed in any::<u64>(),
        dtype in prop::sample::select(vec![DType::F32, DType::F16, DType::Bf16]),
        requests in prop::collection::vec((0usize..60, 0usize..12), 0..5),
        tail in 0usize..3,
        width in 1usize..40,
        hidden in prop::collection::vec(1usize..50, 1..4),
        activation in prop::sample::select(KINDS.to_vec()),
        pooling in prop::sample::select(vec![DinPooling::Sum, DinPooling::Softmax]),
    ) -> DinCase {
        let (histories, targets) = requests.into_iter().unzip();
        let data = Data::Normal;
        DinCase {
            seed, dtype, data, histories, targets, tail, width, hidden, activation, pooling, ..Default::default()
        }
    }
}

fn matches_reference_on_random_batches<B: Backend>(backend: &B, rules: Rules) {
    proptest!(data::random_cases(32), |(case in any_case())| {
        check(&case, backend, rules).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    });
}

fn ignores_rows_that_belong_to_nobody<B: Backend>(backend: &B, rules: Rules) {
    let (histories, targets) = (vec![40, 9], vec![3, 20]);
    assert_check(&DinCase { tail: 5, histories, targets, ..Default::default() }, backend, rules);
}

/// Every fault of this stem that a backend can have makes a check fail.
///
/// # Panics
/// Where a fault passes.
pub fn every_fault_is_caught() {
    let plain = DinCase { histories: vec![9, 20], targets: vec![3, 4], ..Default::default() };
    let softmax = DinCase { pooling: DinPooling::Softmax, ..plain.clone() };
    let dice = DinCase { activation: Kind::Dice, ..plain.clone() };
    let prelu = DinCase { activation: Kind::PreluShared, ..plain.clone() };
    for (fault, case) in [
        (Fault::HistoryShifted, &plain),
        (Fault::DifferenceReversed, &plain),
        (Fault::SoftmaxForgotten, &softmax),
        (Fault::AlphaDropped, &dice),
        (Fault::AlphaDropped, &prelu),
    ] {
        assert_check(case, &cpu(), Rules::IEEE);
        assert!(check(case, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed");
    }
}

fn matches_reference_on_the_small_named_cases<B: Backend>(backend: &B, rules: Rules) {
    assert_small_cases("din", backend, rules);
}
