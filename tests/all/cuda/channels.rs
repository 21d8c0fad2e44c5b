//! Interest channels and their gradients, and SiLU divided by the length of each history, on the emulated CUDA device: every kernel in every
//! mode of the emulator, in any order of blocks and warps, rows of any alignment, and kernels that are wrong on purpose.

use longseq::*;
use longseq_check::data::Data;
use longseq_check::device::assert_check;
use longseq_check::device::cuda::{modes_of, session, set_mode};
use longseq_check::interest_channels::{ChannelsBackwardCase, ChannelsCase};
use longseq_check::target_attention::{AttentionBackwardCase, AttentionCase, Bias};
use longseq_check::{Case, Rules, check};

use super::wrong_kernels::{Check, Mutant, assert_caught, checked, everywhere};

fn gradients(forward: ChannelsCase) -> ChannelsBackwardCase {
    ChannelsBackwardCase { forward, ..Default::default() }
}

/// Cases that cover every kernel: each storage type, whole vectors and numbers, channels within and across the axes that are multiplied
/// together, several pieces of a history, all that is kept and not.
fn cases() -> Vec<ChannelsCase> {
    let plain =
        ChannelsCase { histories: vec![600, 0, 40], targets: vec![3, 1, 7], top_k: 20, ..Default::default() };
    let among = KeptAmong::All;
    let mut cases = Vec::new();
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        for (width, channels) in [(8, 3), (64, 4), (40, 17), (67, 16), (140, 5)] {
            let case = ChannelsCase { dtype, width, channels, shared: 0.5, ..plain.clone() };
            cases.push(ChannelsCase { among, normalise: true, ..case.clone() });
            cases.push(case);
        }
        let dependent = Some(1);
        cases.push(ChannelsCase { dtype, dependent, ..plain.clone() });
        cases.push(ChannelsCase { dtype, data: Data::Equal, among, ..plain.clone() });
    }
    cases
}

