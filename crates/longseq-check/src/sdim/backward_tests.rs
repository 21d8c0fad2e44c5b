//! SDIM's gradients on every backend: published results, a grid of cases, random cases, and faults that must be caught.

use longseq::*;
use proptest::prelude::*;

use super::items::matches_gradients_with_signatures_of_items;
use super::{Given, SdimBackwardCase, SdimCase, Weights};
use crate::case::{Rules, assert_check, check};
use crate::compare::{Bound, U, additions, compare};
use crate::data::{self, Data};
use crate::device::cpu;
use crate::golden::{self, Golden};
use crate::mutant::{Fault, Mutant};
use crate::named::assert_small_cases;
use crate::registry::list_tests;
use crate::sample;

list_tests!("sdim_backward":
    matches_published_gradients,
    matches_reference_on_odd_lengths,
    matches_reference_on_odd_sizes,
    matches_reference_without_normalisation,
    matches_reference_on_narrow_storage,
    matches_reference_on_unusual_numbers,
    matches_reference_on_a_long_history,
    matches_reference_on_many_candidates,
    matches_reference_with_weights,
    matches_reference_on_random_batches,
    keeps_nan_to_its_buckets,
    ignores_rows_that_belong_to_nobody,
    matches_reference_on_the_small_named_cases,
    takes_tables_that_hold_anything,
    adds_up_gradients_that_cancel_along_a_row,
    finds_signatures_outside,
    matches_gradients_with_signatures_of_items,
    refuses_what_does_not_fit,
    takes_users_in_parts,
);

/// With rotations and with given signatures, of both types in turn.
fn check_both<B: Backend>(forward: SdimCase, backend: &B, rules: Rules) {
    let rows = forward.histories.iter().sum::<usize>();
    for hashed in [false, true] {
        let bytes = forward.bits <= 8 && rows.is_multiple_of(2);
        let case = SdimBackwardCase { forward: forward.clone(), hashed, bytes, ..Default::default() };
        assert_check(&case, backend, rules);
    }
}

fn shape(histories: &[usize], targets: &[usize]) -> SdimCase {
    SdimCase { histories: histories.to_vec(), targets: targets.to_vec(), ..Default::default() }
}

fn matches_published_gradients<B: Backend>(backend: &B, rules: Rules) {
    for name in ["sdim_g16_t3_l2", "sdim_g16_t3_sum", "sdim_g2_t4_l2", "sdim_g5_t1_l2", "sdim_g8_t8_l2"] {
        let golden = Golden::load(name);
        let op = Sdim::new(golden.shape("history")[1])
            .with_groups(golden.number("groups"), golden.number("tau"))
            .with_normalise(golden.flag("l2"));
        let (histories, targets) =
            (golden.jagged("offsets", "history"), golden.jagged("target_offsets", "targets"));
        let batch = backend.batch(&histories, &targets).expect("a batch");
        let words = |name| -> Vec<u16> { golden.u32(name).into_iter().map(|id| id as u16).collect() };
        let [of_history, of_targets] = ["signature_history", "signature_targets"]
            .map(|name| backend.upload(&words(name)).expect("an upload"));
        let [history, grad_out] =
            ["history", "grad_out"].map(|name| backend.upload(&golden.f32(name)).expect("an upload"));
        let inputs = SdimAttendInputs::new(
            backend.view(&history),
            Hash::Signatures16(backend.view(&of_history)),
            Hash::Signatures16(backend.view(&of_targets)),
        );
        let mut grads = backend.zeros::<f32>(golden.f32("history").len()).expect("zeros");
        let (from, to) = (backend.view(&grad_out), backend.view_mut(&mut grads));
        backend.sdim_attend_backward_into(&op, &batch, inputs, from, to).expect("a valid call");
        let expected = golden.f64("grad_history");
        let got = backend.download(backend.view(&grads)).expect("a download");
        compare("grad_history", &got, &expected, &golden::bound(&expected), rules).unwrap();
    }
}

