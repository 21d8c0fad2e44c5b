//! CUDA kernels that are wrong on purpose: each is the shipped PTX with one edit, and each must fail the check that the
//! shipped one passes.

#![cfg(feature = "cuda")]

mod support;

use cuda_emulator::Emulator;
use longseq::cudarc::driver::CudaContext;
use longseq::*;
use support::attention::{AttentionCase, MergeCase};
use support::cuda::session;
use support::data::Data;
use support::decoupled::DecoupledCase;
use support::din::DinCase;
use support::lookup::{LookupCase, Pool};
use support::sdim::SdimCase;
use support::{Case, Failure, Rules, check};

/// An edit of a kernel file's PTX.
struct Mutant {
    /// The file's stem.
    stem: &'static str,
    /// The kernel to edit.
    kernel: &'static str,
    /// What is wrong then.
    fault: &'static str,
    /// What stands there, and what comes in its place; the first occurrence in the kernel.
    edit: (&'static str, &'static str),
}

/// The device with an edited kernel.
fn edited(mutant: &Mutant) -> Cuda {
    let (_, text) = cuda::kernels().into_iter().find(|(stem, _)| *stem == mutant.stem).expect("a stem");
    let start = text.find(&format!(".entry {}(", mutant.kernel)).expect("the kernel");
    let (before, kernel) = text.split_at(start);
    let (from, to) = mutant.edit;
    assert!(kernel.contains(from), "{}: there is no {from:?} in {}", mutant.fault, mutant.kernel);
    let text = format!("{before}{}", kernel.replacen(from, to, 1));
    let stream = CudaContext::new(0).expect("a context").new_stream().expect("a stream");
    // SAFETY: the emulator checks every access and ends a launch at the first bad one.
    unsafe { Cuda::from_ptx(stream, [(mutant.stem, text)]) }.expect("a device")
}

/// The case passes with the shipped kernel and fails with the edited one.
#[track_caller]
fn assert_caught<C: Case>(emulator: &Emulator, mutant: &Mutant, case: &C) {
    let rules = Rules::IEEE;
    if let Err(Failure(message)) = check(case, &Cuda::new(0).expect("a device"), rules) {
        panic!("the shipped kernel fails: {message}");
    }
    assert!(check(case, &edited(mutant), rules).is_err(), "{}: passed", mutant.fault);
    emulator.take_findings();
}

#[test]
fn wrong_merges_of_attention_are_caught() {
    let Some(emulator) = session() else { return };
    let mutant = |fault, edit| Mutant { stem: "target_attention", kernel: "merge_pairs_f32", fault, edit };
    let case = MergeCase { seed: 1, rows: 13, value_width: 4 };
    for mutant in [
        mutant("the smaller lse is the peak", ("max.f32", "min.f32")),
        mutant("one thread too many writes", ("setp.ge.u64", "setp.gt.u64")),
    ] {
        assert_caught(&emulator, &mutant, &case);
    }
}

#[test]
fn wrong_target_attention_is_caught() {
    let Some(emulator) = session() else { return };
    let mutant = |stem, kernel, fault, edit| Mutant { stem, kernel, fault, edit };
    let wide = AttentionCase { width: 64, value_width: Some(64), ..Default::default() };
    let many = AttentionCase { histories: vec![1025, 90], targets: vec![32, 9], ..wide.clone() };
    let one = AttentionCase { histories: vec![700, 65], targets: vec![1, 1], ..wide };
    let half = AttentionCase { dtype: DType::Bf16, ..one.clone() };
    let (fma, fma_kernel) = ("target_attention_fma", "split_history_fma_wide_64_rows_32_f32");
    let (mma, mma_kernel) = ("target_attention_mma", "split_history_mma_64_rows_8_bf16");
    let (stream, stream_kernel) = ("target_attention_stream", "stream_history_64_rows_1_f32");
    for (mutant, case) in [
        (
            mutant(
                fma,
                fma_kernel,
                "tiles not waited for",
                ("cp.async.wait_group 0", "cp.async.wait_group 1"),
            ),
            &many,
        ),
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
        (mutant(mma, mma_kernel, "the last step is left out", (", 63;", ", 62;")), &half),
        (mutant(mma, mma_kernel, "keys transposed", ("x4.shared", "x4.trans.shared")), &half),
        (mutant(mma, mma_kernel, "values not transposed", ("x4.trans", "x4")), &half),
        (mutant(mma, mma_kernel, "weights not transposed", ("x2.trans", "x2")), &half),
        (mutant(stream, stream_kernel, "products subtracted", ("add.rn.f32", "sub.rn.f32")), &one),
        (
            mutant(
                "target_attention",
                "merge_parts_f32",
                "parts weighed wrongly",
                ("sub.rn.f32", "add.rn.f32"),
            ),
            &many,
        ),
        (mutant("target_attention", "merge_parts_f32", "parts read too early", ("bar.sync \t0;", "")), &many),
    ] {
        assert_caught(&emulator, &mutant, case);
    }
}

