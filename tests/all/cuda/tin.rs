//! TIN and its gradients on the emulated CUDA device: every kernel in every mode of the emulator, in any order of blocks and warps, rows of
//! any alignment, positions in several parts, and kernels that are wrong on purpose.

use cuda_emulator::Device;
use longseq::*;
use longseq_check::device::assert_check;
use longseq_check::device::cuda::{modes_of, session, set_mode};
use longseq_check::tin::{TinBackwardCase, TinCase};
use longseq_check::{Case, Rules, check};

use super::wrong_kernels::{Check, Mutant, assert_caught, checked, everywhere};

fn gradients(forward: TinCase) -> TinBackwardCase {
    TinBackwardCase { forward, ..Default::default() }
}

/// Cases that cover every kernel: each storage type and width, few and many candidates, split and whole histories.
fn cases() -> Vec<TinCase> {
    let plain = TinCase { histories: vec![700, 0, 40], targets: vec![3, 1, 41], ..Default::default() };
    let few = TinCase { histories: vec![300, 9], targets: vec![2, 4], ..plain.clone() };
    let one = TinCase { histories: vec![500, 3, 0], targets: vec![1, 0, 1], ..plain.clone() };
    let mut cases = Vec::new();
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        for width in [8, 64, 128, 60, 67] {
            for case in [&plain, &few, &one] {
                cases.push(TinCase { dtype, width, ..case.clone() });
            }
        }
        let (given, multiply_target) = ([true; 2], false);
        cases.push(TinCase { dtype, given, multiply_target, ..few.clone() });
        cases.push(TinCase { dtype, given, positions: 1000, width: 24, ..plain.clone() });
    }
    cases
}

#[test]
fn every_kernel_matches_the_reference_in_every_mode() {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    for (index, case) in cases().iter().enumerate() {
        // Wider than any chunk, which gradients do not take.
        let wide = TinCase { width: 136 + case.width, ..case.clone() };
        for mode in modes_of(index) {
            set_mode(&emulator, mode);
            assert_check(case, &gpu);
            assert_check(&TinBackwardCase { narrow: true, ..gradients(case.clone()) }, &gpu);
            if index % 5 == 0 {
                assert_check(&wide, &gpu);
                assert_check(&gradients(wide.clone()), &gpu);
            }
        }
    }
    drop(gpu);
    assert_eq!(emulator.take_findings(), []);
    assert!(emulator.take_leaks().is_empty());
}

/// Results have the same bits whatever the order of blocks and warps.
#[test]
fn results_are_the_same_in_any_order() {
    let Some(emulator) = session() else { return };
    let forward = TinCase { histories: vec![3000, 90], targets: vec![9, 40], ..Default::default() };
    let case = gradients(forward.clone());
    let run = |seed| {
        emulator.set_schedule_seed(seed);
        let gpu = Cuda::new(0).expect("a device");
        let out = forward.run(&gpu).unwrap_or_else(|failure| panic!("{failure}"));
        (out, case.run(&gpu).unwrap_or_else(|failure| panic!("{failure}")))
    };
    let first = run(None);
    assert!([1, 2, 3].into_iter().all(|seed| run(Some(seed)) == first));
}

/// Few processors: pieces and spans of several steps, some of them for more candidates than a tile has.
#[test]
fn long_pieces_match_the_reference() {
    let Some(emulator) = session() else { return };
    emulator.set_device(Device { multiprocessors: 2, ..Device::sm_80() });
    let gpu = Cuda::new(0).expect("a device");
    for (dtype, targets) in [(DType::F32, 1), (DType::Bf16, 4), (DType::F16, 40)] {
        let case = TinCase {
            dtype,
            histories: vec![300; 4],
            targets: vec![targets; 4],
            width: 64,
            ..Default::default()
        };
        assert_check(&case, &gpu);
        assert_check(&gradients(case), &gpu);
    }
    drop(gpu);
    assert_eq!(emulator.take_findings(), []);
}