fn matches_reference_on_odd_lengths<B: Backend>(backend: &B, rules: Rules) {
    let histories = [0, 1, 2, 31, 32, 33, 64, 255, 256, 257, 0];
    let targets = [3, 1, 0, 5, 16, 17, 1, 2, 33, 1, 0];
    for forward in [shape(&histories, &targets), shape(&[], &[]), shape(&[9], &[0]), shape(&[0], &[3])] {
        check_both(forward, backend, rules);
    }
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
        check_both(SdimCase { width, groups, bits, ..shape(&[70, 3], &[4, 18]) }, backend, rules);
    }
}

fn matches_reference_without_normalisation<B: Backend>(backend: &B, rules: Rules) {
    check_both(SdimCase { normalise: false, ..shape(&[70, 0, 300], &[4, 2, 18]) }, backend, rules);
}

fn matches_reference_on_narrow_storage<B: Backend>(backend: &B, rules: Rules) {
    for dtype in [DType::F16, DType::Bf16] {
        for (width, narrow) in [(64, true), (64, false), (5, true)] {
            let forward = SdimCase { dtype, width, ..shape(&[300, 0, 17], &[5, 2, 20]) };
            assert_check(&SdimBackwardCase { forward, narrow, ..Default::default() }, backend, rules);
        }
    }
}

fn matches_reference_on_unusual_numbers<B: Backend>(backend: &B, rules: Rules) {
    for data in [Data::Large, Data::Tiny, Data::Equal, Data::Zeros, Data::Scaled(1e18)] {
        let forward = SdimCase { data, ..shape(&[90, 2], &[3, 4]) };
        assert_check(&SdimBackwardCase { forward, ..Default::default() }, backend, rules);
    }
}

fn matches_reference_on_a_long_history<B: Backend>(backend: &B, rules: Rules) {
    let longest = if rules.slow { 20_000 } else { 100_000 };
    check_both(SdimCase { width: 8, ..shape(&[20, longest, 0, 5], &[2, 2, 1, 3]) }, backend, rules);
}

fn matches_reference_with_weights<B: Backend>(backend: &B, rules: Rules) {
    for (dtype, width) in [(DType::F32, 64), (DType::F32, 5), (DType::F16, 20), (DType::Bf16, 64)] {
        let forward =
            SdimCase { dtype, width, weights: Weights::Signed, ..shape(&[300, 0, 17], &[5, 2, 20]) };
        check_both(SdimCase { tail: 2, ..forward.clone() }, backend, rules);
        assert_check(&SdimBackwardCase { forward, narrow: true, ..Default::default() }, backend, rules);
    }
}

fn matches_reference_on_many_candidates<B: Backend>(backend: &B, rules: Rules) {
    check_both(SdimCase { width: 20, ..shape(&[200, 10], &[5000, 1]) }, backend, rules);
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
        (normalise, narrow, hashed, weighted) in any::<(bool, bool, bool, bool)>(),
    ) -> SdimBackwardCase {
        let (histories, targets) = requests.into_iter().unzip();
        let data = Data::Normal;
        let sizes = SdimCase { histories, targets, tail, width, groups, bits, ..Default::default() };
        let weights = if weighted { Weights::Signed } else { Weights::None };
        let forward = SdimCase { seed, dtype, data, normalise, weights, ..sizes };
        SdimBackwardCase { forward, narrow, hashed, bytes: bits <= 8 && seed % 2 == 0, nan: None }
    }
}

fn matches_reference_on_random_batches<B: Backend>(backend: &B, rules: Rules) {
    proptest!(data::random_cases(48), |(case in any_case())| {
        check(&case, backend, rules).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
    });
}

fn keeps_nan_to_its_buckets<B: Backend>(backend: &B, rules: Rules) {
    if !rules.nan {
        return;
    }
    for normalise in [true, false] {
        let forward = SdimCase { normalise, ..shape(&[90, 20], &[3, 4]) };
        assert_check(&SdimBackwardCase { forward, nan: Some(4), ..Default::default() }, backend, rules);
    }
}

