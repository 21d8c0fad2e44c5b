//! Gradients of decoupled embeddings on the emulated CUDA device: every kernel in every mode of the emulator, in any order of blocks
//! and warps, and kernels that are wrong on purpose.

use longseq::*;
use longseq_check::data::Ids;
use longseq_check::decoupled::{
    DecoupledBackwardCase, DecoupledCase, Scores, check_overflowing_scores, check_scales_near_the_limits,
    rows_near_the_limits,
};
use longseq_check::device::cuda::{modes_of, session, set_mode};
use longseq_check::device::{TestDevice, assert_check};
use longseq_check::lookup::{Form, Storage};
use longseq_check::{Case, check};

use super::wrong_kernels::{Check, Mutant, assert_caught, checked, everywhere};

fn gradients(forward: DecoupledCase) -> DecoupledBackwardCase {
    DecoupledBackwardCase { forward, ..Default::default() }
}

/// More than a span of behaviours, and more than a tile of candidates.
fn plain() -> DecoupledCase {
    DecoupledCase {
        histories: vec![300, 0, 40],
        targets: vec![3, 1, 20],
        table_rows: vec![200, 5],
        attention_widths: vec![16, 3],
        representation_widths: vec![36, 5],
        top_k: 20,
        multiply_target: true,
        ..Default::default()
    }
}

/// Scores of -∞.
fn removed() -> DecoupledCase {
    DecoupledCase {
        scores: Some(Scores::Some(f32::NEG_INFINITY)),
        held: Some(f32::NAN),
        histories: vec![300, 40],
        targets: vec![2, 20],
        table_rows: vec![301],
        attention_widths: vec![1],
        representation_widths: vec![4],
        ..plain()
    }
}

/// More behaviours than are held at a time.
fn cut() -> DecoupledBackwardCase {
    let forward = DecoupledCase {
        histories: vec![66_000],
        targets: vec![1],
        table_rows: vec![40],
        attention_widths: vec![1],
        representation_widths: vec![2],
        ..plain()
    };
    DecoupledBackwardCase { forms: vec![Form::Sparse, Form::Dense], ..gradients(forward) }
}