/// Rows that begin anywhere in a buffer, so that no vector load fits, or only one of fewer bytes.
#[test]
fn rows_may_begin_anywhere() {
    if session().is_none() {
        return;
    }
    let gpu = Cuda::new(0).expect("a device");
    let (width, behaviours, candidates) = (8, 40, 3);
    let op = Tin::new(width).with_positions(5);
    let rows = |count: usize| (0..count * width).map(|i| half::f16::from_f32((i % 13) as f32 / 8.0 - 0.75));
    let lengths = |rows| Jagged::from_lengths(&[rows]).expect("a length");
    let batch = gpu.batch(&lengths(behaviours), &lengths(candidates)).expect("a user");
    let run = |start: usize| {
        let upload = |count| {
            let numbers: Vec<half::f16> = (0..start).map(|_| half::f16::NAN).chain(rows(count)).collect();
            gpu.upload(&numbers).expect("memory")
        };
        let [targets, history, positions] = [candidates, behaviours, 5].map(upload);
        let of = |buffer, count| gpu.view::<half::f16>(buffer).slice(start, count * width).expect("within");
        let inputs = TinInputs::new(of(&targets, candidates), of(&history, behaviours), of(&positions, 5));
        let out = gpu.tin(&op, &batch, inputs).expect("a valid call");
        gpu.download(gpu.view(&out)).expect("a download")
    };
    let expected = run(0);
    for start in 1..9 {
        for (number, expected) in run(start).iter().zip(&expected) {
            let error = (number.to_f32() - expected.to_f32()).abs();
            assert!(error <= 2e-3 * expected.to_f32().abs().max(1.0), "{start}: {number}, not {expected}");
        }
    }
}

#[test]
fn wider_rows_have_no_gradients() {
    if session().is_none() {
        return;
    }
    let gpu = Cuda::new(0).expect("a device");
    let failure = gradients(TinCase { width: 257, ..Default::default() }).run(&gpu);
    let expected = "tin_backward: rows of 257 numbers is not supported; supported: rows of up to 256 on Cuda";
    let failure = failure.expect_err("more than the kernels take");
    assert_eq!(failure.error().map(ToString::to_string).as_deref(), Some(expected));
}

/// The next wait names a position outside, whatever is asked for; nothing outside is read.
#[test]
fn gradients_find_positions_outside() {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    let op = Tin::new(1).with_positions(2);
    let rows = |count: usize| gpu.upload(&vec![1.0f32; count]).expect("memory");
    let [targets, history, positions] = [2, 3, 2].map(rows);
    let [pooled, lse, grad_out] = [2, 2, 2].map(rows);
    let given = gpu.upload(&[1u32, 0, 7]).expect("memory");
    let lengths = |rows| Jagged::from_lengths(&[rows]).expect("a length");
    let batch = gpu.batch(&lengths(3), &lengths(2)).expect("a user");
    for asks in [false, true] {
        let mut written = rows(2);
        let inputs = TinInputs::new(gpu.view(&targets), gpu.view(&history), gpu.view(&positions));
        let inputs = inputs.with_history_positions(gpu.view(&given));
        let saved = TinSaved::new(gpu.view(&pooled), gpu.view(&lse));
        let mut grads = TinGradients::<_, f32>::new();
        if asks {
            grads = grads.with_positions(gpu.view_mut(&mut written));
        }
        let grad = gpu.view(&grad_out);
        gpu.tin_backward_into(&op, &batch, inputs, saved, grad, grads).expect("a valid call");
        let error = gpu.synchronize().expect_err("a position outside");
        let expected = "tin_backward: history_positions[2] is 7, which must be below 2";
        assert_eq!(error.to_string(), expected);
    }
    assert_eq!(emulator.take_findings(), []);
}

#[test]
fn wrong_tin_is_caught() {
    assert_caught(wrong());
    assert_caught(wrong_gradients());
}

fn mutant(stem: &'static str, kernel: &'static str, fault: &'static str, edit: Edit) -> Mutant {
    Mutant { stem, kernel, fault, edit, everywhere: false }
}

/// The text to replace, and its replacement.
type Edit = (&'static str, &'static str);

