//! Gradients of target attention on the emulated CUDA device: every kernel in every mode of the emulator, and kernels that are
//! wrong on purpose.

use longseq::*;
use longseq_check::device::assert_check;
use longseq_check::device::cuda::{modes_of, session, set_mode};
use longseq_check::target_attention::{AttentionBackwardCase, AttentionCase, Bias, MergeBackwardCase};
use longseq_check::{Case, Rules, check, sample};

use super::wrong_kernels::{Check, Mutant, assert_caught, checked, everywhere};

fn gradients(forward: AttentionCase) -> AttentionBackwardCase {
    AttentionBackwardCase { forward, ..Default::default() }
}

/// Cases that cover every kernel: each storage type and width, few and many candidates, split and whole histories.
fn cases() -> Vec<AttentionBackwardCase> {
    let plain = AttentionCase { histories: vec![700, 0, 40], targets: vec![3, 1, 41], ..Default::default() };
    let few = AttentionCase { histories: vec![300], targets: vec![2], ..plain.clone() };
    let mut cases = Vec::new();
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        for (width, value_width) in
            // The last but one is aligned to four numbers, but not to 16 bytes of a 16-bit type.
            [
                (8, Some(24)),
                (64, None),
                (64, Some(40)),
                (128, None),
                (136, Some(200)),
                (60, Some(36)),
                (67, Some(65)),
            ]
        {
            for forward in [&plain, &few] {
                let forward = AttentionCase { dtype, width, value_width, ..forward.clone() };
                cases.push(AttentionBackwardCase { narrow: true, ..gradients(forward) });
            }
        }
        let (heads, kv_heads, bias) = (4, 1, Bias::Mask);
        let masked = AttentionCase { dtype, heads, kv_heads, bias, ..plain.clone() };
        cases.push(AttentionBackwardCase { with_grad_lse: true, ..gradients(masked) });
        cases.push(gradients(AttentionCase { bias: Bias::All(-1000.0), dtype, ..few.clone() }));
        let (targets, histories) = (vec![1, 0, 1], vec![500, 3, 0]);
        let one = AttentionCase { targets, histories, dtype, bias: Bias::Mask, ..plain.clone() };
        cases.push(gradients(AttentionCase { weighting: Weighting::silu(8.0), ..one.clone() }));
        cases.push(gradients(one));
    }
    cases
}

/// As many blocks as fill a device without cutting histories, so that a block takes a history in several steps.
fn in_steps(dtype: DType, candidates: usize) -> AttentionBackwardCase {
    let (histories, targets) = (vec![150; 16], vec![candidates; 16]);
    let (heads, kv_heads, width, value_width) = (16, 16, 64, Some(64));
    gradients(AttentionCase {
        histories,
        targets,
        heads,
        kv_heads,
        width,
        value_width,
        dtype,
        ..Default::default()
    })
}

#[test]
fn every_kernel_matches_the_reference_in_every_mode() {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    for (index, case) in cases().iter().enumerate() {
        for mode in modes_of(index) {
            set_mode(&emulator, mode);
            assert_check(case, &gpu);
        }
    }
    drop(gpu);
    assert_eq!(emulator.take_findings(), []);
    assert!(emulator.take_leaks().is_empty());
}

#[test]
fn a_history_in_several_steps_matches_the_reference() {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    let cases = [in_steps(DType::Bf16, 3), in_steps(DType::F16, 33)];
    for case in cases.into_iter().take(if sample::is_small() { 1 } else { 2 }) {
        assert_check(&case, &gpu);
    }
    assert_eq!(emulator.take_findings(), []);
}

/// The gradients have the same bits whatever the order of blocks and warps.
#[test]
fn gradients_are_the_same_in_any_order() {
    let Some(emulator) = session() else { return };
    let forward = AttentionCase { histories: vec![3000, 90], targets: vec![9, 40], ..Default::default() };
    let case = gradients(AttentionCase { bias: Bias::Normal, ..forward });
    let run = |seed| {
        emulator.set_schedule_seed(seed);
        let gpu = Cuda::new(0).expect("a device");
        case.run(&gpu).unwrap_or_else(|failure| panic!("{failure}"))
    };
    let first = run(None);
    assert!([1, 2, 3].into_iter().all(|seed| run(Some(seed)) == first));
}

#[test]
fn wider_rows_are_refused() {
    if session().is_none() {
        return;
    }
    let gpu = Cuda::new(0).expect("a device");
    let case = gradients(AttentionCase { width: 257, value_width: Some(8), ..Default::default() });
    let failure = case.run(&gpu).expect_err("more than the kernels take");
    let expected = "target_attention_backward: rows of 257 numbers is not supported; supported: rows of up to 256 on Cuda";
    assert_eq!(failure.error().map(ToString::to_string).as_deref(), Some(expected));
}

#[test]
fn wrong_gradients_of_attention_are_caught() {
    assert_caught(wrong());
}

