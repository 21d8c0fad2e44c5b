//! Gradients of SDIM on the emulated CUDA device: every kernel in every mode of the emulator, in any order of blocks and warps,
//! and kernels that are wrong on purpose.

use longseq::*;
use longseq_check::Case;
use longseq_check::data::Data;
use longseq_check::device::assert_check;
use longseq_check::device::cuda::{modes_of, session, set_mode};
use longseq_check::sdim::{SdimBackwardCase, SdimCase};

use super::wrong_kernels::{Check, Mutant, assert_caught, checked, everywhere};

fn gradients(forward: SdimCase) -> SdimBackwardCase {
    SdimBackwardCase { forward, narrow: true, ..Default::default() }
}

fn plain() -> SdimCase {
    SdimCase { histories: vec![700, 0, 40], targets: vec![3, 1, 5], ..Default::default() }
}

/// Tables that cost more than comparing candidates.
fn sparse() -> SdimCase {
    SdimCase { bits: 12, groups: 2, targets: vec![3, 1, 90], ..plain() }
}

/// The same, and every signature is that of every row.
fn equal() -> SdimCase {
    let words = SdimCase { data: Data::Same(1.0), histories: vec![40, 3], targets: vec![3, 700], ..sparse() };
    SdimCase { width: 24, ..words }
}

/// Cases that cover every kernel: each storage type; rows that are hashed as they are gathered, of several widths, and that are
/// not; tables, and none.
fn cases() -> Vec<SdimBackwardCase> {
    let mut cases = Vec::new();
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        for width in [64, 40, 5, 264] {
            let forward = SdimCase { dtype, width, ..plain() };
            cases.push(SdimBackwardCase { hashed: true, ..gradients(forward) });
        }
        let forward = SdimCase { dtype, histories: vec![90], bits: 7, groups: 3, ..plain() };
        cases.push(SdimBackwardCase {
            hashed: true,
            narrow: false,
            ..gradients(SdimCase { targets: vec![4], ..forward })
        });
        cases.push(gradients(SdimCase { dtype, ..plain() }));
        cases.push(gradients(SdimCase { dtype, ..sparse() }));
        cases.push(SdimBackwardCase { hashed: true, ..gradients(SdimCase { dtype, ..equal() }) });
    }
    cases
}

#[test]
fn every_kernel_of_gradients_matches_the_reference_in_every_mode() {
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

/// The gradients have the same bits whatever the order of blocks and warps.
#[test]
fn gradients_are_the_same_in_any_order() {
    let Some(emulator) = session() else { return };
    for forward in
        [SdimCase { histories: vec![3000, 90], targets: vec![2000, 40], width: 16, ..plain() }, sparse()]
    {
        let case = SdimBackwardCase { hashed: true, ..gradients(forward) };
        let run = |seed| {
            emulator.set_schedule_seed(seed);
            let gpu = Cuda::new(0).expect("a device");
            case.run(&gpu).unwrap_or_else(|failure| panic!("{failure}"))
        };
        let first = run(None);
        assert!([1, 2, 3].into_iter().all(|seed| run(Some(seed)) == first));
    }
}

#[test]
fn wrong_gradients_of_sdim_are_caught() {
    assert_caught(wrong());
}

pub(super) fn wrong() -> Vec<(Mutant, Check)> {
    let mutant = |stem, kernel, fault, edit| Mutant { stem, kernel, fault, edit, everywhere: false };
    let backward = |kernel, fault, edit| mutant("sdim_backward", kernel, fault, edit);
    let gather = |fault, edit| mutant("sdim_gather", "sdim_gather_f32", fault, edit);
    let given = gradients(plain());
    let hashed = SdimBackwardCase { hashed: true, ..gradients(SdimCase { width: 64, ..plain() }) };
    let zeros = gradients(SdimCase { data: Data::Zeros, ..plain() });
    let huge = gradients(SdimCase { data: Data::Scaled(1e24), ..plain() });
    let sparse = gradients(sparse());
    let equal = SdimBackwardCase { hashed: true, ..gradients(equal()) };
    let buckets = "sdim_bucket_gradients";
    let twins = [
        (backward(buckets, "rows lengthened", ("rsqrt.approx", "sqrt.approx")), &given),
        (everywhere(backward(buckets, "projections added", ("sub.rn.f32", "add.rn.f32"))), &given),
        (everywhere(backward(buckets, "no floor", ("0f179ABE15", "0f00000000"))), &zeros),
        (everywhere(backward(buckets, "squares overflow", ("0f17800000", "0f3F800000"))), &huge),
        (
            everywhere(backward(buckets, "lanes exchanged one way", ("shfl.sync.bfly", "shfl.sync.down"))),
            &given,
        ),
        (
            everywhere(backward(
                "sdim_target_gradients_f32",
                "projections added",
                ("sub.rn.f32", "add.rn.f32"),
            )),
            &sparse,
        ),
        (
            everywhere(backward("sdim_match_f32", "the largest for the sum", ("add.rn.f32", "max.f32"))),
            &equal,
        ),
        (
            everywhere(backward("sdim_match_f32", "one signature too many", ("setp.ge.u64", "setp.gt.u64"))),
            &equal,
        ),
        (everywhere(gather("rows subtracted", ("add.rn.f32", "sub.rn.f32"))), &given),
        (everywhere(gather("codes read too early", ("bar.sync \t0;", ""))), &hashed),
        (everywhere(gather("a tile read too early", ("cp.async.wait_group", "//"))), &hashed),
    ];
    twins.map(|(mutant, case)| (mutant, checked(case))).into()
}