#[test]
fn every_kernel_matches_the_reference_in_every_mode() {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    let forms = vec![Form::Dense, Form::None, Form::Sparse];
    let cases = [
        gradients(plain()),
        DecoupledBackwardCase {
            given: false,
            ..gradients(DecoupledCase { multiply_target: false, ..plain() })
        },
        DecoupledBackwardCase { forms, ..gradients(DecoupledCase { storage: Storage::F16, ..plain() }) },
        gradients(DecoupledCase { storage: Storage::Bf16, ids: Ids::Hot, top_k: 70, ..plain() }),
        gradients(removed()),
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

/// The gradients have the same bits whatever the order of blocks and warps.
#[test]
fn gradients_are_the_same_in_any_order() {
    let Some(emulator) = session() else { return };
    let case = gradients(DecoupledCase { ids: Ids::Hot, ..plain() });
    let run = |seed| {
        emulator.set_schedule_seed(seed);
        let gpu = Cuda::new(0).expect("a device");
        case.run(&gpu).unwrap_or_else(|failure| panic!("{failure}"))
    };
    let first = run(None);
    assert!([1, 2, 3].into_iter().all(|seed| run(Some(seed)) == first));
}

#[test]
fn wrong_gradients_of_decoupled_embeddings_are_caught() {
    assert_caught(wrong());
    // Halves of sums that are none are found in any sample.
    assert_caught(halves());
}

/// Halves of the sums of a whole history's rows.
fn halves() -> Vec<(Mutant, Check)> {
    let edit = ("0f3F000000", "0f3F800000");
    let (stem, kernel) = ("decoupled_all_sums", "decoupled_all_candidates");
    let mutant = Mutant { stem, kernel, fault: "not halved", edit, everywhere: true };
    vec![(mutant, checked(&gradients(plain())))]
}

pub(super) fn wrong() -> Vec<(Mutant, Check)> {
    let mutant = |stem, kernel, fault, edit| Mutant { stem, kernel, fault, edit, everywhere: false };
    let kept = |kernel, fault, edit| mutant("decoupled_backward", kernel, fault, edit);
    let pairs = |kernel, fault, edit| mutant("decoupled_all_pairs", kernel, fault, edit);
    let sums = |kernel, fault, edit| everywhere(mutant("decoupled_all_sums", kernel, fault, edit));
    let (plain, removed, cut) = (gradients(plain()), gradients(removed()), cut());
    let subtracted = ("add.rn.f32", "sub.rn.f32");
    let late = ("bar.sync \t0;", "");
    let twins = [
        (kept("decoupled_keep", "weights not divided", ("div.rn.f32", "mul.rn.f32")), &plain),
        (
            everywhere(kept("decoupled_keep", "what is removed kept", ("setp.eq.f32", "setp.ne.f32"))),
            &removed,
        ),
        (everywhere(kept("decoupled_kept_rows", "groups and lanes subtracted", subtracted)), &plain),
        (everywhere(kept("decoupled_kept_rows", "read too early", late)), &plain),
        (kept("decoupled_score_gradients", "the mean added", ("sub.rn.f32", "add.rn.f32")), &plain),
        (everywhere(pairs("decoupled_all_states", "rows read too early", late)), &plain),
        (
            everywhere(pairs("decoupled_all_states", "nothing kept", ("global.or.b32", "global.and.b32"))),
            &plain,
        ),
        (everywhere(pairs("decoupled_merge_states", "spans subtracted", subtracted)), &plain),
        (everywhere(pairs("decoupled_all_pairs", "differences added", ("sub.rn.f32", "add.rn.f32"))), &plain),
        (sums("decoupled_all_behaviours", "candidates subtracted", subtracted), &plain),
        (sums("decoupled_all_candidates", "behaviours subtracted", subtracted), &plain),
        (
            sums("decoupled_all_candidates", "one removed is enough to keep all", ("red.and", "red.or")),
            &removed,
        ),
        (sums("decoupled_merge_sums", "one number too many", ("setp.ge.u32", "setp.gt.u32")), &plain),
        (sums("decoupled_all_ids", "what is removed", ("setp.eq.s32", "setp.ne.s32")), &plain),
        (sums("decoupled_scale", "scales added", ("mul.rn.f32", "add.rn.f32")), &plain),
        (sums("decoupled_add_rows", "chunks subtracted", subtracted), &cut),
        (sums("decoupled_add_rows", "the id before", ("setp.le.u32", "setp.lt.u32")), &cut),
    ];
    let mut twins: Vec<_> = twins.into_iter().map(|(mutant, case)| (mutant, checked(case))).collect();
    let halves = everywhere(kept("decoupled_kept_rows", "not halved", ("0f3F000000", "0f3F800000")));
    let near_the_limits = Check::new("rows near the limits", |gpu: &Cuda| {
        rows_near_the_limits().iter().take(1).try_for_each(|case| check(case, gpu, gpu.rules()))
    });
    twins.push((halves, near_the_limits));
    // Other parameters, which are 0 or nearly so.
    for (kernel, edit) in [
        ("decoupled_keep", ("_param_0+116]", "_param_0+112]")),
        ("decoupled_score_gradients", ("_param_0+56]", "_param_0+60]")),
    ] {
        let scales = Check::new("scales", |gpu: &Cuda| check_scales_near_the_limits(gpu, gpu.rules()));
        twins.push((kept(kernel, "the power of two left out", edit), scales));
    }
    twins.push((
        sums("decoupled_all_behaviours", "one removed is enough to keep all", ("red.and", "red.or")),
        Check::new("scores that overflow", check_overflowing_scores::<Cuda>),
    ));
    twins
}