fn ignores_rows_that_belong_to_nobody<B: Backend>(backend: &B, rules: Rules) {
    check_both(SdimCase { tail: 5, ..shape(&[40, 9], &[3, 20]) }, backend, rules);
}

/// Bucket rows near the limits of `f32`, at the floor, and not finite; read, and not read by any candidate. The third user has no
/// candidates.
fn takes_tables_that_hold_anything<B: Backend>(backend: &B, rules: Rules) {
    let width = 40;
    let rows: [fn(usize) -> f32; 8] = [
        |j| 3e38 * (1.0 - 0.01 * j as f32),
        |j| if j == 39 { f32::NAN } else { 1.0 },
        |j| if j == 17 { f32::INFINITY } else { 1.0 },
        |j| 1e-13 * (1 + j) as f32,
        |j| 1e-15 * j as f32,
        |j| 1e18 + 1e16 * j as f32,
        |_| 0.0,
        |j| (j as f32).sin(),
    ];
    // Each row is read by a candidate or two of the first user, the second and third of none; the second user reads all but
    // the last.
    let words: [u8; 16] = [0, 3, 4, 5, 6, 7, 0, 5, 3, 0, 1, 2, 3, 4, 5, 6];
    let targets = Jagged::from_lengths(&[9, 7, 0]).expect("a batch");
    for normalise in [true, false] {
        let op = Sdim::new(width).with_groups(1, 3).with_normalise(normalise);
        let table: Vec<f32> = (0..3).flat_map(|_| rows.iter().flat_map(|row| (0..width).map(row))).collect();
        let grad_out: Vec<f32> = data::rows(&mut data::rng(5), Data::Normal, words.len(), width);
        let exact: Vec<f64> = grad_out.iter().map(|&x| x.into()).collect();
        let hash = Hash::Signatures8(Host::view(&words));
        let inputs = SdimQueryInputs::<_, f32>::new(Host::view(&table), hash);
        let expected = reference::sdim_query_backward(&op, &targets, &inputs, &exact).expect("a valid call");
        let on_device =
            [backend.upload(&table), backend.upload(&grad_out)].map(|buffer| buffer.expect("an upload"));
        let given = backend.upload(&words).expect("an upload");
        let hash = Hash::Signatures8(backend.view(&given));
        let inputs = SdimQueryInputs::<_, f32>::new(backend.view(&on_device[0]), hash);
        let mut grads = backend.upload(&vec![f32::NAN; table.len()]).expect("an upload");
        let (from, to) = (backend.view(&on_device[1]), backend.view_mut(&mut grads));
        let jagged = backend.jagged(&targets).expect("a batch");
        backend.sdim_query_backward_into(&op, &jagged, inputs, from, to).expect("a valid call");
        let got = backend.download(backend.view(&grads)).expect("a download");
        // As in `bucket_errors`, of up to two candidates, whose gradients have lengths below 12.
        let error = |row: &[f32]| {
            let length = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let divisor = if normalise { length } else { 1.0 };
            let bound = 11.0 * U * 2.0 * 24.0 / divisor;
            std::iter::repeat_n(if bound.is_finite() { bound } else { 0.0 }, width)
        };
        let absolute = table.chunks(width).flat_map(error).collect();
        let bound = Bound::of_each(absolute, false).with_any_infinity(true);
        compare("grad_table", &got, &expected, &bound, rules).unwrap();
    }
}

