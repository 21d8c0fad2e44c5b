//! Signatures of items: more than a binding holds, and shaders that are wrong on purpose.

use longseq::{Cpu, Error, Hash, Jagged, Result, Sdim, SdimQueryInputs, Wgpu, prelude::*};
use longseq_check::sdim::{Given, SdimCase};

use super::device::device_of_small_bindings;
use super::wrong_shaders::{Twin, twin, twin_of_check};

pub(super) fn twins() -> Vec<Twin> {
    let shape = SdimCase { histories: vec![9, 20, 7], targets: vec![3, 1, 4], ..Default::default() };
    let bytes = SdimCase { given: Given::Items8(5), ..shape.clone() };
    let words = SdimCase { given: Given::Items16(5), groups: 3, ..shape };
    let kernel = "sdim/item_signatures";
    let signature = "sdim_query: signatures[3] is 9, which must be below 8";
    let bad = |gpu: &Wgpu| query(gpu, 8, &[1, 7, 7, 9, 1, 10], &[2, 0, 1, 2]).map(drop);
    vec![
        twin(&bytes, kernel, "ids[params.ids_base + index / params.hash_groups]", "ids[params.ids_base]"),
        twin(&bytes, kernel, "params.ids_base + index", "index"),
        twin(&words, kernel, "params.signatures_base + place", "place"),
        twin(&words, kernel, "* params.hash_groups + g);\n    if", "* params.hash_groups);\n    if"),
        twin_of_check(signature, bad, kernel, "atomicMin(", "atomicMax("),
        twin_of_check(signature, bad, kernel, "item * params.hash_groups + g)", "index)"),
    ]
}

#[test]
fn wrong_items_are_caught() {
    Twin::assert_caught(&twins());
}

/// Tables of two groups of so many buckets, read by the signatures of items. Without normalisation results are exact.
fn query<B: Backend>(backend: &B, buckets: usize, signatures: &[u8], ids: &[u32]) -> Result<Vec<f32>> {
    let op = Sdim::new(2).with_groups(2, buckets.ilog2() as usize).with_normalise(false);
    let numbers: Vec<f32> = (0..op.table_length(1)?).map(|i| i as f32).collect();
    let (table, signatures, ids) =
        (backend.upload(&numbers)?, backend.upload(signatures)?, backend.upload(ids)?);
    let targets = backend.jagged(&Jagged::from_lengths(&[backend.view(&ids).len()])?)?;
    let hash = Hash::Items8 { signatures: backend.view(&signatures), ids: backend.view(&ids) };
    let inputs = SdimQueryInputs::<_, f32>::new(backend.view(&table), hash);
    let out = backend.sdim_query(&op, &targets, inputs)?;
    backend.download(backend.view(&out))
}

/// Signatures are read in windows; what is wrong is found wherever it is, and the first of it reported.
#[test]
fn items_may_be_more_than_a_binding_holds() {
    let Some(gpu) = device_of_small_bindings() else { return };
    let items = 150_000;
    let mut signatures: Vec<u8> = (0..2 * items).map(|i| (i * 7 % 11 % 4) as u8).collect();
    let ids: Vec<u32> = (0..300).map(|i| (i * 7919 % items) as u32).chain([0, items as u32 - 1]).collect();
    let expected = query(&Cpu::new(), 4, &signatures, &ids);
    assert!(expected.as_ref().is_ok_and(|numbers| numbers.iter().any(|x| *x > 0.0)));
    assert_eq!(query(&gpu, 4, &signatures, &ids), expected);
    let outside = |argument, position: usize, id, bound| {
        let position = position as u64;
        Err(Error::IndexOutOfRange { operation: "sdim_query", argument, position, id, bound })
    };
    let last = 2 * items - 1;
    signatures[last] = 7;
    assert_eq!(query(&gpu, 4, &signatures, &ids), outside("signatures", last, 7, 4));
    let place = 2 * ids[13] as usize;
    signatures[place] = 4;
    assert_eq!(query(&gpu, 4, &signatures, &ids), outside("signatures", place, 4, 4));
    assert_eq!(query(&gpu, 4, &signatures[..2 * items - 2], &ids), outside("ids", 301, 149_999, 149_999));
}
