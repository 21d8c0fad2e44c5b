//! Attention over a selection, its gradients and histograms on the emulated CUDA device: every kernel in every mode of the emulator, in
//! any order of blocks and warps, and kernels that are wrong on purpose.

use longseq::*;
use longseq_check::device::cuda::{modes_of, session, set_mode};
use longseq_check::device::{TestDevice, assert_check};
use longseq_check::search::NewestCase;
use longseq_check::selected::{Choice, HistogramCase, SelectedBackwardCase, SelectedCase};
use longseq_check::target_attention::Bias;
use longseq_check::{AnyCase, Case};

use super::wrong_kernels::{Check, Mutant, assert_caught, checked, everywhere};

/// Heads that share keys; rows of several lanes, and blocks of several warps.
fn plain(dtype: DType, width: usize) -> SelectedCase {
    SelectedCase {
        dtype,
        width,
        value_width: Some(width),
        histories: vec![60, 0, 40],
        targets: vec![5, 1, 3],
        top_k: 20,
        heads: 4,
        kv_heads: 2,
        bias: Bias::Normal,
        ..Default::default()
    }
}

/// Removed behaviours, which hold NaN.
fn removed() -> SelectedCase {
    SelectedCase { bias: Bias::Mask, some_removed: true, removed: Some(f32::NAN), ..plain(DType::F32, 24) }
}

/// More slots than fit shared memory.
fn many_kept() -> SelectedCase {
    SelectedCase {
        histories: vec![1500],
        targets: vec![2],
        top_k: 1200,
        heads: 1,
        kv_heads: 1,
        ..plain(DType::F32, 4)
    }
}

fn gradients(forward: SelectedCase) -> SelectedBackwardCase {
    SelectedBackwardCase { forward, with_grad_lse: true, ..Default::default() }
}

/// Gradients that are stored in 16 bits.
fn narrow(dtype: DType) -> SelectedBackwardCase {
    SelectedBackwardCase { narrow: true, ..gradients(plain(dtype, 33)) }
}

/// Rows of every alignment, a single warp, keys that are the values.
fn forward_cases() -> Vec<SelectedCase> {
    let small = SelectedCase { top_k: 3, heads: 1, kv_heads: 1, ..plain(DType::F32, 5) };
    let aliased = SelectedCase { value_width: None, ..plain(DType::Bf16, 64) };
    let wide = SelectedCase { value_width: Some(140), ..plain(DType::F32, 300) };
    vec![
        plain(DType::F32, 24),
        plain(DType::F16, 33),
        plain(DType::Bf16, 34),
        removed(),
        small,
        aliased,
        wide,
        many_kept(),
    ]
}

#[test]
fn every_kernel_matches_the_reference_in_every_mode() {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    let mut cases: Vec<AnyCase> = forward_cases().iter().map(AnyCase::from).collect();
    let histogram = HistogramCase { targets: vec![7, 0, 2], tail: 2, edges: true, ..Default::default() };
    cases.extend([AnyCase::from(&histogram), AnyCase::from(&NewestCase::default())]);
    for (index, case) in cases.iter().enumerate() {
        for mode in modes_of(index) {
            set_mode(&emulator, mode);
            gpu.check_case(case).unwrap_or_else(|failure| panic!("{failure}"));
        }
    }
    drop(gpu);
    assert_eq!(emulator.take_findings(), []);
    assert!(emulator.take_leaks().is_empty());
}

#[test]
fn every_kernel_of_gradients_matches_the_reference_in_every_mode() {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    let aliased = SelectedCase { value_width: None, kv_heads: 4, ..plain(DType::F32, 24) };
    let hot = SelectedCase { choice: Choice::Same, targets: vec![40, 0, 3], ..plain(DType::F32, 8) };
    let cases = [
        gradients(plain(DType::F32, 24)),
        narrow(DType::F16),
        gradients(plain(DType::F16, 16)),
        narrow(DType::Bf16),
        gradients(removed()),
        gradients(aliased),
        gradients(hot),
        gradients(many_kept()),
    ];
    for (index, case) in cases.iter().enumerate() {
        for mode in modes_of(index) {
            set_mode(&emulator, mode);
            assert_check(case, &gpu);
        }
    }
    drop(gpu);
    assert_eq!(emulator.take_findings(), []);
    assert!(emulator.take_leaks().is_empty());
}

/// Outputs and gradients have the same bits whatever the order of blocks and warps.
#[test]
fn results_are_the_same_in_any_order() {
    let Some(emulator) = session() else { return };
    let (forward, backward) = (plain(DType::F32, 24), gradients(plain(DType::F32, 24)));
    let run = |seed| {
        emulator.set_schedule_seed(seed);
        let gpu = Cuda::new(0).expect("a device");
        let out = forward.run(&gpu).unwrap_or_else(|failure| panic!("{failure}"));
        (out, backward.run(&gpu).unwrap_or_else(|failure| panic!("{failure}")))
    };
    let first = run(None);
    assert!([1, 2, 3].into_iter().all(|seed| run(Some(seed)) == first));
}

