//! SDIM on the emulated CUDA device: results in every mode of the emulator, signatures out of range, and the memory traffic
//! of the kernels.

use cuda_emulator::Emulator;
use cuda_emulator::exec::Counts;
use longseq::half::{bf16, f16};
use longseq::*;
use longseq_check::data::{self, Data};
use longseq_check::device::assert_check;
use longseq_check::device::cuda::{modes_of, session, set_mode};
use longseq_check::hashing::{Numbers, check_hashing};
use longseq_check::sdim::{SdimBackwardCase, SdimCase, Weights};

use super::wrong_kernels::{Check, Mutant, assert_caught, checked, everywhere};

/// Cases that cover every kernel: products with one-hot matrices, or, from 7 bits on, a large table.
fn cases() -> Vec<SdimCase> {
    let plain = SdimCase { histories: vec![700, 0, 40], targets: vec![3, 1, 5], ..Default::default() };
    // More candidates, and more groups, than the query kernel hashes by itself.
    let many = SdimCase { histories: vec![4], targets: vec![5000], width: 4, groups: 2, ..plain.clone() };
    let groups =
        SdimCase { histories: vec![3], targets: vec![2], width: 4, groups: 520, bits: 1, ..plain.clone() };
    let large = SdimCase { bits: 7, groups: 2, ..plain.clone() };
    let weighted = SdimCase { weights: Weights::Signed, ..large.clone() };
    let slots = SdimCase { slots: true, ..plain.clone() };
    let large_slots = SdimCase { slots: true, ..large.clone() };
    let mut cases = vec![large, weighted, many, groups, slots, large_slots];
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        cases.push(SdimCase { dtype, ..plain.clone() });
        cases.push(SdimCase { dtype, weights: Weights::Fading, ..plain.clone() });
    }
    cases
}

