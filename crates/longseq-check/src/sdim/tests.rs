//! SDIM on every backend: published results, a grid of cases, random cases, and faults that must be caught.

use longseq::half::{bf16, f16};
use longseq::*;
use proptest::prelude::*;

use super::exact::{hashes_whole_numbers_exactly, wrong_bits_are_caught};
use super::extremes::*;
use super::forgetting::*;
use super::items::*;
use super::items_errors::*;
use super::slots::*;
use super::{SdimCase, Weights};
use crate::case::{Rules, assert_check, check};
use crate::compare::{compare, compare_exact};
use crate::data::{self, Data};
use crate::device::cpu;
use crate::golden::{self, Golden};
use crate::mutant::{Fault, Mutant};
use crate::named::assert_small_cases;
use crate::registry::list_tests;

list_tests!("sdim":
    matches_fuxictr,
    matches_fuxictr_simhash_of_eta,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_sizes,
    matches_reference_without_normalisation,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_on_a_long_history,
    matches_reference_on_long_histories_in_many_buckets,
    matches_reference_on_random_batches,
    matches_reference_with_weights,
    forgets_the_oldest_behaviours,
    decays_as_weights_do,
    multiplies_numbers_that_are_not_finite,
    refuses_weights_and_factors_that_do_not_fit,
    reads_tables_that_requests_share,
    finds_users_without_a_table,
    writes_tables_in_slots,
    makes_tables_of_all_slots,
    refuses_slots_that_name_nothing,
    matches_reference_with_signatures_of_items,
    finds_items_that_are_not_there,
    finds_signatures_outside_of_items,
    refuses_items_that_do_not_fit,
    ignores_rows_that_belong_to_nobody,
    hashes_exact_zeros_to_zero,
    hashes_whole_numbers_exactly,
    adds_tables_of_two_halves,
    matches_reference_on_the_small_named_cases,
    keeps_numbers_that_are_not_finite_in_their_bucket,
    normalises_rows_near_the_limits,
    queries_tables_that_hold_anything,
    adds_up_equal_rows,
);

fn matches_fuxictr<B: Backend>(backend: &B, rules: Rules) {
    for name in ["sdim_g16_t3_l2", "sdim_g16_t3_sum", "sdim_g2_t4_l2", "sdim_g5_t1_l2", "sdim_g8_t8_l2"] {
        let golden = Golden::load(name);
        let op = Sdim::new(golden.shape("history")[1])
            .with_groups(golden.number("groups"), golden.number("tau"))
            .with_normalise(golden.flag("l2"));
        let histories = golden.jagged("offsets", "history");
        let target_offsets = golden.jagged("target_offsets", "targets");
        let run = || -> Result<()> {
            let upload = |name: &str| backend.upload(&golden.f32(name));
            let (rotations, history, targets) =
                (upload("rotations")?, upload("history")?, upload("targets")?);
            for (rows, expected) in [(&history, "signature_history"), (&targets, "signature_targets")] {
                let expected: Vec<u8> =
                    golden.u32(expected).iter().map(|&signature| signature as u8).collect();
                let mut signatures = backend.zeros::<u8>(expected.len())?;
                let out = backend.view_mut(&mut signatures);
                backend.sdim_signatures_into(&op, backend.view(rows), backend.view(&rotations), out)?;
                let signatures = backend.download(backend.view(&signatures))?;
                compare_exact("signatures", &signatures, &expected).unwrap();
            }
            let hash = Hash::Rotations(backend.view(&rotations));
            let history = SdimEncodeInputs::new(backend.view(&history), hash);
            let table = backend.sdim_encode(&op, &backend.jagged(&histories)?, history)?;
            let targets = backend.view(&targets);
            let query = SdimQueryInputs::new(backend.view(&table), hash).with_targets(targets);
            let out = backend.sdim_query::<f32>(&op, &backend.jagged(&target_offsets)?, query)?;
            let expected = golden.f64("out");
            let bound = golden::bound(&expected);
            compare("query", &backend.download(backend.view(&out))?, &expected, &bound, rules).unwrap();
            let batch = backend.batch(&histories, &target_offsets)?;
            let out = backend.sdim_attend(
                &op,
                &batch,
                SdimAttendInputs::new(history.history, hash, hash).with_targets(targets),
            )?;
            compare("attend", &backend.download(backend.view(&out))?, &expected, &bound, rules).unwrap();
            Ok(())
        };
        run().expect("valid calls");
    }
}