/// More of the newest behaviours than a search keeps are counted in parts. Products of codes are exact.
#[test]
fn newest_behaviours_are_counted_in_parts() {
    let Some(emulator) = session() else { return };
    let run = |top_k: usize| -> Result<[Vec<u32>; 2]> {
        let (cpu, gpu) = (Cpu::new(), Cuda::new(0)?);
        let codes = |rows: usize| (0..rows).map(|i| (i * 37 % 201) as u8 as i8).collect::<Vec<i8>>();
        let (queries, keys) = (codes(3), codes(9500));
        let (histories, targets) = (Jagged::from_lengths(&[9100, 400])?, Jagged::from_lengths(&[2, 1])?);
        let (op, search) =
            (SimilarityHistogram::new(10).with_top_k(top_k), Search::dot(1).with_scale(1.0 / 8192.0));
        let inputs = SimilarityInputs::new(
            SearchRows::Codes(Host::view(&queries)),
            SearchRows::Codes(Host::view(&keys)),
        );
        let expected = cpu.newest_histogram(&op, &search, &cpu.batch(&histories, &targets)?, inputs)?;
        let (queries, keys) = (gpu.upload(&queries)?, gpu.upload(&keys)?);
        let inputs =
            SimilarityInputs::new(SearchRows::Codes(gpu.view(&queries)), SearchRows::Codes(gpu.view(&keys)));
        let out = gpu.newest_histogram(&op, &search, &gpu.batch(&histories, &targets)?, inputs)?;
        Ok([expected.to_vec(), gpu.download(gpu.view(&out))?])
    };
    for top_k in [4097, 1 << 40] {
        let [expected, out] = run(top_k).expect("valid calls");
        assert_eq!(out, expected, "{top_k}");
        assert_eq!(out.iter().sum::<u32>() as usize, 2 * top_k.min(9100) + top_k.min(400));
    }
    assert_eq!(emulator.take_findings(), []);
}

#[test]
fn wrong_attention_over_selections_is_caught() {
    assert_caught(wrong());
}

#[test]
fn wrong_gradients_of_attention_over_selections_are_caught() {
    assert_caught(wrong_gradients());
}

const SUBTRACTED: (&str, &str) = ("add.rn.f32", "sub.rn.f32");
const LATE: (&str, &str) = ("bar.sync \t0;", "");
const KEPT: (&str, &str) = ("setp.eq.f32", "setp.neu.f32");

pub(super) fn wrong() -> Vec<(Mutant, Check)> {
    let mutant =
        |kernel, fault, edit| everywhere(Mutant { stem: "selected", kernel, fault, edit, everywhere: false });
    let (f32, f16, bf16) = (plain(DType::F32, 24), plain(DType::F16, 33), plain(DType::Bf16, 40));
    let (removed, many) = (removed(), many_kept());
    let twins = [
        (mutant("selected_attention_f32", "weights read too early", LATE), &f32),
        (mutant("selected_attention_f32", "groups and lanes subtracted", SUBTRACTED), &f32),
        (mutant("selected_attention_f32", "weights not divided", ("div.rn.f32", "mul.rn.f32")), &f32),
        (mutant("selected_attention_f32", "the smallest is the maximum", ("max.f32", "min.f32")), &f32),
        (mutant("selected_attention_f32", "what is removed kept", KEPT), &removed),
        (mutant("selected_attention_f32", "groups and lanes of many subtracted", SUBTRACTED), &many),
        (mutant("selected_attention_f16", "weights read too early", LATE), &f16),
        (mutant("selected_attention_bf16", "groups and lanes subtracted", SUBTRACTED), &bf16),
    ];
    let mut twins: Vec<_> = twins.into_iter().map(|(mutant, case)| (mutant, checked(case))).collect();
    let counted = HistogramCase { edges: true, targets: vec![3, 2], ..Default::default() };
    let histograms = [
        mutant("similarity_histogram", "rounded down", ("cvt.rpi.f32.f32", "cvt.rmi.f32.f32")),
        mutant("similarity_histogram", "read too early", LATE),
    ];
    twins.extend(histograms.map(|mutant| (mutant, checked(&counted))));
    twins
}

pub(super) fn wrong_gradients() -> Vec<(Mutant, Check)> {
    let mutant = |kernel, fault, edit| {
        everywhere(Mutant { stem: "selected_backward", kernel, fault, edit, everywhere: false })
    };
    let (f32, f16, bf16) = (gradients(plain(DType::F32, 24)), narrow(DType::F16), narrow(DType::Bf16));
    let removed = gradients(removed());
    let added = ("sub.rn.f32", "add.rn.f32");
    let twins = [
        (mutant("selected_gradients_f32", "weights read too early", LATE), &f32),
        (mutant("selected_gradients_f32", "the mean added", added), &f32),
        (mutant("selected_gradients_f32", "weights not divided", ("div.rn.f32", "mul.rn.f32")), &f32),
        (mutant("selected_gradients_f32", "groups and lanes subtracted", SUBTRACTED), &f32),
        (mutant("selected_gradients_f32", "what is removed kept", KEPT), &removed),
        (mutant("selected_gradients_f16", "weights read too early", LATE), &f16),
        (mutant("selected_gradients_bf16", "the mean added", added), &bf16),
        (mutant("selected_widen_f32", "one number too many", ("setp.ge.u64", "setp.gt.u64")), &f32),
        (mutant("selected_widen_bf16", "bits not shifted", ("shl.b32", "shr.b32")), &bf16),
        (mutant("selected_narrow_bf16", "sums subtracted", SUBTRACTED), &bf16),
        (mutant("selected_gammas", "candidates subtracted", SUBTRACTED), &f32),
        (mutant("selected_gammas", "read too early", LATE), &f32),
        (mutant("selected_similarities", "heads subtracted", SUBTRACTED), &f32),
    ];
    twins.into_iter().map(|(mutant, case)| (mutant, checked(case))).collect()
}