#[test]
fn wrong_sdim_is_caught() {
    let Some(emulator) = session() else { return };
    let mutant = |stem, kernel, fault, edit| Mutant { stem, kernel, fault, edit };
    let plain = SdimCase { histories: vec![3000, 0, 40], targets: vec![3, 1, 5], ..Default::default() };
    let half = SdimCase { dtype: DType::F16, ..plain.clone() };
    let zeros = SdimCase { data: Data::Zeros, ..plain.clone() };
    // More columns, and more bits, than are hashed at once.
    let wide = SdimCase { width: 100, ..plain.clone() };
    let twice = SdimCase { bits: 4, ..plain.clone() };
    let large = SdimCase { bits: 7, groups: 2, ..plain.clone() };
    for (mutant, case) in [
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
        (mutant("sdim_encode", "sdim_encode_f32", "a tile read too early", ("bar.sync \t0;", "")), &plain),
        (mutant("sdim", "sdim_merge", "parts subtracted", ("add.rn.f32", "sub.rn.f32")), &plain),
        (mutant("sdim", "sdim_add", "tables subtracted", ("add.rn.f32", "sub.rn.f32")), &plain),
        (mutant("sdim_scan", "sdim_scatter_f32", "rows subtracted", ("add.rn.f32", "sub.rn.f32")), &large),
        (mutant("sdim_scan", "sdim_sums_f32", "rows subtracted", ("add.rn.f32", "sub.rn.f32")), &plain),
        (mutant("sdim_query", "sdim_query_f32", "overwritten while hashed", ("bar.sync \t0;", "")), &wide),
        (mutant("sdim_query", "sdim_query_f32", "bits turned", ("setp.gt.f32", "setp.lt.f32")), &plain),
        (mutant("sdim_query", "sdim_query_f32", "rows lengthened", ("rsqrt.approx", "sqrt.approx")), &plain),
        (mutant("sdim_query", "sdim_query_f32", "the user before", ("setp.le.u64", "setp.lt.u64")), &plain),
        (
            mutant("sdim_query", "sdim_query_sums_f32", "rows lengthened", ("rsqrt.approx", "sqrt.approx")),
            &plain,
        ),
    ] {
        assert_caught(&emulator, &mutant, case);
    }
}

#[test]
fn wrong_din_is_caught() {
    let Some(emulator) = session() else { return };
    let mutant = |kernel, fault, edit| Mutant { stem: "din", kernel, fault, edit };
    let plain = DinCase { histories: vec![300, 0, 40], targets: vec![3, 1, 9], ..Default::default() };
    let wide = DinCase { width: 64, ..plain.clone() };
    let softmax = DinCase { pooling: DinPooling::Softmax, ..plain.clone() };
    let deep = DinCase { dtype: DType::Bf16, hidden: vec![20, 12], ..plain.clone() };
    // Long enough to be cut.
    let long =
        DinCase { histories: vec![20_000], targets: vec![2], width: 4, hidden: vec![3], ..softmax.clone() };
    for (mutant, case) in [
        (mutant("din_prepare_f32", "a candidate's lanes subtracted", ("add.rn.f32", "sub.rn.f32")), &wide),
        (mutant("din_attend_f32", "numbers cut wrongly", ("sub.rn.f32", "add.rn.f32")), &plain),
        (mutant("din_attend_f32", "warps merge without waiting", ("bar.sync \t0;", "")), &softmax),
        (mutant("din_attend_f32", "rows read before they are there", ("bar.warp.sync", "//")), &plain),
        (mutant("din_attend_bf16", "upper halves swapped with lower", ("30258", "21520")), &deep),
        (mutant("din_attend_bf16", "parts taken for f16", ("f32.bf16.bf16.f32", "f32.f16.f16.f32")), &deep),
        (mutant("din_merge_f32", "logarithms for exponentials", ("ex2.approx", "lg2.approx")), &long),
    ] {
        assert_caught(&emulator, &mutant, case);
    }
}