#[test]
fn results_hold_in_every_mode() {
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

/// Kernels that read given signatures report those out of range, and read nothing outside the table for them.
#[test]
fn signatures_out_of_range_are_reported() {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    for bits in [3, 7] {
        let op = Sdim::new(4).with_groups(2, bits);
        let limit = op.buckets() as u64;
        let error = |operation, position, id| Error::IndexOutOfRange {
            operation,
            argument: "signatures",
            position,
            id,
            bound: limit,
        };
        let run = || -> Result<()> {
            let (good, mut bad) = (vec![1u16; 200], vec![1u16; 200]);
            (bad[150], bad[151]) = (u16::MAX, limit as u16);
            let (good, bad) = (gpu.upload(&good)?, gpu.upload(&bad)?);
            let rows = gpu.upload(&vec![1.0f32; 400])?;
            let jagged = gpu.jagged(&Jagged::from_lengths(&[100])?)?;
            let batch = gpu.batch(&Jagged::from_lengths(&[100])?, &Jagged::from_lengths(&[100])?)?;
            let [good, bad] = [&good, &bad].map(|words| Hash::Signatures16(gpu.view(words)));
            let history = |hash| SdimEncodeInputs::new(gpu.view(&rows), hash);
            let synchronise = || gpu.synchronize().unwrap_err();

            let table = gpu.sdim_encode(&op, &jagged, history(bad))?;
            assert_eq!(synchronise(), error("sdim_encode", 150, u16::MAX.into()));
            let inputs = SdimQueryInputs::<_, f32>::new(gpu.view(&table), bad);
            gpu.sdim_query(&op, &jagged, inputs)?;
            assert_eq!(synchronise(), error("sdim_query", 150, u16::MAX.into()));
            for (past, wished) in [(bad, good), (good, bad)] {
                let inputs = SdimAttendInputs::new(gpu.view(&rows), past, wished);
                gpu.sdim_attend(&op, &batch, inputs)?;
                assert_eq!(synchronise(), error("sdim_attend", 150, u16::MAX.into()));
            }
            gpu.sdim_encode(&op, &jagged, history(good))?;
            gpu.synchronize()
        };
        run().expect("valid calls");
    }
    drop(gpu);
    assert_eq!(emulator.take_findings(), []);
}

/// Rows hashed on tensor cores get the signatures of `sdim_signatures`, in every order of summation: also where a sum is near
/// zero, is zero though its terms are not, or is NaN.
#[test]
fn hashing_while_encoding_gives_the_same_signatures() {
    fn run_all(gpu: &Cuda, op: &Sdim, count: usize, numbers: Numbers) {
        check_hashing::<f32>(gpu, op, count, numbers).unwrap();
        check_hashing::<f16>(gpu, op, count, numbers).unwrap();
        check_hashing::<bf16>(gpu, op, count, numbers).unwrap();
    }
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    let mut index = 0;
    for numbers in Numbers::ALL {
        let many = if matches!(numbers, Numbers::Normal) { 3000 } else { 500 };
        for (op, count) in [
            (Sdim::new(64), many),
            (Sdim::new(5).with_groups(3, 4), 300),
            // Groups split over several blocks; and rows too wide for that.
            (Sdim::new(128).with_groups(20, 3), 100),
            (Sdim::new(40).with_groups(5, 6), 100),
            (Sdim::new(300).with_groups(2, 2), 100),
        ] {
            for mode in modes_of(index) {
                set_mode(&emulator, mode);
                run_all(&gpu, &op, count, numbers);
            }
            index += 1;
        }
    }
}

/// The counts of one kernel, summed over its launches.
fn counts_of(emulator: &Emulator, kernel: &str) -> Counts {
    let mut sum = Counts::default();
    for launch in emulator.counts().iter().filter(|launch| launch.kernel == kernel) {
        sum.add(&launch.counts);
    }
    assert!(sum.blocks > 0, "{kernel} did not run");
    sum
}

/// Rows are read once, in whole sectors, and shared memory with few bank conflicts, at the paper's sizes.
#[test]
fn reads_no_more_than_it_must() {
    fn run<T: Element>(emulator: &Emulator, name: &str) {
        let gpu = Cuda::new(0).expect("a device");
        let (op, rows, candidates) = (Sdim::new(64), 8192, 512);
        let mut rng = data::rng(1);
        let mut upload =
            |count| gpu.upload(&data::rows::<T>(&mut rng, Data::Normal, count, op.width)).expect("memory");
        let (history, targets) = (upload(rows), upload(candidates));
        let rotations = gpu.upload(&op.rotations(1).expect("sizes")).expect("memory");
        let jagged = |rows| gpu.jagged(&Jagged::from_lengths(&[rows]).expect("a length")).expect("memory");
        let hash = Hash::Rotations(gpu.view(&rotations));
        let (histories, candidates) = (jagged(rows), jagged(candidates));
        emulator.take_counts();
        let table = gpu
            .sdim_encode(&op, &histories, SdimEncodeInputs::new(gpu.view(&history), hash))
            .expect("a call");
        let inputs = SdimQueryInputs::new(gpu.view(&table), hash).with_targets(gpu.view(&targets));
        gpu.sdim_query::<T>(&op, &candidates, inputs).expect("a call");
        let mut signatures = gpu.zeros::<u8>(rows * op.groups).expect("memory");
        let out = gpu.view_mut(&mut signatures);
        gpu.sdim_signatures_into(&op, gpu.view(&history), gpu.view(&rotations), out).expect("a call");
        for kernel in ["sdim_encode", "sdim_query", "sdim_signatures"] {
            let counts = counts_of(emulator, &format!("{kernel}_{name}"));
            let sectors = counts.global_sectors as f64 / counts.global_sectors_minimum as f64;
            let conflicts = counts.shared_conflicts as f64 / counts.shared_passes.max(1) as f64;
            let each = counts.total() as f64 / if kernel == "sdim_query" { 512.0 } else { 8192.0 };
            println!("{kernel}_{name}: {each:.0} warp instructions a row");
            assert!(sectors <= 1.05, "{kernel}_{name} asks for {sectors:.3} times the fewest sectors");
            assert!(conflicts < 0.02, "{kernel}_{name}: {conflicts:.4} of the passes are bank conflicts");
        }
    }
    let Some(emulator) = session() else { return };
    // Other tests check the kernels; here their accesses are counted.
    emulator.set_checks(false);
    run::<f32>(&emulator, "f32");
    run::<f16>(&emulator, "f16");
    run::<bf16>(&emulator, "bf16");
}

#[test]
fn wrong_weights_and_changes_of_tables_are_caught() {
    assert_caught(wrong());
}

#[test]
fn tables_of_users_for_those_of_slots_are_caught() {
    assert_caught(wrong_slots());
}

/// Norms of rows of more than 128 numbers, and means over more groups than a warp reads at a time, which are added up in parts: found in
/// any sample.
#[test]
fn wrong_sums_by_parts_are_caught() {
    let three = SdimCase { histories: vec![9, 20, 7], targets: vec![3, 1, 4], ..Default::default() };
    let (wide, many) = (SdimCase { width: 300, ..three.clone() }, SdimCase { groups: 70, ..three });
    let columns = ("add.s32 \t%r589, %r589, 128;", "add.s32 \t%r589, %r589, 1024;");
    let groups = ("add.rn.f32 \t%f1210, %f1210, %f1016;", "sub.rn.f32 \t%f1210, %f1210, %f1016;");
    for (fault, edit, case) in
        [("the first columns alone", columns, &wide), ("other groups subtracted", groups, &many)]
    {
        let (stem, kernel) = ("sdim_query", "sdim_query_f32");
        assert_caught(vec![(Mutant { stem, kernel, fault, edit, everywhere: false }, checked(case))]);
    }
}

/// The user, where it is to be the row of results.
pub(super) fn wrong_slots() -> Vec<(Mutant, Check)> {
    let slots =
        SdimCase { histories: vec![3000, 0, 300], targets: vec![3, 1, 5], slots: true, ..Default::default() };
    let many = SdimCase { bits: 7, groups: 2, ..slots.clone() };
    [
        (
            "sdim_encode",
            "sdim_encode_f32",
            ("ld.global.u64 \t%rd633, [%rd14+8]", "ld.global.u32 \t%rd633, [%rd14+32]"),
            &slots,
        ),
        (
            "sdim_scan",
            "sdim_scatter_f32",
            ("ld.global.u64 \t%rd37, [%rd3+8]", "ld.global.u32 \t%rd37, [%rd3+32]"),
            &many,
        ),
        (
            "sdim",
            "sdim_combine",
            ("ld.global.u64 \t%rd28, [%rd12]", "ld.global.u32 \t%rd28, [%rd12+32]"),
            &slots,
        ),
    ]
    .map(|(stem, kernel, edit, case)| {
        let fault = "the table of the user";
        (Mutant { stem, kernel, fault, edit, everywhere: false }, checked(case))
    })
    .into()
}

pub(super) fn wrong() -> Vec<(Mutant, Check)> {
    let mutant = |stem, kernel, fault, edit| Mutant { stem, kernel, fault, edit, everywhere: false };
    let weigh = |fault, edit| mutant("sdim", "sdim_weigh_f32", fault, edit);
    let decay = |fault, edit| mutant("sdim", "sdim_decay", fault, edit);
    let plain = SdimCase { histories: vec![300, 0, 40], targets: vec![3, 1, 5], ..Default::default() };
    let weighted = SdimCase { weights: Weights::Signed, ..plain.clone() };
    let many = SdimCase { bits: 7, groups: 2, ..plain.clone() };
    let gradients = SdimBackwardCase { forward: weighted.clone(), hashed: true, ..Default::default() };
    let twins = [
        (weigh("weights added", ("mul.rn.f32", "add.rn.f32")), checked(&weighted)),
        (weigh("rows for weights", ("param_0+8]", "param_0]")), checked(&weighted)),
        (weigh("a row too many", ("setp.ge.u64", "setp.gt.u64")), checked(&weighted)),
        (decay("factors added", ("mul.rn.f32", "add.rn.f32")), checked(&plain)),
        (decay("the first user's factor", ("setp.eq.s32", "setp.ne.s32")), checked(&plain)),
        (
            mutant(
                "sdim_encode",
                "sdim_encode_f32",
                "another number for the sign",
                ("param_0+100]", "param_0+96]"),
            ),
            checked(&plain),
        ),
        (
            everywhere(mutant(
                "sdim_scan",
                "sdim_scatter_f32",
                "the sign added",
                ("mul.rn.f32", "add.rn.f32"),
            )),
            checked(&many),
        ),
        // The record of signatures, which there is none of, is read for the address of the weights.
        (
            mutant("sdim_gather", "sdim_gather_f32", "no weights", ("param_0+56]", "param_0+48]")),
            checked(&gradients),
        ),
    ];
    twins.into()
}
