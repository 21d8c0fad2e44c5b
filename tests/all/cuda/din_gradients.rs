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

/// What a call needs of its batch is on the device from its first use on, so that a later one can be captured.
#[test]
fn gradients_can_be_captured_and_replayed() {
    use longseq::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    let [histories, targets] =
        [[40, 3], [2, 1]].map(|lengths| Jagged::from_lengths(&lengths).expect("lengths"));
    let batch = gpu.batch(&histories, &targets).expect("a batch");
    let numbers =
        |count: u16, step: f32| -> Vec<f32> { (0..count).map(|i| (step * f32::from(i)).sin()).collect() };
    let upload = |count, step| gpu.upload(&numbers(count, step)).expect("memory");
    let (targets, history) = (upload(3, 0.9), upload(43, 0.7));
    let (weight, bias) = (upload(12, 0.5), upload(3, 0.3));
    let (output, output_bias, grad_out) = (upload(3, 1.1), upload(1, 1.0), upload(3, 1.3));
    let hidden = [DinLayer::new(gpu.view(&weight), gpu.view(&bias), Activation::Sigmoid)];
    let op = Din::new(1).with_pooling(DinPooling::Softmax);
    let outputs = || [43, 12, 3, 3].map(|length| gpu.zeros::<f32>(length).expect("memory"));
    let call = |outputs: &mut [<<Cuda as DeviceOps>::Memory as Memory>::Buffer<f32>; 4]| {
        let inputs = DinInputs::new(
            gpu.view(&targets),
            gpu.view(&history),
            &hidden,
            gpu.view(&output),
            gpu.view(&output_bias),
        );
        let [grad_history, grad_weight, mean, squares] = outputs.each_mut().map(|out| gpu.view_mut(out));
        let mut layers = [DinLayerGradients::new().with_weight(grad_weight)];
        let grads = DinGradients::new().with_history(grad_history).with_hidden(&mut layers);
        gpu.din_backward_into(&op, &batch, inputs, gpu.view(&grad_out), grads).expect("a valid call");
        let statistics = DinStatistics::new(mean, squares);
        gpu.din_statistics_into(&op, &batch, inputs, 0, statistics).expect("a valid call");
    };
    let downloaded =
        |outputs: &[_; 4]| outputs.each_ref().map(|out| gpu.download(gpu.view(out)).expect("a download"));
    let (mut first, mut captured) = (outputs(), outputs());
    call(&mut first);
    gpu.set_workspace(Some(gpu.zeros::<u8>(gpu.scratch_taken() + 128).expect("memory"))).expect("its stream");
    let stream = gpu.stream().clone();
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).expect("a capture");
    call(&mut captured);
    let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = stream.end_capture(flags).expect("a graph").expect("with work in it");
    assert!(downloaded(&captured).concat().iter().all(|&number| number == 0.0), "only recorded");
    graph.launch().expect("a launch");
    let expected = downloaded(&first);
    assert!(expected.iter().all(|numbers| numbers.iter().any(|&number| number != 0.0)));
    assert_eq!(downloaded(&captured), expected);
    drop(graph);
    assert_eq!(emulator.take_findings(), []);
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
    let parts = ("f32.bf16.bf16.f32", "f32.f16.f16.f32");
    let twins = [
        (backward("din_backward_fold_f32", "differences subtracted", subtracted), &case),
        (backward("din_backward_candidates_f32", "no candidate", ("setp.ge.u64", "setp.lt.u64")), &case),
        (backward("din_backward_write_f32", "differences added", added), &case),
        (backward("din_backward_run_states", "the maximum added", added), &case),
        (backward("din_backward_states", "the least score", ("max.f32", "min.f32")), &case),
        (backward("din_backward_states", "the maximum added", added), &case),
        (backward("din_backward_clear", "nothing cleared", ("setp.ge.u64", "setp.lt.u64")), &case),
        (mutant("din_backward_pairs", "din_backward_behaviours_f32", "numbers cut wrongly", added), &case),
        (pairs("numbers cut wrongly", added), &case),
        (everywhere(pairs("parts taken for f16", parts)), &case),
        (everywhere(pairs("fragments not turned", (".x4.trans", ".x4"))), &case),
        (everywhere(pairs("quotients rooted", ("rcp.approx.f32", "sqrt.approx.f32"))), &case),
        (everywhere(pairs("no slope above 0", ("setp.gt.f32", "setp.lt.f32"))), &relu),
        (sums("din_backward_outer_f32", "parts taken for f16", parts), &case),
        (sums("din_backward_first_f32", "runs subtracted", subtracted), &case),
        (sums("din_backward_history_f32", "candidates subtracted", subtracted), &case),
        (sums("din_backward_history_f32", "candidates added", ("mul.rn.f32", "add.rn.f32")), &case),
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