/// The gradients of a bucket's candidates are large along its row, and small across.
fn adds_up_gradients_that_cancel_along_a_row<B: Backend>(backend: &B, rules: Rules) {
    let (width, count) = (64, 600);
    let op = Sdim::new(width).with_groups(1, 1);
    let row: Vec<f32> = data::rows(&mut data::rng(3), Data::Normal, 1, width);
    let table = [&row[..], &row[..]].concat();
    let along = |m: usize| if m.is_multiple_of(2) { 100.0 } else { -100.0 };
    let across: Vec<f32> = data::rows(&mut data::rng(4), Data::Normal, count, width);
    let grad_out: Vec<f32> =
        across.iter().enumerate().map(|(i, x)| x + along(i / width) * row[i % width]).collect();
    let words = vec![0u8; count];
    let targets = Jagged::from_lengths(&[count]).expect("a batch");
    let exact: Vec<f64> = grad_out.iter().map(|&x| x.into()).collect();
    let inputs = SdimQueryInputs::<_, f32>::new(Host::view(&table), Hash::Signatures8(Host::view(&words)));
    let expected = reference::sdim_query_backward(&op, &targets, &inputs, &exact).expect("a valid call");
    let [table, grads] = [&table, &grad_out].map(|rows| backend.upload(rows).expect("an upload"));
    let given = backend.upload(&words).expect("an upload");
    let inputs =
        SdimQueryInputs::<_, f32>::new(backend.view(&table), Hash::Signatures8(backend.view(&given)));
    let mut out = backend.zeros::<f32>(2 * width).expect("zeros");
    let jagged = backend.jagged(&targets).expect("a batch");
    let (from, to) = (backend.view(&grads), backend.view_mut(&mut out));
    backend.sdim_query_backward_into(&op, &jagged, inputs, from, to).expect("a valid call");
    let got = backend.download(backend.view(&out)).expect("a download");
    // Sums of numbers up to 400, whose exact sums are near 0: in parts, they are as exact as their largest part.
    let length = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let bound = (additions(count) + 8.0) * U * 2.0 * 100.0 * length * count as f64 / length;
    compare("grad_table", &got, &expected, &Bound::uniform(bound, false), rules).unwrap();
}

/// What a call and the wait after it report.
fn reported<B: Backend, T: Element>(backend: &B, made: Result<()>, out: &Buffer<B, T>) -> String {
    match made.and_then(|()| backend.download(backend.view(out)).map(drop)) {
        Ok(()) => "no error".into(),
        Err(error) => error.to_string(),
    }
}

fn finds_signatures_outside<B: Backend>(backend: &B, _: Rules) {
    for bits in [3, 7, 12] {
        let op = Sdim::new(4).with_groups(2, bits);
        let good = vec![1u16; 200];
        let mut bad = good.clone();
        (bad[150], bad[151]) = (u16::MAX, op.buckets() as u16);
        let [good, bad] = [good, bad].map(|words| backend.upload(&words).expect("an upload"));
        let [good, bad] = [&good, &bad].map(|words| Hash::Signatures16(backend.view(words)));
        let lengths = Jagged::from_lengths(&[30, 70]).expect("a batch");
        let (jagged, batch) =
            (backend.jagged(&lengths).expect("one"), backend.batch(&lengths, &lengths).expect("one"));
        let rows = backend.upload(&vec![1.0f32; 400]).expect("an upload");
        let table = backend.zeros::<f32>(op.table_length(2).expect("few")).expect("zeros");
        let (rows, table) = (backend.view(&rows), backend.view(&table));
        let expected =
            |call: &str| format!("{call}: signatures[150] is 65535, which must be below {}", op.buckets());

        let mut out = backend.zeros::<f32>(table.len()).expect("zeros");
        let inputs = SdimQueryInputs::<_, f32>::new(table, bad);
        let made = backend.sdim_query_backward_into(&op, &jagged, inputs, rows, backend.view_mut(&mut out));
        assert_eq!(reported(backend, made, &out), expected("sdim_query_backward"));
        let mut out = backend.zeros::<f32>(400).expect("zeros");
        let inputs = SdimEncodeInputs::new(rows, bad);
        let made = backend.sdim_encode_backward_into(&op, &jagged, inputs, table, backend.view_mut(&mut out));
        assert_eq!(reported(backend, made, &out), expected("sdim_encode_backward"));
        for (past, wished) in [(bad, good), (good, bad)] {
            let inputs = SdimAttendInputs::new(rows, past, wished);
            let made =
                backend.sdim_attend_backward_into(&op, &batch, inputs, rows, backend.view_mut(&mut out));
            assert_eq!(reported(backend, made, &out), expected("sdim_attend_backward"));
        }
        let inputs = SdimAttendInputs::new(rows, good, good);
        let made = backend.sdim_attend_backward_into(&op, &batch, inputs, rows, backend.view_mut(&mut out));
        assert_eq!(reported(backend, made, &out), "no error");
    }
}