/// ETA's SimHash is SDIM's with one bit per hash function; its search counts differing bits.
fn matches_fuxictr_simhash_of_eta<B: Backend>(backend: &B, _rules: Rules) {
    let golden = Golden::load("eta_b32_k10");
    let (bits, k, missing) = (golden.number("bits"), golden.number("k"), golden.number("missing"));
    let width = golden.shape("history")[1];
    let op = Sdim::new(width).with_groups(bits / 8, 8);
    let hash = |rows: &str| -> Result<Vec<u32>> {
        let rows = backend.upload(&golden.f32(rows))?;
        let rotations = backend.upload(&golden.f32("rotations"))?;
        let mut words =
            backend.zeros::<u8>(rows_of(&golden, width, backend.view(&rows).len()) * op.groups)?;
        let out = backend.view_mut(&mut words);
        backend.sdim_signatures_into(&op, backend.view(&rows), backend.view(&rotations), out)?;
        Ok(bytemuck::pod_collect_to_vec(&backend.download(backend.view(&words))?))
    };
    let (history, targets) = (hash("history").expect("valid calls"), hash("targets").expect("valid calls"));
    let batch = Batch::new(golden.jagged("offsets", "history"), golden.jagged("target_offsets", "targets"))
        .expect("a batch");
    let mut nearest = Vec::new();
    for (history_rows, target_rows) in batch.requests() {
        for m in target_rows {
            let mut distances: Vec<u32> =
                history[history_rows.clone()].iter().map(|code| (code ^ targets[m]).count_ones()).collect();
            distances.sort_unstable();
            distances.resize(k.max(distances.len()), missing as u32);
            nearest.extend_from_slice(&distances[..k]);
        }
    }
    let expected: Vec<u32> = golden.f32("top_distances").iter().map(|&distance| distance as u32).collect();
    compare_exact("distances", &nearest, &expected).unwrap();
}

fn rows_of(golden: &Golden, width: usize, length: usize) -> usize {
    assert_eq!(golden.shape("rotations")[0], width);
    length / width
}

fn matches_reference_on_odd_lengths<B: Backend>(backend: &B, rules: Rules) {
    let histories = vec![0, 1, 2, 31, 32, 33, 64, 255, 256, 257, 0];
    let targets = vec![3, 1, 0, 5, 16, 17, 1, 2, 33, 1, 0];
    assert_check(&SdimCase { histories, targets, ..Default::default() }, backend, rules);
    assert_check(&SdimCase { histories: vec![], targets: vec![], ..Default::default() }, backend, rules);
}

fn matches_reference_on_odd_sizes<B: Backend>(backend: &B, rules: Rules) {
    for (width, groups, bits) in [
        (1, 1, 1),
        (3, 2, 2),
        (33, 5, 4),
        (64, 16, 3),
        (20, 3, 8),
        (7, 1, 9),
        (16, 2, 12),
        (8, 1, 16),
        (256, 2, 3),
    ] {
        let (histories, targets) = (vec![70, 3], vec![4, 18]);
        assert_check(
            &SdimCase { width, groups, bits, histories, targets, ..Default::default() },
            backend,
            rules,
        );
    }
}

fn matches_reference_without_normalisation<B: Backend>(backend: &B, rules: Rules) {
    let (histories, targets) = (vec![70, 0, 300], vec![4, 2, 18]);
    assert_check(&SdimCase { normalise: false, histories, targets, ..Default::default() }, backend, rules);
}