pub(super) fn wrong() -> Vec<(Mutant, Check)> {
    let mutant = |kernel, fault, edit| Mutant {
        stem: "target_attention_backward",
        kernel,
        fault,
        edit,
        everywhere: false,
    };
    let fma = |fault, edit| Mutant {
        stem: "target_attention_backward_fma",
        ..mutant("backward_fma_64_rows_32", fault, edit)
    };
    let wide = AttentionCase { width: 64, value_width: Some(64), ..Default::default() };
    let many = gradients(AttentionCase { histories: vec![1025, 90], targets: vec![33, 9], ..wide });
    let with_bias = gradients(AttentionCase { bias: Bias::Normal, ..many.forward.clone() });
    let removed = AttentionCase { bias: Bias::Mask, removed: Some(f32::NAN), ..many.forward.clone() };
    let removed = AttentionBackwardCase { nan: Some(34), ..gradients(removed) };
    let coarse = gradients(AttentionCase { bias: Bias::All(3e5), ..AttentionCase::default() });
    let one = AttentionCase { targets: vec![1, 1], width: 64, value_width: Some(64), ..many.forward.clone() };
    let one = gradients(one);
    let stream = |fault, edit| Mutant {
        stem: "target_attention_backward_stream",
        ..mutant("backward_stream_64_rows_1", fault, edit)
    };
    let merge = MergeBackwardCase::default();
    let twins = [
        (fma("scores shifted wrongly", ("sub.rn.f32", "add.rn.f32")), &many),
        (everywhere(fma("sums of tiles subtracted", ("add.rn.f32", "sub.rn.f32"))), &many),
        (everywhere(fma("overwritten while read", ("bar.sync \t0;", ""))), &with_bias),
        (everywhere(fma("removed behaviours not detected", ("bar.red.or", "bar.red.and"))), &removed),
        (everywhere(mutant("combine_queries", "spans subtracted", ("add.rn.f32", "sub.rn.f32"))), &many),
        (stream("lanes exchanged one way", ("shfl.sync.bfly", "shfl.sync.down")), &one),
        (everywhere(stream("sums read too early", ("bar.sync \t0;", ""))), &one),
        (mutant("attention_states", "lanes of D subtracted", ("add.rn.f32", "sub.rn.f32")), &many),
        (mutant("attention_states", "multiplied by the sum", ("rcp.approx", "sqrt.approx")), &coarse),
    ];
    let matrix = wrong_on_matrix_units(&many, &removed);
    let mut twins: Vec<(Mutant, Check)> = twins.map(|(mutant, case)| (mutant, checked(case))).into();
    for (fault, edit) in [
        ("the mean added", ("sub.rn.f64", "add.rn.f64")),
        ("one row too many", ("setp.ge.u64", "setp.gt.u64")),
    ] {
        let merge = merge.clone();
        let run = move |gpu: &Cuda| check(&merge, gpu, Rules::CUDA);
        twins.push((mutant("merge_backward", fault, edit), Check::new("merge", run)));
    }
    twins.extend(matrix);
    twins
}

fn wrong_on_matrix_units(
    many: &AttentionBackwardCase,
    removed: &AttentionBackwardCase,
) -> Vec<(Mutant, Check)> {
    let stored = |dtype, case: &AttentionBackwardCase| AttentionBackwardCase {
        forward: AttentionCase { dtype, ..case.forward.clone() },
        ..case.clone()
    };
    let [many, removed] = [many, removed].map(|case| stored(DType::Bf16, case));
    let with_bias = gradients(AttentionCase { bias: Bias::Normal, ..many.forward.clone() });
    let one = AttentionCase { targets: vec![1, 1], dtype: DType::F16, ..many.forward.clone() };
    let one = gradients(one);
    let large =
        AttentionCase { histories: vec![1], targets: vec![2], scale: Some(1e4), ..many.forward.clone() };
    let large = gradients(large);
    let in_steps = in_steps(DType::Bf16, 3);
    let mma = |kernel, fault, edit| Mutant {
        stem: "target_attention_backward_mma",
        kernel,
        fault,
        edit,
        everywhere: true,
    };
    let rows_32 = |fault, edit| mma("backward_mma_64_rows_32_bf16", fault, edit);
    let rows_8 = |fault, edit| mma("backward_mma_64_rows_8_f16", fault, edit);
    let states = Mutant {
        stem: "target_attention_backward",
        ..mma("attention_states", "bf16 read as f16", ("f32.bf16.bf16.f32", "f32.f16.f16.f32"))
    };
    let twins = [
        (rows_32("overwritten while read", ("bar.sync \t0;", "")), &with_bias),
        (rows_32("computed again only where all see NaN", ("bar.red.or", "bar.red.and")), &removed),
        (rows_32("rests left out", (", -8192;", ", -1;")), &many),
        (rows_32("rows not transposed", ("x4.trans.shared", "x4.shared")), &many),
        (
            mma(
                "backward_mma_64_rows_8_bf16",
                "history not waited for",
                ("cp.async.wait_group 0", "cp.async.wait_group 1"),
            ),
            &in_steps,
        ),
        (rows_8("overwritten while read", ("bar.sync \t0;", "")), &one),
        (rows_8("rests left out", (", -8192;", ", -1;")), &one),
        (
            Mutant { everywhere: false, ..rows_8("scores shifted wrongly", ("sub.rn.f32", "add.rn.f32")) },
            &one,
        ),
        (states, &large),
    ];
    twins.map(|(mutant, case)| (mutant, checked(case))).into()
}