/// Errors name call and argument, and nothing is written.
fn refuses_what_does_not_fit<B: Backend>(backend: &B, _: Rules) {
    let op = Sdim::new(2).with_groups(1, 1);
    let one = Jagged::from_lengths(&[1]).expect("a batch");
    let (jagged, batch) = (backend.jagged(&one).expect("one"), backend.batch(&one, &one).expect("one"));
    let words = backend.upload(&[1u8]).expect("an upload");
    let hash = Hash::Signatures8(backend.view(&words));
    let numbers = backend.upload(&[1.0f32, 2.0, 3.0, 4.0, 5.0]).expect("an upload");
    let first = |count: usize| backend.view(&numbers).slice(0, count).expect("a part");
    let mut out = backend.upload(&[9.0f32; 5]).expect("an upload");
    let mut errors = Vec::new();
    let mut refused = |made: Result<()>| errors.push(made.expect_err("a wrong length").to_string());
    macro_rules! to {
        ($count:expr) => {
            backend.view_mut(&mut out).slice(0, $count).expect("a part")
        };
    }
    for (table, grad_out, grad_table) in [(3, 2, 4), (4, 3, 4), (4, 2, 5)] {
        let inputs = SdimQueryInputs::<_, f32>::new(first(table), hash);
        refused(backend.sdim_query_backward_into(&op, &jagged, inputs, first(grad_out), to!(grad_table)));
    }
    for (history, grad_table, grad_history) in [(3, 4, 2), (2, 3, 2), (2, 4, 3)] {
        let inputs = SdimEncodeInputs::new(first(history), hash);
        refused(backend.sdim_encode_backward_into(
            &op,
            &jagged,
            inputs,
            first(grad_table),
            to!(grad_history),
        ));
    }
    for (history, grad_out, grad_history) in [(3, 2, 2), (2, 3, 2), (2, 2, 3)] {
        let inputs = SdimAttendInputs::new(first(history), hash, hash);
        refused(backend.sdim_attend_backward_into(&op, &batch, inputs, first(grad_out), to!(grad_history)));
    }
    let shape = |call: &str, argument: &str, dims: &str, got: usize| {
        format!("{call}: {argument}: expected {dims}, got {got} elements")
    };
    let (rows, table) = (
        ["[M, d] = [1, 2], 2 elements", "[N, d] = [1, 2], 2 elements"],
        "[B, G, 2^τ, d] = [1, 1, 2, 2], 4 elements",
    );
    let expected = [
        shape("sdim_query_backward", "table", table, 3),
        shape("sdim_query_backward", "grad_out", rows[0], 3),
        shape("sdim_query_backward", "grad_table", table, 5),
        shape("sdim_encode_backward", "history", rows[1], 3),
        shape("sdim_encode_backward", "grad_table", table, 3),
        shape("sdim_encode_backward", "grad_history", rows[1], 3),
        shape("sdim_attend_backward", "history", rows[1], 3),
        shape("sdim_attend_backward", "grad_out", rows[0], 3),
        shape("sdim_attend_backward", "grad_history", rows[1], 3),
    ];
    assert_eq!(errors, expected);
    assert_eq!(backend.download(backend.view(&out)).expect("a download"), [9.0; 5]);
}