fn matches_reference_on_narrow_storage<B: Backend>(backend: &B, rules: Rules) {
    for dtype in [DType::F16, DType::Bf16] {
        for width in [64, 5] {
            let (histories, targets) = (vec![300, 0, 17], vec![5, 2, 20]);
            assert_check(
                &SdimCase { dtype, width, histories, targets, ..Default::default() },
                backend,
                rules,
            );
        }
    }
}

fn matches_reference_on_unusual_numbers<B: Backend>(backend: &B, rules: Rules) {
    for data in [Data::Large, Data::Equal, Data::Zeros] {
        let (histories, targets) = (vec![90, 2], vec![3, 4]);
        assert_check(&SdimCase { data, histories, targets, ..Default::default() }, backend, rules);
    }
}

fn matches_reference_on_a_long_history<B: Backend>(backend: &B, rules: Rules) {
    let long = if rules.shortened() { 20_000 } else { 100_000 };
    let (histories, targets) = (vec![20, long, 0, 5], vec![2, 2, 1, 3]);
    assert_check(&SdimCase { width: 8, histories, targets, ..Default::default() }, backend, rules);
}

/// Tables larger than a processor's cache, of histories that are split nevertheless.
fn matches_reference_on_long_histories_in_many_buckets<B: Backend>(backend: &B, rules: Rules) {
    for (bits, groups, width) in [(6, 3, 20), (9, 2, 5)] {
        let (histories, targets) = (vec![5000, 3, 0, 2500], vec![2, 2, 1, 3]);
        let case = SdimCase { bits, groups, width, histories, targets, tail: 1, ..Default::default() };
        assert_check(&case, backend, rules);
    }
}

prop_compose! {
    /// Any batch whose sizes a test has time for.
    fn any_case()(
        seed in any::<u64>(),
        dtype in prop::sample::select(vec![DType::F32, DType::F16, DType::Bf16]),
        requests in prop::collection::vec((0usize..120, 0usize..20), 0..6),
        tail in 0usize..3,
        width in 1usize..70,
        groups in 1usize..10,
        bits in 1usize..11,
        (normalise, shared, slots) in any::<(bool, bool, bool)>(),
        weights in prop::sample::select(vec![Weights::None, Weights::Fading, Weights::Signed]),
        items in 0usize..40,
    ) -> SdimCase {
        let (histories, targets) = requests.into_iter().unzip();
        let data = Data::Normal;
        let sizes = SdimCase { histories, targets, tail, width, groups, bits, ..Default::default() };
        let given = match items {
            0..20 => Given::Rows,
            _ if bits <= 8 && items < 30 => Given::Items8(items),
            _ => Given::Items16(items),
        };
        SdimCase { seed, dtype, data, normalise, shared, weights, slots, given, ..sizes }
    }
}

fn matches_reference_on_random_batches<B: Backend>(backend: &B, rules: Rules) {
    proptest!(data::random_cases(48), |(case in any_case())| {
        check(&case, backend, rules).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    });
}

fn reads_tables_that_requests_share<B: Backend>(backend: &B, rules: Rules) {
    for (dtype, width, groups) in [(DType::F32, 16, 4), (DType::F16, 33, 2), (DType::Bf16, 64, 16)] {
        let (histories, targets) = (vec![9, 20, 0, 300, 7], vec![3, 0, 70, 1, 4]);
        let case = SdimCase { dtype, width, groups, histories, targets, shared: true, ..Default::default() };
        assert_check(&case, backend, rules);
    }
}

