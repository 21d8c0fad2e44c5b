//! Signatures of items on the emulated CUDA device: results in every mode of the emulator, what is reported, and kernels that are wrong on
//! purpose.

use longseq::*;
use longseq_check::Failure;
use longseq_check::device::assert_check;
use longseq_check::device::cuda::{modes_of, session, set_mode};
use longseq_check::sdim::{Given, SdimBackwardCase, SdimCase};

use super::wrong_kernels::{Check, Mutant, assert_caught, checked, everywhere};

fn shape(given: Given) -> SdimCase {
    SdimCase { given, histories: vec![300, 0, 40], targets: vec![3, 1, 50], tail: 1, ..Default::default() }
}

/// Signatures of one byte and of two, read by kernels for few buckets and for many.
#[test]
fn results_hold_in_every_mode() {
    let Some(emulator) = session() else { return };
    let gpu = Cuda::new(0).expect("a device");
    let many = SdimCase { bits: 10, groups: 5, ..shape(Given::Items16(30)) };
    let cases = [shape(Given::Items8(20)), SdimCase { groups: 16, ..shape(Given::Items16(1)) }, many];
    for (index, forward) in cases.into_iter().enumerate() {
        for mode in modes_of(index) {
            set_mode(&emulator, mode);
            assert_check(&forward, &gpu);
            let gradients = SdimBackwardCase { forward: forward.clone(), ..Default::default() };
            assert_check(&gradients, &gpu);
        }
    }
    drop(gpu);
    assert_eq!(emulator.take_findings(), []);
    assert!(emulator.take_leaks().is_empty());
}

#[test]
fn wrong_items_are_caught() {
    assert_caught(wrong());
}

pub(super) fn wrong() -> Vec<(Mutant, Check)> {
    let mutant = |fault, edit| {
        let (stem, kernel) = ("sdim_items", "sdim_items");
        everywhere(Mutant { stem, kernel, fault, edit, everywhere: true })
    };
    let bytes = shape(Given::Items8(20));
    let words = shape(Given::Items16(20));
    let all_bits = SdimCase { bits: 8, groups: 3, ..shape(Given::Items8(20)) };
    let reports = || Check::new("reports items and signatures", reports_what_is_outside);
    vec![
        (mutant("signatures for items", ("param_0+8]", "param_0]")), checked(&bytes)),
        (mutant("bytes for words", ("setp.eq.s32", "setp.ne.s32")), checked(&words)),
        (mutant("rows of another length", ("mul.lo.s64", "add.s64")), checked(&words)),
        (mutant("the highest bit is a sign", ("ld.global.u8", "ld.global.s8")), checked(&all_bits)),
        (mutant("one item too many", ("setp.gt.u64", "setp.ge.u64")), reports()),
        (mutant("the last for the first", ("atom.global.min", "atom.global.max")), reports()),
        (mutant("reported in each other's place", ("param_0+24]", "param_0+32]")), reports()),
    ]
}

/// The first id without an item, and the first signature of too many bits among items, are reported.
fn reports_what_is_outside(gpu: &Cuda) -> Result<(), Failure> {
    let op = Sdim::new(4).with_groups(2, 3);
    let candidates = gpu.jagged(&Jagged::from_lengths(&[300])?)?;
    let table = gpu.zeros::<f32>(op.table_length(1)?)?;
    let query = |ids: &[u32], signatures: &[u16]| -> Result<()> {
        let (ids, signatures) = (gpu.upload(ids)?, gpu.upload(signatures)?);
        let hash = Hash::Items16 { signatures: gpu.view(&signatures), ids: gpu.view(&ids) };
        let inputs = SdimQueryInputs::<_, f32>::new(gpu.view(&table), hash);
        gpu.sdim_query(&op, &candidates, inputs)?;
        gpu.synchronize()
    };
    let (mut ids, mut signatures) = (vec![0; 300], vec![1; 6]);
    query(&ids, &signatures)?;
    (ids[100], ids[200]) = (3, 70_000);
    match query(&ids, &signatures) {
        Err(Error::IndexOutOfRange { argument: "ids", position: 100, id: 3, bound: 3, .. }) => {}
        other => return Err(Failure::new(format!("reported {other:?}"))),
    }
    (ids[100], ids[200]) = (2, 1);
    (signatures[3], signatures[5]) = (8, 300);
    match query(&ids, &signatures) {
        Err(Error::IndexOutOfRange { argument: "signatures", position: 3, id: 8, bound: 8, .. }) => Ok(()),
        other => Err(Failure::new(format!("reported {other:?}"))),
    }
}