const NOT_WAITED: Edit = ("cp.async.wait_group 0", "cp.async.wait_group 1");
const LATE: Edit = ("bar.sync \t0;", "");

pub(super) fn wrong() -> Vec<(Mutant, Check)> {
    let many = TinCase { histories: vec![1025, 90], targets: vec![32, 9], width: 64, ..Default::default() };
    let one = TinCase { targets: vec![1, 1], ..many.clone() };
    let given = TinCase { given: [true; 2], ..many.clone() };
    let fma = |fault, edit| mutant("tin_fma", "tin_fma_wide_64_rows_32", fault, edit);
    let stream = |fault, edit| mutant("tin_stream", "tin_stream_64_rows_1", fault, edit);
    let shared = |kernel, fault, edit| mutant("tin", kernel, fault, edit);
    let twins = [
        (fma("tiles not waited for", NOT_WAITED), &many),
        (everywhere(fma("a tile read before its positions are there", LATE)), &many),
        (everywhere(fma("counted past the last position", ("min.u64", "max.u64"))), &many),
        (everywhere(fma("given positions past the last", ("min.u32", "max.u32"))), &given),
        (everywhere(stream("products subtracted", ("add.rn.f32", "sub.rn.f32"))), &one),
        (everywhere(stream("counted past the last position", ("min.u64", "max.u64"))), &one),
        (shared("tin_prepare", "positions subtracted", ("add.rn.f32", "sub.rn.f32")), &many),
        (shared("tin_combine", "pieces weighed wrongly", ("sub.rn.f32", "add.rn.f32")), &many),
    ];
    twins.map(|(mutant, case)| (mutant, checked(case))).into()
}

pub(super) fn wrong_gradients() -> Vec<(Mutant, Check)> {
    let forward =
        TinCase { histories: vec![1025, 90], targets: vec![33, 9], width: 64, ..Default::default() };
    let many = gradients(forward.clone());
    let narrow = TinCase { dtype: DType::Bf16, ..forward.clone() };
    let narrow = TinBackwardCase { narrow: true, ..gradients(narrow) };
    let one = gradients(TinCase { targets: vec![1, 1], ..forward.clone() });
    // A log-sum-exp that is too coarse for weights.
    let coarse = TinCase { scale: Some(300.0), histories: vec![2, 40], ..forward };
    let coarse = gradients(coarse);
    let fma = |fault, edit| mutant("tin_backward_fma", "tin_backward_fma_64_rows_32", fault, edit);
    let stream = |fault, edit| mutant("tin_backward_stream", "tin_backward_stream_64_rows_1", fault, edit);
    let shared = |kernel, fault, edit| mutant("tin_backward", kernel, fault, edit);
    let twins = [
        (fma("scores shifted wrongly", ("sub.rn.f32", "add.rn.f32")), &many),
        (everywhere(fma("overwritten while read", LATE)), &many),
        (everywhere(fma("given positions past the last", ("min.u32", "max.u32"))), &many),
        (stream("lanes exchanged one way", ("shfl.sync.bfly", "shfl.sync.down")), &one),
        (everywhere(stream("sums read too early", LATE)), &one),
        (shared("tin_states", "lanes of D subtracted", ("add.rn.f32", "sub.rn.f32")), &many),
        (shared("tin_states", "multiplied by the sum", ("rcp.approx", "sqrt.approx")), &coarse),
        (everywhere(shared("tin_count_positions", "past the last position", ("min.u64", "max.u64"))), &many),
        (shared("tin_target_gradient", "one number too many", ("setp.ge.u64", "setp.gt.u64")), &many),
        (shared("tin_add_positions", "candidates subtracted", ("add.rn.f32", "sub.rn.f32")), &many),
        (shared("tin_write_positions", "one number too many", ("setp.ge.u64", "setp.gt.u64")), &narrow),
    ];
    let run = |case: &TinBackwardCase| {
        let case = case.clone();
        let name = format!("{case:?}");
        Check::new(name, move |gpu: &Cuda| check(&case, gpu, Rules::CUDA))
    };
    twins.map(|(mutant, case)| (mutant, run(case))).into()
}