/// Tables, or rows of candidates, that take more memory than devices set aside at a time. Rows are odd, so that parts begin where
/// no binding does.
fn takes_users_in_parts<B: Backend>(backend: &B, rules: Rules) {
    // With fewer than 63 behaviours, candidates would be compared with each.
    let length = sample::by_size(66, 130, 130);
    let shapes = [(70, 65, 30, 6, length), (21, 12_801, 65, 12, 3)];
    let count = if rules.sampled && sample::is_small() { 1 } else { 2 };
    for (users, width, groups, bits, length) in shapes.into_iter().take(count) {
        let op = Sdim::new(width).with_groups(groups, bits);
        let histories = Jagged::from_lengths(&vec![length; users]).expect("a batch");
        let targets = Jagged::from_lengths(&vec![1; users]).expect("a batch");
        let mut rng = data::rng(9);
        let history: Vec<f32> = data::rows(&mut rng, Data::Normal, users * length, width);
        let grad_out: Vec<f32> = data::rows(&mut rng, Data::Normal, users, width);
        // A candidate shares every bucket with one behaviour at least.
        let words: Vec<u16> = data::signatures(&mut rng, users * length * groups, bits);
        let target_words: Vec<u16> =
            (0..users).flat_map(|user| words[user * length * groups..][..groups].to_vec()).collect();
        let expected = {
            let cpu = cpu();
            let batch = cpu.batch(&histories, &targets).expect("a batch");
            attend_backward(&cpu, &op, &batch, [&history, &grad_out], [&words, &target_words])
        };
        let batch = backend.batch(&histories, &targets).expect("a batch");
        let got = attend_backward(backend, &op, &batch, [&history, &grad_out], [&words, &target_words]);
        // Rows of the table are about as long as those of the history, and gradients at most as long as those of the output.
        let error = |(got, expected): (&f32, &f32)| f64::from((got - expected).abs());
        let largest = got.iter().zip(&expected).map(error).fold(0.0, f64::max);
        assert!(largest <= 1e-5, "{op:?}: off by {largest:e}");
        assert!(expected.iter().any(|x| x.abs() > 1e-3), "{op:?}: no gradients");
    }
}

fn attend_backward<B: Backend>(
    backend: &B,
    op: &Sdim,
    batch: &B::Batch,
    rows: [&Vec<f32>; 2],
    words: [&Vec<u16>; 2],
) -> Vec<f32> {
    let [history, grad_out] = rows.map(|rows| backend.upload(rows).expect("an upload"));
    let words = words.map(|words| backend.upload(words).expect("an upload"));
    let [hash, target_hash] = [&words[0], &words[1]].map(|words| Hash::Signatures16(backend.view(words)));
    let inputs = SdimAttendInputs::new(backend.view(&history), hash, target_hash);
    let mut grads = backend.zeros::<f32>(rows[0].len()).expect("zeros");
    let (from, to) = (backend.view(&grad_out), backend.view_mut(&mut grads));
    backend.sdim_attend_backward_into(op, batch, inputs, from, to).expect("a valid call");
    backend.download(backend.view(&grads)).expect("a download")
}

/// Every fault of this stem that a backend can have makes a check fail.
///
/// # Panics
/// Where a fault passes.
pub fn every_fault_is_caught() {
    let plain = SdimBackwardCase { forward: shape(&[9, 20], &[3, 4]), ..Default::default() };
    let zeros = SdimCase { data: Data::Zeros, ..plain.forward.clone() };
    let zeros = SdimBackwardCase { forward: zeros, ..plain.clone() };
    let weighted = SdimCase { weights: Weights::Signed, ..plain.forward.clone() };
    let weighted = SdimBackwardCase { forward: weighted, ..plain.clone() };
    let items = SdimCase { given: Given::Items8(5), ..plain.forward.clone() };
    let items = SdimBackwardCase { forward: items, ..plain.clone() };
    for (fault, case) in [
        (Fault::HistoryShifted, &plain),
        (Fault::NewestPartial, &plain),
        (Fault::ProjectionDropped, &plain),
        (Fault::GroupForgotten, &plain),
        (Fault::FloorIgnored, &zeros),
        (Fault::WeightsIgnored, &weighted),
        (Fault::ItemsIgnored, &items),
        (Fault::ItemOfNeighbour, &items),
    ] {
        assert_check(case, &cpu(), Rules::IEEE);
        assert!(check(case, &Mutant(fault), Rules::IEEE).is_err(), "{fault:?} passed");
    }
}

fn matches_reference_on_the_small_named_cases<B: Backend>(backend: &B, rules: Rules) {
    assert_small_cases("sdim_backward", backend, rules);
}
