//! Attention over a selection from tables, and its gradients, on the emulated CUDA device: in every mode of the emulator, in any order of
//! blocks and warps, in several chunks, and with kernels that are wrong on purpose.

use longseq::*;
use longseq_check::Case;
use longseq_check::device::cuda::{modes_of, session, set_mode};
use longseq_check::device::{assert_check, thorough};
use longseq_check::lookup::Storage;

use longseq_check::selected::{
    Choice, KeysFrom, Mix, SelectedCase, SelectedTableBackwardCase, SelectedTableCase,
};
use longseq_check::target_attention::Bias;

use super::wrong_kernels::{Check, Mutant, assert_caught, checked, everywhere};

/// Heads that share keys, rows that do not start at multiples of four numbers, removed behaviours.
fn plain(dtype: DType, keys: KeysFrom) -> SelectedTableCase {
    let forward = SelectedCase {
        dtype,
        width: 11,
        value_width: Some(11),
        histories: vec![60, 0, 40],
        targets: vec![5, 1, 3],
        top_k: 20,
        heads: 4,
        kv_heads: 2,
        bias: Bias::Mask,
        some_removed: true,
        ..Default::default()
    };
    SelectedTableCase { forward, keys, table_rows: vec![20, 7, 9], ..Default::default() }
}

/// One key and one value for all heads.
fn shared(case: SelectedTableCase) -> SelectedTableCase {
    let forward = SelectedCase { kv_heads: 1, ..case.forward };
    SelectedTableCase { forward, ..case }
}

fn gradients(forward: SelectedTableCase) -> SelectedTableBackwardCase {
    SelectedTableBackwardCase { forward, with_grad_lse: true, narrow: true, ..Default::default() }
}

#[test]
fn every_kernel_matches_the_reference_in_every_mode() {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    let cases = [
        plain(DType::F32, KeysFrom::Tables),
        plain(DType::F16, KeysFrom::Rows),
        SelectedTableCase { storage: Storage::Int8, ..plain(DType::Bf16, KeysFrom::Values) },
        shared(plain(DType::Bf16, KeysFrom::Values)),
        shared(plain(DType::F16, KeysFrom::Rows)),
    ];
    for (index, case) in cases.iter().enumerate() {
        for mode in modes_of(index) {
            set_mode(&emulator, mode);
            assert_check(case, &gpu);
            assert_check(&gradients(case.clone()), &gpu);
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
    let forward = plain(DType::F32, KeysFrom::Tables);
    let backward = [gradients(forward.clone()), gradients(shared(forward.clone()))];
    let run = |seed| {
        emulator.set_schedule_seed(seed);
        let gpu = Cuda::new(0).expect("a device");
        let out = forward.run(&gpu).unwrap_or_else(|failure| panic!("{failure}"));
        let gradients =
            backward.each_ref().map(|case| case.run(&gpu).unwrap_or_else(|failure| panic!("{failure}")));
        (out, gradients)
    };
    let first = run(None);
    assert!([1, 2, 3].into_iter().all(|seed| run(Some(seed)) == first));
}

/// More rows than are gathered at a time.
#[test]
fn candidates_are_computed_in_chunks() {
    if session().is_none() || !thorough() {
        return;
    }
    let gpu = Cuda::new(0).expect("a device");
    for keys in [KeysFrom::Tables, KeysFrom::Rows] {
        let forward = SelectedCase {
            width: 64,
            value_width: Some(64),
            histories: vec![9, 2100],
            targets: vec![3, 70],
            top_k: 2048,
            choice: Choice::Oldest,
            bias: Bias::Normal,
            ..Default::default()
        };
        let case = SelectedTableCase { forward, keys, ..Default::default() };
        assert_check(&case, &gpu);
        assert_check(&SelectedTableBackwardCase { forward: case, ..Default::default() }, &gpu);
    }
}

#[test]
fn wrong_attention_over_tables_is_caught() {
    assert_caught(wrong());
}

pub(super) fn wrong() -> Vec<(Mutant, Check)> {
    let mutant = |kernel, fault, edit| {
        everywhere(Mutant { stem: "selected_tables", kernel, fault, edit, everywhere: false })
    };
    let mixed = |keys| {
        let plain = plain(DType::F32, keys);
        let forward = SelectedCase { mix: Mix::All([0.5, 0.3, 1.0]), ..plain.forward };
        SelectedTableCase { forward, ..plain }
    };
    let (tables, values) = (mixed(KeysFrom::Tables), gradients(mixed(KeysFrom::Values)));
    let slots = [
        mutant("selected_slots", "empty slots count", ("0fFF800000", "0f00000000")),
        mutant("selected_slots", "positions inside reported", ("setp.gt.u64", "setp.lt.u64")),
    ];
    let gradients = gradients(tables.clone());
    let rows = [
        mutant("selected_slot_rows", "heads that count left out", ("setp.neu.f32", "setp.eq.f32")),
        mutant("selected_slot_rows", "another column", ("rem.u32", "div.u32")),
    ];
    let of_one = self::gradients(shared(tables.clone()));
    let bags = [
        mutant("selected_slot_bags", "heads that count left out", ("setp.neu.f32", "setp.eq.f32")),
        mutant("selected_slot_bags", "the scale added", ("mul.rn.f32", "add.rn.f32")),
    ];
    let added = mutant("selected_slot_rows", "what values add subtracted", ("add.rn.f32", "sub.rn.f32"));
    let mut twins: Vec<_> = slots.into_iter().map(|mutant| (mutant, checked(&tables))).collect();
    twins.extend(rows.map(|mutant| (mutant, checked(&gradients))));
    twins.extend(bags.map(|mutant| (mutant, checked(&of_one))));
    twins.push((added, checked(&values)));
    twins
}
