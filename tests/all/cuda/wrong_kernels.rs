//! CUDA kernels that are wrong on purpose: each is the shipped PTX with one edit, and each must fail the check that the
//! shipped one passes.

use std::collections::HashSet;

use cuda_emulator::{Device, Emulator};
use longseq::cudarc::driver::CudaContext;
use longseq::half::f16;
use longseq::*;
use longseq_check::data::Data;
use longseq_check::decoupled::{DecoupledCase, check_scales_near_the_limits};
use longseq_check::device::TestDevice;
use longseq_check::device::cuda::session;
use longseq_check::din::DinCase;
use longseq_check::hashing::{Numbers, check_hashing};
use longseq_check::sdim::SdimCase;
use longseq_check::target_attention::{AttentionCase, Bias, MergeCase};
use longseq_check::{AnyCase, Failure, sample};

/// An edit of a kernel file's PTX.
pub(super) struct Mutant {
    /// The file's stem.
    pub(super) stem: &'static str,
    /// The kernel to edit.
    pub(super) kernel: &'static str,
    /// What is wrong then.
    pub(super) fault: &'static str,
    /// The text to replace, and its replacement.
    pub(super) edit: (&'static str, &'static str),
    /// Replace every occurrence in the kernel, not only the first.
    pub(super) everywhere: bool,
}

/// Mutation: recompute only if *every* thread of the block sees a non-finite sum.
const NOT_FINITE: (&str, &str) = ("bar.red.or", "bar.red.and");

/// Mutation: the last group of copies is not waited for.
const NOT_WAITED: (&str, &str) = ("cp.async.wait_group 0", "cp.async.wait_group 1");

/// Mutation: the lanes of a warp need not meet.
const APART: (&str, &str) = ("bar.warp.sync", "//");

/// The text of a file with an edited kernel.
fn edited_text(mutant: &Mutant) -> String {
    let (_, text) = cuda::kernels().into_iter().find(|(stem, _)| *stem == mutant.stem).expect("a stem");
    let start = text.find(&format!(".entry {}(", mutant.kernel)).expect("the kernel");
    let (before, rest) = text.split_at(start);
    let (kernel, behind) = rest.split_at(rest.find("\n}\n").expect("its end"));
    let (from, to) = mutant.edit;
    assert!(kernel.contains(from), "{}: there is no {from:?} in {}", mutant.fault, mutant.kernel);
    let kernel = if mutant.everywhere { kernel.replace(from, to) } else { kernel.replacen(from, to, 1) };
    format!("{before}{kernel}{behind}")
}

/// The device with an edited kernel.
fn edited(mutant: &Mutant, text: String) -> Cuda {
    let stream = CudaContext::new(0).expect("a context").new_stream().expect("a stream");
    // SAFETY: the emulator checks every access and ends a launch at the first bad one.
    unsafe { Cuda::from_ptx(stream, [(mutant.stem, text)]) }.expect("a device")
}

/// The edit wherever it fits, not only at the first place.
pub(super) fn everywhere(mutant: Mutant) -> Mutant {
    Mutant { everywhere: true, ..mutant }
}

type Run = dyn Fn(&Cuda) -> Result<(), Failure>;

/// A check that the shipped kernel passes and the edited one must fail.
pub(super) struct Check {
    /// What it checks: checks of the same name are the same.
    name: String,
    run: Box<Run>,
}