/// At each place, and also where the request has no candidates.
fn finds_users_without_a_table<B: Backend>(backend: &B, _: Rules) {
    // Without normalisation, whose square roots some devices only approximate.
    let op = Sdim::new(1).with_groups(1, 1).with_normalise(false);
    let query = |users: &[u32], candidates: &[usize]| -> Result<Vec<f32>> {
        let table = backend.upload(&[1.0f32, 2.0, -3.0, 4.0])?;
        let targets = backend.jagged(&Jagged::from_lengths(candidates)?)?;
        let codes = backend.upload(&vec![0u8; candidates.iter().sum()])?;
        let users = backend.upload(users)?;
        let inputs =
            SdimQueryInputs::<_, f32>::new(backend.view(&table), Hash::Signatures8(backend.view(&codes)))
                .with_users(backend.view(&users));
        let out = backend.sdim_query(&op, &targets, inputs)?;
        backend.download(backend.view(&out))
    };
    assert_eq!(query(&[1, 0, 1], &[1, 2, 1]), Ok(vec![-3.0, 1.0, 1.0, -3.0]));
    for candidates in [[1, 2, 1], [1, 0, 1]] {
        for place in 0..3 {
            let mut users = [1, 0, 1];
            users[place] = 2;
            let place = place as u64;
            match query(&users, &candidates) {
                Err(Error::IndexOutOfRange { argument: "users", position, id: 2, bound: 2, .. })
                    if position == place => {}
                other => panic!("{place} of {candidates:?}: {other:?}"),
            }
        }
    }
    assert!(matches!(query(&[1, 0], &[1, 2, 1]), Err(Error::Shape { argument: "users", .. })));
}

fn ignores_rows_that_belong_to_nobody<B: Backend>(backend: &B, rules: Rules) {
    let (histories, targets) = (vec![40, 9], vec![3, 20]);
    assert_check(&SdimCase { tail: 5, histories, targets, ..Default::default() }, backend, rules);
}

fn hashes_exact_zeros_to_zero<B: Backend>(backend: &B, _rules: Rules) {
    let op = Sdim::new(2).with_groups(1, 1);
    let run = || -> Result<Vec<u8>> {
        let rows = backend.upload(&[1.0f32, 1.0, 0.0, 0.0, 2.0, 1.0, -0.0, 0.0])?;
        let rotations = backend.upload(&[1.0f32, -1.0])?;
        let mut out = backend.zeros::<u8>(4)?;
        let view = backend.view_mut(&mut out);
        backend.sdim_signatures_into(&op, backend.view(&rows), backend.view(&rotations), view)?;
        backend.download(backend.view(&out))
    };
    assert_eq!(run().expect("valid calls"), [0, 0, 1, 0]);
}

/// A table built in two steps, by append or by addition, is the table of the whole history.
fn adds_tables_of_two_halves<B: Backend>(backend: &B, rules: Rules) {
    let (op, rows) = (Sdim::new(8), 90);
    let history: Vec<f32> = data::rows(&mut data::rng(3), Data::Normal, rows, op.width);
    let run = || -> Result<[Vec<f32>; 3]> {
        let rotations = backend.upload(&op.rotations(1)?)?;
        let hash = Hash::Rotations(backend.view(&rotations));
        let all = backend.upload(&history)?;
        let jagged = |rows: usize| backend.jagged(&Jagged::from_lengths(&[rows])?);
        let encode = |from: usize, to: usize| {
            let rows = backend.view(&all).slice(from * op.width, (to - from) * op.width)?;
            backend.sdim_encode(&op, &jagged(to - from)?, SdimEncodeInputs::new(rows, hash))
        };
        let (whole, first, second) = (encode(0, rows)?, encode(0, 40)?, encode(40, rows)?);
        let mut added = backend.upload(&backend.download(backend.view(&first))?)?;
        backend.sdim_add_tables(&op, backend.view_mut(&mut added), backend.view(&second))?;
        let mut appended = first;
        let new = backend.view(&all).slice(40 * op.width, (rows - 40) * op.width)?;
        let new = SdimEncodeInputs::new(new, hash);
        backend.sdim_append(&op, &jagged(rows - 40)?, new, backend.view_mut(&mut appended))?;
        Ok([
            backend.download(backend.view(&whole))?,
            backend.download(backend.view(&added))?,
            backend.download(backend.view(&appended))?,
        ])
    };
    let [whole, added, appended] = run().expect("valid calls");
    let whole: Vec<f64> = whole.into_iter().map(f64::from).collect();
    compare("added", &added, &whole, &golden::bound(&whole), rules).unwrap();
    compare("appended", &appended, &whole, &golden::bound(&whole), rules).unwrap();
}