#[test]
fn wrong_lookups_are_caught() {
    let Some(emulator) = session() else { return };
    let mutant = |kernel, fault, edit| Mutant { stem: "lookup", kernel, fault, edit };
    let each = LookupCase::default();
    let bags = LookupCase { pool: Pool::Mean, bags: vec![3, 1000, 0], ..each.clone() };
    for (mutant, case) in [
        (mutant("lookup_each", "one row too many", ("setp.ge.u64", "setp.gt.u64")), &each),
        (mutant("lookup_merge", "parts subtracted", ("add.rn.f32", "sub.rn.f32")), &bags),
        (mutant("lookup_merge", "multiplied by the length", ("div.rn.f32", "mul.rn.f32")), &bags),
        (mutant("lookup_bags", "multiplied by the length", ("div.rn.f32", "mul.rn.f32")), &bags),
    ] {
        assert_caught(&emulator, &mutant, case);
    }
}

#[test]
fn wrong_decoupled_is_caught() {
    let Some(emulator) = session() else { return };
    let mutant = |stem, kernel, fault, edit| Mutant { stem, kernel, fault, edit };
    let case = DecoupledCase { histories: vec![3000, 40], targets: vec![16, 4], ..Default::default() };
    // More entries than are selected from at once.
    let long = DecoupledCase { histories: vec![12_000], targets: vec![3], top_k: 64, ..case.clone() };
    // More of a history than a list has room for in every piece.
    let longer = DecoupledCase { histories: vec![60_000], targets: vec![16], ..case.clone() };
    let (search, select) = ("decoupled_search", "decoupled_select");
    for (mutant, case) in [
        (mutant(search, select, "counted before all are there", ("bar.sync \t0;", "")), &long),
        (
            mutant(
                search,
                select,
                "entries above the floor not summed",
                ("redux.sync.add", "redux.sync.max"),
            ),
            &long,
        ),
        (mutant(search, select, "entries exchanged one way", ("shfl.sync.bfly", "shfl.sync.down")), &case),
        (
            mutant(
                search,
                "decoupled_search_16",
                "bits below the floor counted",
                ("redux.sync.add", "redux.sync.max"),
            ),
            &longer,
        ),
        (
            mutant(
                search,
                "decoupled_search_16",
                "rows not waited for",
                ("cp.async.wait_group 0", "cp.async.wait_group 1"),
            ),
            &case,
        ),
        (
            mutant(
                "decoupled_attend",
                "decoupled_attend",
                "rows not waited for",
                ("cp.async.wait_group 0", "cp.async.wait_group 1"),
            ),
            &case,
        ),
        (mutant("decoupled", "decoupled_aggregate", "not a mean", ("div.rn.f32", "mul.rn.f32")), &case),
        (
            mutant(
                "decoupled_attend",
                "decoupled_attend",
                "weights multiplied",
                ("div.rn.f32", "mul.rn.f32"),
            ),
            &case,
        ),
        (
            mutant("decoupled_attend", "decoupled_attend_merge", "not a mean", ("div.rn.f32", "mul.rn.f32")),
            &case,
        ),
    ] {
        eprintln!("{}", mutant.fault);
        assert_caught(&emulator, &mutant, case);
    }
}
