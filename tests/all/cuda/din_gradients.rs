//! Gradients of DIN on the emulated CUDA device: every kernel in every mode of the emulator, in any order of blocks and warps,
//! and kernels that are wrong on purpose.

use longseq::*;
use longseq_check::Case;
use longseq_check::device::assert_check;
use longseq_check::device::cuda::{modes_of, session, set_mode};
use longseq_check::din::{DinBackwardCase, DinCase, Kind, StatisticsCase};

use super::wrong_kernels::{Check, Mutant, assert_caught, checked, everywhere};

fn gradients(forward: DinCase) -> DinBackwardCase {
    DinBackwardCase { forward, ..Default::default() }
}

/// Histories of several pieces and none, and more candidates than one.
fn forward() -> DinCase {
    DinCase {
        histories: vec![300, 0, 40],
        targets: vec![3, 1, 9],
        hidden: vec![20, 12],
        pooling: DinPooling::Softmax,
        ..Default::default()
    }
}

#[test]
fn every_kernel_of_gradients_matches_the_reference_in_every_mode() {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    for (index, dtype) in [DType::F32, DType::F16, DType::Bf16].into_iter().enumerate() {
        let case = DinBackwardCase { narrow: true, ..gradients(DinCase { dtype, ..forward() }) };
        let statistics = StatisticsCase { forward: DinCase { dtype, activation: Kind::Dice, ..forward() } };
        for mode in modes_of(index) {
            set_mode(&emulator, mode);
            assert_check(&case, &gpu);
            assert_check(&statistics, &gpu);
        }
    }
    drop(gpu);
    assert_eq!(emulator.take_findings(), []);
    assert!(emulator.take_leaks().is_empty());
}

/// The gradients have the same bits whatever the order of blocks and warps.
#[test]
fn gradients_are_the_same_in_any_order() {
    let Some(emulator) = session() else { return };
    let case = gradients(forward());
    let statistics = StatisticsCase { forward: forward() };
    let run = |seed| {
        emulator.set_schedule_seed(seed);
        let gpu = Cuda::new(0).expect("a device");
        let gradients = case.run(&gpu).unwrap_or_else(|failure| panic!("{failure}"));
        (gradients, statistics.run(&gpu).unwrap_or_else(|failure| panic!("{failure}")))
    };
    let first = run(None);
    assert!([1, 2, 3].into_iter().all(|seed| run(Some(seed)) == first));
}

#[test]
fn wrong_gradients_of_din_are_caught() {
    assert_caught(wrong());
}

pub(super) fn wrong() -> Vec<(Mutant, Check)> {
    let mutant = |stem, kernel, fault, edit| Mutant { stem, kernel, fault, edit, everywhere: false };
    let backward = |kernel, fault, edit| everywhere(mutant("din_backward", kernel, fault, edit));
    let pairs = |fault, edit| mutant("din_backward_pairs", "din_backward_pairs_f32", fault, edit);
    let sums = |kernel, fault, edit| everywhere(mutant("din_backward_sums", kernel, fault, edit));
    let case = gradients(forward());
    let relu = gradients(DinCase { activation: Kind::Relu, ..forward() });
    let subtracted = ("add.rn.f32", "sub.rn.f32");
    let added = ("sub.rn.f32", "add.rn.f32");
    let early = ("bar.sync \t0;", "");
    let twins = [
        (backward("din_backward_fold_f32", "differences subtracted", subtracted), &case),
        (backward("din_backward_candidates_f32", "no candidate", ("setp.ge.u64", "setp.lt.u64")), &case),
        (backward("din_backward_write_f32", "differences added", added), &case),
        (backward("din_backward_run_states", "the maximum added", added), &case),
        (backward("din_backward_states", "the least score", ("max.f32", "min.f32")), &case),
        (backward("din_backward_states", "the maximum added", added), &case),
        (backward("din_backward_clear", "nothing cleared", ("setp.ge.u64", "setp.lt.u64")), &case),
        (pairs("behaviours read too early", early), &case),
        (everywhere(pairs("quotients rooted", ("rcp.approx.f32", "sqrt.approx.f32"))), &case),
        (everywhere(pairs("no slope above 0", ("setp.gt.f32", "setp.lt.f32"))), &relu),
        (sums("din_backward_outer", "products subtracted", subtracted), &case),
        (sums("din_backward_outer", "tiles read too early", early), &case),
        (sums("din_backward_first", "products subtracted", subtracted), &case),
        (sums("din_backward_first", "tiles read too early", early), &case),
        (sums("din_backward_history_f32", "candidates subtracted", subtracted), &case),
        (sums("din_backward_targets", "runs subtracted", subtracted), &case),
        (sums("din_backward_sums", "the largest for the sum", ("add.rn.f32", "max.f32")), &case),
    ];
    let mut twins: Vec<(Mutant, Check)> =
        twins.map(|(mutant, case): (Mutant, &DinBackwardCase)| (mutant, checked(case))).into();
    let statistics = StatisticsCase { forward: forward() };
    let distances = backward("din_backward_moments", "means added", added);
    twins.push((distances, checked(&statistics)));
    twins
}