impl Check {
    pub(super) fn new(name: impl Into<String>, run: impl Fn(&Cuda) -> Result<(), Failure> + 'static) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

pub(super) fn checked<'a, C>(case: &'a C) -> Check
where
    AnyCase: From<&'a C>,
{
    let case = AnyCase::from(case);
    Check::new(format!("{case:?}"), move |gpu| gpu.check_case(&case))
}

#[track_caller]
pub(super) fn assert_caught(twins: Vec<(Mutant, Check)>) {
    if let Some(emulator) = session() {
        assert_caught_in(&emulator, twins);
    }
}

#[track_caller]
pub(super) fn assert_caught_in(emulator: &Emulator, twins: Vec<(Mutant, Check)>) {
    let shipped = Cuda::new(0).expect("a device");
    let mut passed = HashSet::new();
    let mut missed = Vec::new();
    for (index, (mutant, check)) in twins.into_iter().enumerate() {
        // Each edit must fit its kernel; one of each list, and a sample, runs.
        let text = edited_text(&mutant);
        if index > 0 && !sample::has(&(mutant.kernel, mutant.fault)) {
            continue;
        }
        if passed.insert(check.name)
            && let Err(failure) = (check.run)(&shipped)
        {
            panic!("the shipped kernel fails: {failure}");
        }
        if (check.run)(&edited(&mutant, text)).is_ok() {
            missed.push((mutant.kernel, mutant.fault));
        }
        emulator.take_findings();
    }
    assert!(missed.is_empty(), "passed: {missed:?}");
}

#[test]
fn wrong_merges_of_attention_are_caught() {
    assert_caught(merges_of_attention());
}

fn merges_of_attention() -> Vec<(Mutant, Check)> {
    let mutant = |fault, edit| Mutant {
        stem: "target_attention",
        kernel: "merge_pairs_f32",
        fault,
        edit,
        everywhere: false,
    };
    let case = MergeCase::default();
    let mutants = [
        mutant("the smaller lse is the maximum", ("max.f32", "min.f32")),
        mutant("one thread too many writes", ("setp.ge.u64", "setp.gt.u64")),
    ];
    mutants.map(|mutant| (mutant, checked(&case))).into()
}

#[test]
fn wrong_target_attention_is_caught() {
    assert_caught(target_attention());
}

fn target_attention() -> Vec<(Mutant, Check)> {
    let mutant = |stem, kernel, fault, edit| Mutant { stem, kernel, fault, edit, everywhere: false };
    let wide = AttentionCase { width: 64, value_width: Some(64), ..Default::default() };
    let many = AttentionCase { histories: vec![1025, 90], targets: vec![32, 9], ..wide.clone() };
    let one = AttentionCase { histories: vec![700, 65], targets: vec![1, 1], ..wide };
    let half = AttentionCase { histories: vec![250, 65], dtype: DType::Bf16, ..one.clone() };
    // Four steps in a piece, and lanes that have no columns to copy.
    let narrow = AttentionCase { width: 16, value_width: Some(16), ..half.clone() };
    // Keys as values: no block barrier between weights and values.
    let aliased = AttentionCase { value_width: None, ..many.clone() };
    // Padding columns stay finite.
    let removed =
        AttentionCase { value_width: Some(40), bias: Bias::Mask, removed: Some(f32::NAN), ..many.clone() };
    let removed_one = AttentionCase { targets: one.targets.clone(), ..removed.clone() };
    let removed_half = AttentionCase { dtype: DType::Bf16, ..removed_one.clone() };
    let (fma, fma_kernel) = ("target_attention_fma", "split_history_fma_wide_64_rows_32_f32");
    let (mma, mma_kernel) = ("target_attention_mma", "split_history_mma_64_rows_8_bf16");
    let (stream, stream_kernel) = ("target_attention_stream", "stream_history_64_rows_1_f32");
    let twins = [
        (mutant(fma, fma_kernel, "tiles not waited for", NOT_WAITED), &many),
        (mutant(fma, fma_kernel, "a tile read too early", ("bar.sync \t0;", "")), &many),
        (
            mutant(
                mma,
                mma_kernel,
                "tiles not waited for",
                ("cp.async.wait_group 1", "cp.async.wait_group 2"),
            ),
            &half,
        ),
        (mutant(mma, mma_kernel, "a tile read too early", ("bar.sync \t0;", "")), &half),
        (everywhere(mutant(mma, mma_kernel, "lanes apart at a product", APART)), &narrow),
        (mutant(mma, mma_kernel, "the last step is left out", (", 63;", ", 62;")), &half),
        (mutant(mma, mma_kernel, "keys transposed", ("x4.shared", "x4.trans.shared")), &half),
        (mutant(mma, mma_kernel, "values not transposed", ("x4.trans", "x4")), &half),
        (mutant(mma, mma_kernel, "weights not transposed", ("x2.trans", "x2")), &half),
        (Mutant { everywhere: true, ..mutant(fma, fma_kernel, "weights read too early", APART) }, &aliased),
        (mutant(fma, fma_kernel, "removed values not detected", NOT_FINITE), &removed),
        (mutant(mma, mma_kernel, "removed values not detected", NOT_FINITE), &removed_half),
        (mutant(stream, stream_kernel, "removed values not detected", NOT_FINITE), &removed_one),
        (
            mutant(
                stream,
                stream_kernel,
                "products of other lanes",
                ("shfl.sync.bfly.b32", "shfl.sync.down.b32"),
            ),
            &one,
        ),
        (
            mutant(
                "target_attention",
                "combine_pieces_f32",
                "pieces weighed wrongly",
                ("sub.rn.f32", "add.rn.f32"),
            ),
            &many,
        ),
        (
            everywhere(mutant(
                "target_attention",
                "combine_pieces_f32",
                "warps subtracted",
                ("add.rn.f32", "sub.rn.f32"),
            )),
            &many,
        ),
    ];
    twins.map(|(mutant, case)| (mutant, checked(case))).into()
}

#[test]
fn wrong_sdim_is_caught() {
    assert_caught(sdim());
}

fn sdim() -> Vec<(Mutant, Check)> {
    let mutant = |stem, kernel, fault, edit| Mutant { stem, kernel, fault, edit, everywhere: false };
    let plain = SdimCase { histories: vec![3000, 0, 40], targets: vec![3, 1, 5], ..Default::default() };
    let half = SdimCase { dtype: DType::F16, ..plain.clone() };
    let zeros = SdimCase { data: Data::Zeros, ..plain.clone() };
    // More columns, and more bits, than one pass of the hash covers.
    let [wide, twice] = [SdimCase { width: 100, ..plain.clone() }, SdimCase { bits: 4, ..plain.clone() }];
    let large = SdimCase { bits: 7, groups: 2, ..plain.clone() };
    let shared = SdimCase { shared: true, ..plain.clone() };
    let sparse = SdimCase { histories: vec![100, 0, 20], bits: 6, ..plain.clone() };
    let twins = [
        (mutant("sdim", "sdim_signatures_f32", "zero is positive", ("setp.gt.f32", "setp.ge.f32")), &zeros),
        (mutant("sdim", "sdim_signatures_f32", "overwritten while read", ("bar.sync \t0;", "")), &twice),
        (
            mutant("sdim_encode", "sdim_encode_f16", "hot where not equal", ("set.eq.f16x2", "set.ne.f16x2")),
            &half,
        ),
        (
            mutant("sdim_encode", "sdim_encode_f32", "numbers cut wrongly", ("sub.rn.f32", "add.rn.f32")),
            &plain,
        ),
        (mutant("sdim_encode", "sdim_encode_f32", "a tile read too early", ("bar.sync \t0;", "")), &wide),
        (everywhere(mutant("sdim_encode", "sdim_encode_f32", "lanes apart at a product", APART)), &plain),
        (mutant("sdim", "sdim_combine", "parts subtracted", ("add.rn.f32", "sub.rn.f32")), &plain),
        (mutant("sdim", "sdim_add", "tables subtracted", ("add.rn.f32", "sub.rn.f32")), &plain),
        (mutant("sdim_scan", "sdim_scatter_f32", "rows subtracted", ("add.rn.f32", "sub.rn.f32")), &large),
        (mutant("sdim_scan", "sdim_sums_f32", "rows subtracted", ("add.rn.f32", "sub.rn.f32")), &sparse),
        (mutant("sdim_query", "sdim_query_f32", "overwritten while hashed", ("bar.sync \t0;", "")), &wide),
        (mutant("sdim_query", "sdim_query_f32", "bits turned", ("setp.gt.f32", "setp.lt.f32")), &plain),
        (mutant("sdim_query", "sdim_query_f32", "rows lengthened", ("rsqrt.approx", "sqrt.approx")), &plain),
        (mutant("sdim_query", "sdim_query_f32", "the user before", ("setp.le.u64", "setp.lt.u64")), &plain),
        (mutant("sdim_query", "sdim_query_f32", "its own table", ("param_0+56]", "param_0+32]")), &shared),
        (
            mutant("sdim_query", "sdim_query_sums_f32", "rows lengthened", ("rsqrt.approx", "sqrt.approx")),
            &sparse,
        ),
    ];
    let mut twins: Vec<(Mutant, Check)> = twins.map(|(mutant, case)| (mutant, checked(case))).into();
    for (stem, kernel, fault, edit) in [
        ("sdim_encode", "sdim_encode_f16", "sums near zero not taken again", ("0f0DA24260", "0fFF800000")),
        ("sdim_encode", "sdim_encode_f16", "what is no number is positive", ("setp.gt.f32", "setp.gtu.f32")),
        ("sdim", "sdim_signatures_f16", "what is no number is positive", ("setp.gt.f32", "setp.gtu.f32")),
    ] {
        let mutant = Mutant { everywhere: true, ..mutant(stem, kernel, fault, edit) };
        twins.push((mutant, Check::new("same signatures", same_signatures)));
    }
    for (fault, edit) in [
        ("one signature too many", ("setp.ge.u64", "setp.gt.u64")),
        ("none is too large", ("atom.global.min", "atom.global.max")),
        ("half a signature read", ("setp.eq.s32", "setp.ne.s32")),
    ] {
        let check = Check::new("reports a signature", reports_a_signature);
        twins.push((mutant("sdim", "sdim_check", fault, edit), check));
    }
    twins
}

/// Hashing while encoding gives the signatures of `sdim_signatures`, also where sums are near zero or NaN.
fn same_signatures(gpu: &Cuda) -> Result<(), Failure> {
    let op = Sdim::new(16).with_groups(4, 3);
    Numbers::ALL.into_iter().try_for_each(|numbers| check_hashing::<f16>(gpu, &op, 500, numbers))
}

/// The first signature out of range is reported.
fn reports_a_signature(gpu: &Cuda) -> Result<(), Failure> {
    let op = Sdim::new(4).with_groups(2, 3);
    let lengths = Jagged::from_lengths(&[250])?;
    let batch = gpu.batch(&lengths, &lengths)?;
    let mut words = vec![1u16; 500];
    let good = gpu.upload(&words)?;
    (words[150], words[151]) = (256, 8);
    let bad = gpu.upload(&words)?;
    let rows = gpu.upload(&vec![1.0f32; 1000])?;
    let bad = Hash::Signatures16(gpu.view(&bad));
    let inputs = SdimAttendInputs::new(gpu.view(&rows), bad, Hash::Signatures16(gpu.view(&good)));
    gpu.sdim_attend(&op, &batch, inputs)?;
    match gpu.synchronize() {
        Err(Error::IndexOutOfRange { position: 150, id: 256, .. }) => Ok(()),
        other => Err(Failure::new(format!("reported {other:?}"))),
    }
}

#[test]
fn wrong_din_is_caught() {
    assert_caught(din());
}

fn din() -> Vec<(Mutant, Check)> {
    let mutant = |kernel, fault, edit| Mutant { stem: "din", kernel, fault, edit, everywhere: false };
    let plain = DinCase { histories: vec![300, 0, 40], targets: vec![3, 1, 9], ..Default::default() };
    let wide = DinCase { width: 64, ..plain.clone() };
    let softmax = DinCase { pooling: DinPooling::Softmax, ..plain.clone() };
    let deep = DinCase { dtype: DType::Bf16, hidden: vec![20, 12], ..plain.clone() };
    // Long enough to be split.
    let long =
        DinCase { histories: vec![20_000], targets: vec![2], width: 4, hidden: vec![3], ..softmax.clone() };
    let twins = [
        (mutant("din_prepare_f32", "a candidate's lanes subtracted", ("add.rn.f32", "sub.rn.f32")), &wide),
        (mutant("din_attend_f32", "numbers cut wrongly", ("sub.rn.f32", "add.rn.f32")), &plain),
        (mutant("din_attend_f32", "warps merge without waiting", ("bar.sync \t0;", "")), &softmax),
        (everywhere(mutant("din_attend_f32", "rows read before they are there", APART)), &plain),
        (mutant("din_attend_bf16", "upper halves swapped with lower", ("30258", "21520")), &deep),
        (mutant("din_attend_bf16", "parts taken for f16", ("f32.bf16.bf16.f32", "f32.f16.f16.f32")), &deep),
        (
            everywhere(mutant(
                "din_combine_f32",
                "logarithms for exponentials",
                ("ex2.approx", "lg2.approx"),
            )),
            &long,
        ),
    ];
    twins.map(|(mutant, case)| (mutant, checked(case))).into()
}

#[test]
fn wrong_decoupled_is_caught() {
    assert_caught(decoupled());
    // A device with few processors gets long pieces of a history that is not as long.
    let Some(emulator) = session() else { return };
    emulator.set_device(Device { multiprocessors: 8, ..Device::sm_80() });
    assert_caught_in(&emulator, decoupled_in_long_pieces());
}

fn decoupled() -> Vec<(Mutant, Check)> {
    let mutant = |stem, kernel, fault, edit| Mutant { stem, kernel, fault, edit, everywhere: false };
    let case = DecoupledCase { histories: vec![3000, 40], targets: vec![16, 4], ..Default::default() };
    // More entries than one pass of the selection takes.
    let long = DecoupledCase { histories: vec![12_000], targets: vec![3], top_k: 64, ..case.clone() };
    // A K for which a tile has one candidate.
    let many = DecoupledCase { histories: vec![4000], targets: vec![2], top_k: 2000, ..case.clone() };
    let search = "decoupled_search";
    let selection = |fault, edit| mutant("search", "search_select", fault, edit);
    let twins = [
        (selection("counted before all are there", ("bar.sync \t0;", "")), &long),
        (selection("entries above the floor not summed", ("redux.sync.add", "redux.sync.max")), &long),
        (selection("entries exchanged one way", ("shfl.sync.bfly", "shfl.sync.down")), &case),
        (mutant(search, "decoupled_search_16", "rows not waited for", NOT_WAITED), &case),
        (mutant(search, "decoupled_search_1", "rows not waited for", NOT_WAITED), &many),
        (mutant("decoupled_attend", "decoupled_attend", "rows not waited for", NOT_WAITED), &case),
        (
            mutant("lookup", "lookup_check", "ids within the table reported", ("setp.gt.u64", "setp.lt.u64")),
            &case,
        ),
        (mutant("decoupled", "decoupled_aggregate", "not a mean", ("div.rn.f32", "mul.rn.f32")), &case),
        (
            everywhere(mutant(
                "decoupled_attend",
                "decoupled_attend",
                "weights multiplied",
                ("div.rn.f32", "mul.rn.f32"),
            )),
            &case,
        ),
        (
            mutant(
                "decoupled_attend",
                "decoupled_attend_combine",
                "not a mean",
                ("div.rn.f32", "mul.rn.f32"),
            ),
            &case,
        ),
    ];
    let mut twins: Vec<_> = twins.map(|(mutant, case)| (mutant, checked(case))).into();
    let added = mutant(search, "decoupled_search_2", "large scales added", ("mul.rn.f32", "add.rn.f32"));
    let scales = Check::new("scales near the limits", |gpu| check_scales_near_the_limits(gpu, gpu.rules()));
    twins.push((everywhere(added), scales));
    twins
}

/// Longer pieces than a list has slots.
fn decoupled_in_long_pieces() -> Vec<(Mutant, Check)> {
    let case = DecoupledCase { histories: vec![5000], targets: vec![16], ..Default::default() };
    let (stem, kernel, everywhere) = ("decoupled_search", "decoupled_search_16", false);
    let mutant = |fault, edit| Mutant { stem, kernel, fault, edit, everywhere };
    let twins = [
        mutant("bits below the floor counted", ("redux.sync.add", "redux.sync.max")),
        mutant("a list read too early", APART),
    ];
    twins.map(|mutant| (mutant, checked(&case))).into()
}

/// A kernel's name without its variant: storage type, way of loading, sizes.
fn family(kernel: &str) -> String {
    let variant =
        |part: &str| ["f32", "f16", "bf16", "wide", "any"].contains(&part) || part.parse::<u32>().is_ok();
    let parts: Vec<&str> = kernel.split('_').take_while(|part| !variant(part)).collect();
    parts.join("_")
}

#[test]
fn every_kernel_has_a_wrong_twin() {
    let lists = [
        merges_of_attention(),
        target_attention(),
        sdim(),
        din(),
        super::lookup_gradients::wrong_lookups(),
        decoupled(),
        decoupled_in_long_pieces(),
        super::gradients::wrong(),
        super::din_gradients::wrong(),
        super::sdim::wrong(),
        super::sdim::wrong_slots(),
        super::sdim_gradients::wrong(),
        super::sdim_items::wrong(),
        super::lookup_gradients::wrong(),
        super::lookup_gradients::wrong_in_long_pieces(),
        super::decoupled_gradients::wrong(),
        super::search::wrong(),
        super::search::wrong_in_long_pieces(),
        super::selected::wrong(),
        super::selected::wrong_gradients(),
        super::selected_tables::wrong(),
        super::tin::wrong(),
        super::tin::wrong_gradients(),
        super::channels::wrong(),
        super::channels::wrong_gradients(),
    ];
    let twins: Vec<String> = lists.iter().flatten().map(|(mutant, _)| family(mutant.kernel)).collect();
    for (_, text) in cuda::kernels() {
        for entry in text.split(".entry ").skip(1) {
            let kernel = entry.split('(').next().unwrap_or_default();
            assert!(twins.contains(&family(kernel)), "no twin of {kernel} is wrong on purpose");
        }
    }
}
