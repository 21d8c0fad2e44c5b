//! Rows near the limits of `f32`, NaN in tables, and sums of many equal rows.

use longseq::prelude::*;
use longseq::*;

use super::SdimCase;
use crate::case::{Rules, assert_check};
use crate::compare::{Bound, U, compare, roundings};
use crate::data::Data;

/// The length of a row is right wherever the row is in range, though its square is not.
pub(super) fn normalises_rows_near_the_limits<B: Backend>(backend: &B, rules: Rules) {
    for data in [1e-20, 1e-13, 1e13, 1e19, 1e25, 1e36].map(Data::Flat) {
        for (width, targets) in [(16, vec![1, 1, 1]), (20, vec![4, 2, 18]), (3, vec![2, 1, 300])] {
            for normalise in [true, false] {
                let histories = vec![70, 0, 30];
                let case = SdimCase {
                    data,
                    width,
                    normalise,
                    histories,
                    targets: targets.clone(),
                    ..Default::default()
                };
                assert_check(&case, backend, rules);
            }
        }
    }
}

/// A row of a table gives what it holds: NaN and infinity too, and the largest numbers.
pub(super) fn queries_tables_that_hold_anything<B: Backend>(backend: &B, rules: Rules) {
    const LARGEST: f32 = f32::MAX;
    let tables: [(&str, [f32; 3]); 6] = [
        ("largest", [LARGEST; 3]),
        ("largest and none", [LARGEST, 0.0, -LARGEST]),
        ("largest and small", [LARGEST, 1.0, 1e-30]),
        ("NaN", [1.0, f32::NAN, 2.0]),
        ("infinite", [1.0, f32::INFINITY, 2.0]),
        ("short", [1e-13, -1e-14, 0.0]),
    ];
    for (name, row) in tables {
        for (groups, normalise) in [(1, true), (3, true), (1, false), (3, false)] {
            // Bucket 1 of the first group holds the row, the others ones.
            let op = Sdim::new(3).with_groups(groups, 1).with_normalise(normalise);
            let mut table = vec![1.0f32; op.table_length(2).expect("a small table")];
            table[3..6].copy_from_slice(&row);
            if name.starts_with("largest") {
                table.chunks_mut(6).for_each(|group| group[3..].copy_from_slice(&row));
            }
            let signatures: Vec<u8> =
                [[1; 3], [0; 3], [1; 3]].iter().flat_map(|s| &s[..groups]).copied().collect();
            let targets = Jagged::from_lengths(&[2, 1]).expect("small lengths");
            let run = || -> Result<Vec<f32>> {
                let (table, signatures) = (backend.upload(&table)?, backend.upload(&signatures)?);
                let hash = Hash::Signatures8(backend.view(&signatures));
                let query = SdimQueryInputs::new(backend.view(&table), hash);
                let out = backend.sdim_query::<f32>(&op, &backend.jagged(&targets)?, query)?;
                backend.download(backend.view(&out))
            };
            let hash = Hash::Signatures8(Host::view(&signatures));
            let query = SdimQueryInputs::new(Host::view(&table), hash);
            let exact = reference::sdim_query::<f32>(&op, &targets, &query).expect("a valid call");
            let absolute =
                exact.iter().map(|x| 32.0 * U * if x.is_finite() { x.abs().max(1.0) } else { 0.0 });
            let bound = Bound::of_each(absolute.collect(), false);
            compare(name, &run().expect("a valid call"), &exact, &bound, rules)
                .unwrap_or_else(|failure| panic!("{groups} groups, normalise {normalise}: {failure}"));
        }
    }
}

/// Rounding errors do not grow with the number of equal rows, in few buckets and in many.
pub(super) fn adds_up_equal_rows<B: Backend>(backend: &B, rules: Rules) {
    let length = if rules.slow { 20_000 } else { 1_000_000 };
    for (groups, bits, length, width) in [(1, 1, length, 1), (2, 12, length / 10, 17), (1, 3, 7000, 16)] {
        let op = Sdim::new(width).with_groups(groups, bits).with_normalise(false);
        // A candidate reads the only bucket that is not empty.
        let row: Vec<f32> = (0..width).map(|i| 0.1 + i as f32).collect();
        let signature = vec![1u16; groups];
        let run = || -> Result<[Vec<f32>; 3]> {
            let rows = backend.upload(&row.repeat(length))?;
            let (hashes, target) = (backend.upload(&signature.repeat(length))?, backend.upload(&signature)?);
            let (hashes, target) =
                ([&hashes, &target]).map(|hash| Hash::Signatures16(backend.view(hash))).into();
            let (histories, one) = (Jagged::from_lengths(&[length])?, Jagged::from_lengths(&[1])?);
            let inputs = SdimEncodeInputs::new(backend.view(&rows), hashes);
            let table = backend.sdim_encode(&op, &backend.jagged(&histories)?, inputs)?;
            let query = SdimQueryInputs::new(backend.view(&table), target);
            let queried = backend.sdim_query::<f32>(&op, &backend.jagged(&one)?, query)?;
            let inputs = SdimAttendInputs::new(backend.view(&rows), hashes, target);
            let attended = backend.sdim_attend(&op, &backend.batch(&histories, &one)?, inputs)?;
            Ok([
                backend.download(backend.view(&table))?[width..2 * width].to_vec(),
                backend.download(backend.view(&queried))?,
                backend.download(backend.view(&attended))?,
            ])
        };
        let exact: Vec<f64> = row.iter().map(|&x| f64::from(x) * length as f64).collect();
        let absolute = exact.iter().map(|x| (roundings(length) + 8.0) * U * x).collect();
        let bound = Bound::of_each(absolute, false);
        for (name, got) in ["table", "query", "attend"].into_iter().zip(run().expect("valid calls")) {
            compare(&format!("{name} of {length} equal rows"), &got, &exact, &bound, rules).unwrap();
        }
    }
}