#[test]
fn every_kernel_matches_the_reference_in_every_mode() {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    for (index, case) in cases().iter().enumerate() {
        for mode in modes_of(index) {
            set_mode(&emulator, mode);
            assert_check(case, &gpu);
            assert_check(&ChannelsBackwardCase { narrow: true, ..gradients(case.clone()) }, &gpu);
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
    let (histories, targets) = (vec![1500, 90], vec![3, 20]);
    let forward = ChannelsCase { histories, targets, top_k: 30, ..Default::default() };
    let all = ChannelsCase { among: KeptAmong::All, normalise: true, ..forward.clone() };
    let case = gradients(forward.clone());
    let run = |seed| {
        emulator.set_schedule_seed(seed);
        let gpu = Cuda::new(0).expect("a device");
        let out = [&forward, &all].map(|case| case.run(&gpu).unwrap_or_else(|failure| panic!("{failure}")));
        (out, case.run(&gpu).unwrap_or_else(|failure| panic!("{failure}")))
    };
    let first = run(None);
    assert!([1, 2, 3].into_iter().all(|seed| run(Some(seed)) == first));
}

/// More entries than are sorted in shared memory.
#[test]
fn many_kept_match_the_reference() {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    let case =
        ChannelsCase { histories: vec![4500], targets: vec![1], width: 4, channels: 1, ..Default::default() };
    for (top_k, among) in [(2048, KeptAmong::All), (2049, KeptAmong::Routed), (9000, KeptAmong::All)] {
        assert_check(&ChannelsCase { top_k, among, ..case.clone() }, &gpu);
    }
    drop(gpu);
    assert_eq!(emulator.take_findings(), []);
}

/// Rows that begin anywhere in a buffer, so that no vector load fits.
#[test]
fn rows_may_begin_anywhere() {
    if session().is_none() {
        return;
    }
    let gpu = Cuda::new(0).expect("a device");
    let (width, behaviours, candidates, channels) = (8, 40, 3, 2);
    let op = InterestChannels::new(width).with_channels(channels).with_top_k(5);
    let lengths = |rows| Jagged::from_lengths(&[rows]).expect("a length");
    let batch = gpu.batch(&lengths(behaviours), &lengths(candidates)).expect("a user");
    let rows = |count: usize, step: usize| {
        (0..count * width).map(move |i| half::f16::from_f32((i * step % 13) as f32 / 8.0 - 0.75))
    };
    let run = |start: usize| {
        let upload = |count, step| {
            let before = (0..start).map(|_| half::f16::NAN);
            gpu.upload(&before.chain(rows(count, step)).collect::<Vec<_>>()).expect("memory")
        };
        let (axes, history) = (upload(candidates * channels, 5), upload(behaviours, 7));
        let of = |buffer, count| gpu.view::<half::f16>(buffer).slice(start, count * width).expect("within");
        let inputs = InterestChannelsInputs::new(of(&axes, candidates * channels), of(&history, behaviours));
        let out = gpu.interest_channels(&op, &batch, inputs).expect("a valid call");
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

/// The next wait names the axes, whatever gradients are asked for.
#[test]
fn gradients_name_axes_that_depend_on_each_other() {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    let op = InterestChannels::new(2).with_channels(2).with_top_k(1);
    let upload = |numbers: &[f32]| gpu.upload(numbers).expect("memory");
    let (axes, history) = (upload(&[1.0, 0.0, 0.0, 1.0, 2.0, 2.0, 3.0, 3.0]), upload(&[1.0; 6]));
    let (grad, scores) = (upload(&[1.0; 8]), upload(&[0.0; 4]));
    let words = gpu.upload(&[0u32; 4]).expect("memory");
    let lengths = |rows| Jagged::from_lengths(&[rows]).expect("a length");
    let batch = gpu.batch(&lengths(3), &lengths(2)).expect("a user");
    for asks in [false, true] {
        let mut written = upload(&[0.0; 6]);
        let inputs = InterestChannelsInputs::new(gpu.view(&axes), gpu.view(&history));
        let kept = Selection::new(gpu.view(&words), gpu.view(&scores), gpu.view(&words));
        let mut grads = InterestChannelsGradients::<_, f32>::new();
        if asks {
            grads = grads.with_history(gpu.view_mut(&mut written));
        }
        let (saved, grad) = (InterestChannelsSaved::new(kept), gpu.view(&grad));
        gpu.interest_channels_backward_into(&op, &batch, inputs, saved, grad, grads).expect("a valid call");
        let error = gpu.synchronize().expect_err("axes that depend on each other");
        let expected = "interest_channels_backward: axes: expected axes that do not depend on each other (or \
                        DependentAxes::Zero), got axis 1 of candidate 1, which depends on those before it";
        assert_eq!(error.to_string(), expected);
    }
    assert_eq!(emulator.take_findings(), []);
}

/// SiLU divided by the length of each history, in every kernel that weighs.
fn by_length() -> Vec<AttentionCase> {
    let weighting = Weighting::Silu { divisor: SiluDivisor::HistoryLength };
    let (histories, targets) = (vec![700, 0, 40], vec![3, 1, 40]);
    let plain = AttentionCase { weighting, histories, targets, bias: Bias::Normal, ..Default::default() };
    let mut cases = Vec::new();
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        for (width, value_width, first) in [(64, None, 32), (24, Some(40), 3), (67, Some(65), 3)] {
            let targets = vec![first, 1, 40];
            let case = AttentionCase { dtype, width, value_width, targets, ..plain.clone() };
            cases.push(AttentionCase { histories: vec![700, 9], targets: vec![1, 1], ..case.clone() });
            cases.push(case);
        }
        // Computed again, since a sum is not finite. The first user's behaviours are all removed.
        let (removed, bias) = (Some(f32::NAN), Bias::Mask);
        let (histories, value_width) = (vec![40, 0, 700], Some(24));
        cases.push(AttentionCase { dtype, removed, bias, histories, value_width, ..plain.clone() });
    }
    cases
}

#[test]
fn silu_is_divided_by_the_length_of_each_history_in_every_mode() {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    for (index, forward) in by_length().into_iter().enumerate() {
        for mode in modes_of(index) {
            set_mode(&emulator, mode);
            assert_check(&forward, &gpu);
            assert_check(&AttentionBackwardCase { forward: forward.clone(), ..Default::default() }, &gpu);
        }
    }
    drop(gpu);
    assert_eq!(emulator.take_findings(), []);
}

/// The bits of a length as a number.
#[test]
fn wrong_divisors_are_caught() {
    let forward = |index: usize| by_length().swap_remove(index);
    let gradients = |index: usize| AttentionBackwardCase { forward: forward(index), ..Default::default() };
    let length = |file, kernel| mutant(file, kernel, "not the length", ("cvt.rn.f32.u32", "mov.b32"));
    // Of each storage type: one candidate each of width 64, and more.
    let (one, many, half, half_many) = (forward(0), forward(1), forward(15), gradients(15));
    assert_caught(vec![
        (length("target_attention_fma", "split_history_fma_wide_64_rows_32_f32"), checked(&many)),
        (length("target_attention_stream", "stream_history_64_rows_1_f32"), checked(&one)),
        (length("target_attention_mma", "split_history_mma_64_rows_32_bf16"), checked(&half)),
        (length("target_attention_backward_fma", "backward_fma_64_rows_32"), checked(&gradients(1))),
        (length("target_attention_backward_stream", "backward_stream_64_rows_1"), checked(&gradients(0))),
        (length("target_attention_backward_mma", "backward_mma_64_rows_32_bf16"), checked(&half_many)),
    ]);
}

#[test]
fn wrong_channels_are_caught() {
    assert_caught(wrong());
    assert_caught(wrong_gradients());
}

fn mutant(file: &'static str, kernel: &'static str, fault: &'static str, edit: Edit) -> Mutant {
    Mutant { stem: file, kernel, fault, edit, everywhere: false }
}

/// The text to replace, and its replacement.
type Edit = (&'static str, &'static str);

const LATE: Edit = ("bar.sync \t0;", "");

pub(super) fn wrong() -> Vec<(Mutant, Check)> {
    let (histories, targets) = (vec![600, 90], vec![3, 9]);
    let plain = ChannelsCase { histories, targets, top_k: 20, ..Default::default() };
    let all = ChannelsCase { among: KeptAmong::All, ..plain.clone() };
    let equal = ChannelsCase { data: Data::Equal, ..plain.clone() };
    let normalised = ChannelsCase { normalise: true, ..plain.clone() };
    let zeros = ChannelsCase { dependent: Some(1), top_k: 100, ..plain.clone() };
    let wide = ChannelsCase { width: 80, ..plain.clone() };
    let axes = |fault, edit| mutant("interest_channels_axes", "channels_axes_f32", fault, edit);
    let route = |fault, edit| mutant("interest_channels_route", "channels_route_f32", fault, edit);
    let select = |fault, edit| mutant("interest_channels", "channels_select", fault, edit);
    let pool = |fault, edit| mutant("interest_channels", "channels_pool_f32", fault, edit);
    let twins = [
        (everywhere(axes("lanes subtracted", ("add.rn.f64", "sub.rn.f64"))), &plain),
        (everywhere(axes("not of length one", ("div.rn.f64", "mul.rn.f64"))), &plain),
        (everywhere(axes("short axes divided", ("0d3EE4F8B588E368F1", "0d0000000000000000"))), &zeros),
        (everywhere(route("rows read before they are there", LATE)), &wide),
        (everywhere(route("what is not the best", ("setp.lt.f32", "setp.gt.f32"))), &plain),
        (everywhere(select("counted before all are there", LATE)), &plain),
        (everywhere(select("entries exchanged one way", ("shfl.sync.bfly", "shfl.sync.down"))), &all),
        (everywhere(select("the lowest is left out", ("setp.ge.u64", "setp.gt.u64"))), &equal),
        (everywhere(select("not divided by the length", ("div.rn.f32", "mul.rn.f32"))), &plain),
        (everywhere(pool("groups of lanes subtracted", ("add.rn.f32", "sub.rn.f32"))), &plain),
        (everywhere(pool("squares of lengths", ("sqrt.rn.f64", "abs.f64"))), &normalised),
    ];
    twins.map(|(mutant, case)| (mutant, checked(case))).into()
}

pub(super) fn wrong_gradients() -> Vec<(Mutant, Check)> {
    let (histories, targets) = (vec![300, 90], vec![3, 9]);
    let forward = ChannelsCase { histories, targets, top_k: 20, shared: 1.0, ..Default::default() };
    let normalised = gradients(ChannelsCase { normalise: true, ..forward.clone() });
    let plain = gradients(forward);
    let axes = |fault, edit| mutant("interest_channels_axes", "channels_axes_gradients_f32", fault, edit);
    let slots = |fault, edit| mutant("interest_channels_backward", "channels_gradients_f32", fault, edit);
    let twins = [
        (everywhere(axes("lanes subtracted", ("add.rn.f64", "sub.rn.f64"))), &plain),
        (everywhere(axes("not divided by the length", ("div.rn.f64", "mul.rn.f64"))), &plain),
        (everywhere(axes("what is along an axis stays", ("neg.f64", "abs.f64"))), &plain),
        (everywhere(slots("not divided by the length", ("div.rn.f32", "mul.rn.f32"))), &plain),
        (everywhere(slots("groups of lanes subtracted", ("add.rn.f32", "sub.rn.f32"))), &plain),
        (everywhere(slots("read before they are there", LATE)), &plain),
        (everywhere(slots("squares of lengths", ("sqrt.rn.f64", "abs.f64"))), &normalised),
    ];
    let run = |case: &ChannelsBackwardCase| {
        let case = case.clone();
        let name = format!("{case:?}");
        Check::new(name, move |gpu: &Cuda| check(&case, gpu, Rules::CUDA))
    };
    twins.map(|(mutant, case)| (mutant, run(case))).into()
}