/// A non-finite number affects only its column in the buckets of its row.
fn keeps_numbers_that_are_not_finite_in_their_bucket<B: Backend>(backend: &B, rules: Rules) {
    fn run<B: Backend, T: Element>(backend: &B) -> Result<()> {
        let (op, rows) = (Sdim::new(20).with_groups(3, 2), 100);
        let mut history = data::rows::<T>(&mut data::rng(5), Data::Normal, rows, op.width);
        for (row, column, number) in [(3, 4, f32::NAN), (40, 19, f32::INFINITY), (41, 0, f32::NEG_INFINITY)] {
            history[row * op.width + column] = T::from_f32(number);
        }
        let signatures = data::signatures(&mut data::rng(6), rows * op.groups, op.bits);
        let inputs = SdimEncodeInputs::new(Host::view(&history), Hash::Signatures16(Host::view(&signatures)));
        let expected = reference::sdim_encode(&op, &Jagged::from_lengths(&[rows])?, &inputs)?;
        let (history, signatures) = (backend.upload(&history)?, backend.upload(&signatures)?);
        let inputs =
            SdimEncodeInputs::new(backend.view(&history), Hash::Signatures16(backend.view(&signatures)));
        let table = backend.sdim_encode(&op, &backend.jagged(&Jagged::from_lengths(&[rows])?)?, inputs)?;
        for (i, (got, expected)) in
            backend.download(backend.view(&table))?.into_iter().zip(expected).enumerate()
        {
            let expected = expected as f32;
            let same = got == expected || got.is_nan() && expected.is_nan();
            assert!(same || (got - expected).abs() < 1e-4, "table[{i}]: {got}, expected {expected}");
        }
        Ok(())
    }
    if rules.nan {
        run::<B, f32>(backend).expect("valid calls");
        run::<B, f16>(backend).expect("valid calls");
        run::<B, bf16>(backend).expect("valid calls");
    }
}

/// Every fault of this stem that a backend can have makes a check fail.
///
/// # Panics
/// Where a fault passes.
pub fn every_fault_is_caught() {
    let plain = SdimCase { histories: vec![9, 20], targets: vec![3, 4], ..Default::default() };
    let tail = SdimCase { tail: 2, ..plain.clone() };
    let zeros = SdimCase { data: Data::Zeros, ..plain.clone() };
    let shared = SdimCase { shared: true, ..plain.clone() };
    let weighted = SdimCase { weights: Weights::Fading, ..plain.clone() };
    let slots = SdimCase { slots: true, ..plain.clone() };
    let items = SdimCase { given: Given::Items8(5), ..plain.clone() };
    for (fault, case) in [
        (Fault::ItemsIgnored, &items),
        (Fault::ItemOfNeighbour, &items),
        (Fault::OwnTable, &shared),
        (Fault::SlotsIgnored, &slots),
        (Fault::SlotOfNeighbour, &slots),
        (Fault::OtherTablesCleared, &slots),
        (Fault::HistoryShifted, &plain),
        (Fault::BitsReversed, &plain),
        (Fault::NormalisedAfterMean, &plain),
        (Fault::AppendReplaces, &plain),
        (Fault::WeightsIgnored, &weighted),
        (Fault::RemoveAdds, &plain),
        (Fault::FactorOfNeighbour, &plain),
        (Fault::PaddingHashed, &tail),
        (Fault::ZeroIsPositive, &zeros),
    ] {
        assert_check(case, &cpu(), Rules::IEEE);
        assert!(check(case, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed");
    }
    wrong_bits_are_caught();
}

fn matches_reference_on_the_small_named_cases<B: Backend>(backend: &B, rules: Rules) {
    assert_small_cases("sdim", backend, rules);
}
