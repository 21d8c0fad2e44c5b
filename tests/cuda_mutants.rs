//! CUDA kernels that are wrong on purpose: each is the shipped PTX with one edit, and each must fail the check that the
//! shipped one passes.

#![cfg(feature = "cuda")]

mod support;

use cuda_emulator::Emulator;
use longseq::cudarc::driver::CudaContext;
use longseq::*;
use support::attention::MergeCase;
use support::cuda::session;
use support::data::Data;
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
fn wrong_sdim_is_caught() {
    let Some(emulator) = session() else { return };
    let mutant = |stem, kernel, fault, edit| Mutant { stem, kernel, fault, edit };
    let plain = SdimCase { histories: vec![3000, 0, 40], targets: vec![3, 1, 5], ..Default::default() };
    let half = SdimCase { dtype: DType::F16, ..plain.clone() };
    let zeros = SdimCase { data: Data::Zeros, ..plain.clone() };
    // More bits than are hashed at once.
    let twice = SdimCase { bits: 4, ..plain.clone() };
    let large = SdimCase { bits: 7, groups: 2, ..plain.clone() };
    for (mutant, case) in [
        (mutant("sdim", "sdim_signatures_f32", "zero is positive", ("setp.gt.f32", "setp.ge.f32")), &zeros),
        (mutant("sdim", "sdim_signatures_f32", "overwritten while read", ("bar.sync \t0;", "")), &twice),
        (mutant("sdim", "sdim_encode_f16", "hot where not equal", ("set.eq.f16x2", "set.ne.f16x2")), &half),
        (mutant("sdim", "sdim_encode_f32", "numbers cut wrongly", ("sub.rn.f32", "add.rn.f32")), &plain),
        (mutant("sdim", "sdim_encode_f32", "a tile read too early", ("bar.sync \t0;", "")), &plain),
        (mutant("sdim", "sdim_merge", "parts subtracted", ("add.rn.f32", "sub.rn.f32")), &plain),
        (mutant("sdim", "sdim_add", "tables subtracted", ("add.rn.f32", "sub.rn.f32")), &plain),
        (mutant("sdim_scan", "sdim_scatter_f32", "rows subtracted", ("add.rn.f32", "sub.rn.f32")), &large),
        (mutant("sdim_scan", "sdim_sums_f32", "rows subtracted", ("add.rn.f32", "sub.rn.f32")), &plain),
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
