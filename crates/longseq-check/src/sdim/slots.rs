//! Tables that are kept in slots, of which a call writes some.

use longseq::prelude::*;
use longseq::*;

use super::{SdimCase, Weights};
use crate::case::{Rules, assert_check};

/// In few buckets and in many, of histories that are split and others, in types that kernels take differently.
pub(super) fn writes_tables_in_slots<B: Backend>(backend: &B, rules: Rules) {
    let plain = SdimCase { slots: true, targets: vec![3, 0, 7, 2], ..Default::default() };
    for (width, groups, bits) in [(64, 16, 3), (5, 2, 7), (20, 3, 6), (33, 1, 1)] {
        for (dtype, weights) in
            [(DType::F32, Weights::None), (DType::F16, Weights::Signed), (DType::Bf16, Weights::None)]
        {
            let histories = vec![9, 300, 0, 1];
            let case = SdimCase { width, groups, bits, dtype, weights, histories, tail: 2, ..plain.clone() };
            assert_check(&case, backend, rules);
        }
    }
    for (width, groups, bits) in [(8, 4, 3), (5, 2, 7), (3, 1, 9)] {
        let histories = vec![700, 0, 4000, 1];
        let case = SdimCase { width, groups, bits, histories, ..plain.clone() };
        assert_check(&case, backend, rules);
        assert_check(&SdimCase { weights: Weights::Fading, shared: true, ..case }, backend, rules);
    }
    assert_check(&SdimCase { histories: vec![], targets: vec![], ..plain }, backend, rules);
}

/// Where the call makes the tables, those of slots that no range names are zeros; so are those of ranges without rows.
pub(super) fn makes_tables_of_all_slots<B: Backend>(backend: &B, _: Rules) {
    for bits in [1, 6, 7] {
        let op = Sdim::new(1).with_groups(1, bits);
        let run = || -> Result<Vec<f32>> {
            let (rows, signatures) = (backend.upload(&[1.0f32, 2.0, 4.0])?, backend.upload(&[0u8, 1, 1])?);
            let inputs =
                SdimEncodeInputs::new(backend.view(&rows), Hash::Signatures8(backend.view(&signatures)));
            let new = Jagged::from_lengths(&[2, 0, 1])?.with_slots(&[4, 3, 1], 6)?;
            let table = backend.sdim_encode(&op, &backend.jagged(&new)?, inputs)?;
            backend.download(backend.view(&table))
        };
        let mut expected = vec![0.0; 6 * op.buckets()];
        (expected[4 * op.buckets()], expected[4 * op.buckets() + 1]) = (1.0, 2.0);
        expected[op.buckets() + 1] = 4.0;
        assert_eq!(run(), Ok(expected));
    }
}

/// Nothing is computed then.
pub(super) fn refuses_slots_that_name_nothing<B: Backend>(backend: &B, _: Rules) {
    let op = Sdim::new(2).with_groups(1, 1);
    let run = || -> Result<Vec<String>> {
        let plain = Jagged::from_lengths(&[1, 1])?;
        let slots = plain.clone().with_slots(&[1, 0], 2)?;
        let users = backend.jagged(&slots)?;
        let (numbers, signatures) = (backend.upload(&[1.0f32; 12])?, backend.upload(&[0u8, 1])?);
        let given = Hash::Signatures8(backend.view(&signatures));
        let first = |count| backend.view(&numbers).slice(0, count);
        let inputs = SdimEncodeInputs::new(first(4)?, given);
        let query = SdimQueryInputs::<_, f32>::new(first(8)?, given);
        let mut out = backend.upload(&[3.0f32; 8])?;
        let ids = backend.upload(&[0u32, 1])?;
        let tables = [Table::new(2, 2, TableData::F32(first(4)?))];
        let lookup = LookupInputs::new(backend.view(&ids), &tables);
        let fewer = backend.jagged(&Jagged::from_lengths(&[1, 1])?.with_slots(&[2, 0], 3)?)?;
        let errors = [
            backend.batch(&slots, &plain).err(),
            backend.batch(&plain, &slots).err(),
            backend.sdim_query_into(&op, &users, query, backend.view_mut(&mut out).slice(0, 4)?).err(),
            backend.sdim_query_backward_into(&op, &users, query, first(4)?, backend.view_mut(&mut out)).err(),
            backend
                .sdim_encode_backward_into(
                    &op,
                    &users,
                    inputs,
                    first(8)?,
                    backend.view_mut(&mut out).slice(0, 4)?,
                )
                .err(),
            backend.lookup(&Lookup::default(), Bags::Sum(&users), lookup).err(),
            backend.lookup(&Lookup::default(), Bags::Mean(&users), lookup).err(),
            backend.sdim_encode_into(&op, &fewer, inputs, backend.view_mut(&mut out)).err(),
            backend.sdim_append(&op, &fewer, inputs, backend.view_mut(&mut out)).err(),
            backend.sdim_remove(&op, &fewer, inputs, backend.view_mut(&mut out)).err(),
        ];
        backend.synchronize()?;
        assert_eq!(backend.download(backend.view(&out))?, [3.0; 8]);
        Ok(errors.into_iter().map(|error| error.expect("an error").to_string()).collect())
    };
    let refused = |call| format!("{call}: expected ranges without slots, got ranges with slots");
    let table =
        |call| format!("{call}: table: expected [B, G, 2^τ, d] = [3, 1, 2, 2], 12 elements, got 8 elements");
    let expected = [
        refused("Batch::new: histories"),
        refused("Batch::new: targets"),
        refused("sdim_query: targets"),
        refused("sdim_query_backward: targets"),
        refused("sdim_encode_backward: histories"),
        refused("lookup: bags"),
        refused("lookup: bags"),
        table("sdim_encode"),
        table("sdim_append"),
        table("sdim_remove"),
    ];
    assert_eq!(run().expect("valid lengths"), expected);
}
