//! Hostile inputs: sizes that overflow, ids outside at every place, views at odd offsets, scales that are not finite. Each is
//! an error that names the argument, or has a documented result.

mod nobody;
mod signatures;
mod views;
mod views_of_histories;
mod weights;

use longseq::*;

use crate::case::Rules;
use crate::registry::list_tests;
use nobody::takes_parameters_of_any_size_for_nobody;
use signatures::{finds_a_signature_outside, finds_an_item_outside};
use views::reads_views_at_any_offset;
use weights::{refuses_wrong_weights, skips_whole_bags};

list_tests!("hostile":
    refuses_sizes_beyond_the_address_space,
    refuses_zero_widths_and_counts,
    checks_before_it_allocates,
    reports_outputs_that_no_memory_holds,
    takes_batches_of_nobody,
    takes_parameters_of_any_size_for_nobody,
    finds_ids_outside_at_every_place,
    finds_positions_and_counts_outside_a_selection,
    decodes_int8_rows_with_any_scale,
    reads_views_at_any_offset,
    takes_more_kept_than_there_are,
    adds_up_to_the_end_of_the_range,
    refuses_wrong_weights,
    skips_whole_bags,
);

/// The argument that an error names.
fn argument<T>(result: Result<T>) -> &'static str {
    match result.err().expect("an error") {
        Error::Shape { argument, .. }
        | Error::Parameter { argument, .. }
        | Error::Limit { argument, .. }
        | Error::IndexOutOfRange { argument, .. } => argument,
        other => panic!("{other}"),
    }
}

fn batch<B: Backend>(backend: &B, behaviours: usize, candidates: usize) -> B::Batch {
    let [histories, targets] =
        [behaviours, candidates].map(|rows| Jagged::from_lengths(&[rows]).expect("one user"));
    backend.batch(&histories, &targets).expect("a batch")
}

const HUGE: usize = usize::MAX / 2;

/// Products beyond 64 bits, some of them with a factor of 0, which excuses no other.
fn refuses_sizes_beyond_the_address_space<B: Backend>(backend: &B, _: Rules) {
    let numbers = backend.upload(&[0.0f32; 8]).expect("memory");
    let none = backend.zeros::<f32>(0).expect("memory");
    let (numbers, none) = (backend.view(&numbers), backend.view(&none));
    let (two, nobody) = (batch(backend, 2, 2), batch(backend, 0, 0));

    for op in
        [TargetAttention::new(HUGE), TargetAttention::new(1).with_heads(HUGE, HUGE).with_value_width(HUGE)]
    {
        let inputs = TargetAttentionInputs::new(numbers, numbers).with_values(numbers);
        assert_eq!(argument(backend.target_attention(&op, &two, inputs)), "queries");
    }
    let op = TargetAttention::new(HUGE).with_heads(4, 4);
    let inputs = TargetAttentionInputs::new(none, none);
    assert_eq!(argument(backend.target_attention(&op, &nobody, inputs)), "queries");

    let ids = backend.zeros::<u32>(0).expect("memory");
    let tables = [(); 2].map(|()| Table::new(0, usize::MAX, TableData::F32(none)));
    let inputs = LookupInputs::new(backend.view(&ids), &tables);
    assert_eq!(argument(backend.lookup(&Lookup::default(), Bags::Each, inputs)), "tables");
    let tables = [Table::new(usize::MAX, 2, TableData::F32(none))];
    let inputs = LookupInputs::new(backend.view(&ids), &tables);
    assert_eq!(argument(backend.lookup(&Lookup::default(), Bags::Each, inputs)), "tables");

    let hash = Hash::Rotations(numbers);
    let users = backend.jagged(&Jagged::from_lengths(&[2]).expect("one user")).expect("memory");
    for op in [Sdim::new(HUGE), Sdim::new(1).with_groups(HUGE, 16)] {
        assert!(backend.sdim_encode(&op, &users, SdimEncodeInputs::new(numbers, hash)).is_err());
    }
    let op = Sdim::new(1).with_groups(1, 64);
    assert_eq!(op.buckets(), usize::MAX);
    let result = backend.sdim_encode(&op, &users, SdimEncodeInputs::new(numbers, hash));
    assert!(matches!(result, Err(Error::Unsupported { .. })));
    assert!(matches!(
        Sdim::new(1 << 40).with_groups(1 << 10, 1).rotations(1),
        Err(Error::OutOfMemory { .. })
    ));
    assert!(matches!(Sdim::new(HUGE).with_groups(4, 1).rotations(1), Err(Error::Limit { .. })));
}

fn refuses_zero_widths_and_counts<B: Backend>(backend: &B, _: Rules) {
    let numbers = backend.upload(&[0.0f32; 4]).expect("memory");
    let ids = backend.upload(&[0u32; 4]).expect("memory");
    let (numbers, ids) = (backend.view(&numbers), backend.view(&ids));
    let two = batch(backend, 2, 2);
    let inputs = TargetAttentionInputs::new(numbers, numbers);
    for (op, name) in [
        (TargetAttention::new(0), "width"),
        (TargetAttention::new(2).with_value_width(0), "value_width"),
        (TargetAttention::new(2).with_heads(0, 1), "heads"),
        (TargetAttention::new(2).with_heads(1, 0), "kv_heads"),
        (TargetAttention::new(2).with_scale(f32::NAN), "scale"),
        (TargetAttention::new(2).with_scale(f32::INFINITY), "scale"),
    ] {
        assert_eq!(argument(backend.target_attention(&op, &two, inputs)), name);
    }
    let flat = [Table::new(4, 0, TableData::F32(numbers))];
    let result = backend.lookup(&Lookup::default(), Bags::Each, LookupInputs::new(ids, &flat));
    assert_eq!(argument(result), "tables");
    let result = backend.lookup(&Lookup::default(), Bags::Each, LookupInputs::new(ids, &[]));
    assert_eq!(argument(result), "tables");
    let tables = [Table::new(4, 1, TableData::F32(numbers))];
    let op = Decoupled::new([1.0]).with_top_k(Some(0));
    let some = batch(backend, 4, 4);
    let search = backend.decoupled_search(&op, &some, SearchInputs::new(&tables, ids, ids));
    assert_eq!(argument(search), "top_k");
    let attend = backend.decoupled_attend(&op, &some, DecoupledInputs::new(&tables, &tables, ids, ids));
    assert_eq!(argument(attend), "top_k");
}

/// Calls that allocate their output answer what is wrong, not that 17 GB are too many.
fn checks_before_it_allocates<B: Backend>(backend: &B, _: Rules) {
    let numbers = backend.upload(&[0.0f32; 4]).expect("memory");
    let ids = backend.upload(&[0u32; 4]).expect("memory");
    let (numbers, ids) = (backend.view(&numbers), backend.view(&ids));
    // 2³¹ candidates: outputs of 2⁴⁵ bytes and more.
    let many = Jagged::from_lengths(&[1 << 31]).expect("one user");
    let one = Jagged::from_lengths(&[1]).expect("one user");
    let large = Batch::new(one, many.clone()).expect("one user on both sides");
    let device_batch = backend.batch(large.histories(), large.targets()).expect("a batch");
    let rows = backend.jagged(&many).expect("memory");
    let width = 4096;

    let op = TargetAttention::new(width);
    let inputs = TargetAttentionInputs::new(numbers, numbers);
    assert_eq!(argument(backend.target_attention(&op, &device_batch, inputs)), "queries");
    let hidden = [DinLayer::new(numbers, numbers, Activation::Relu)];
    let inputs = DinInputs::new(numbers, numbers, &hidden, numbers, numbers);
    assert_eq!(argument(backend.din(&Din::new(width), &device_batch, inputs)), "targets");
    let op = Sdim::new(width);
    let hash = Hash::Rotations(numbers);
    assert_eq!(argument(backend.sdim_encode(&op, &rows, SdimEncodeInputs::new(numbers, hash))), "history");
    let query = SdimQueryInputs::new(numbers, hash).with_targets(numbers);
    assert_eq!(argument(backend.sdim_query(&op, &rows, query)), "table");
    let inputs = SdimAttendInputs::new(numbers, hash, hash).with_targets(numbers);
    assert_eq!(argument(backend.sdim_attend(&op, &device_batch, inputs)), "history");
    let tables = [Table::new(1, width, TableData::F32(numbers))];
    let result = backend.lookup(&Lookup::default(), Bags::Sum(&rows), LookupInputs::new(ids, &tables));
    assert_eq!(argument(result), "tables");
    let tables = [Table::new(1, 4, TableData::F32(numbers))];
    let result = backend.lookup(&Lookup::default(), Bags::Sum(&rows), LookupInputs::new(ids, &tables));
    assert_eq!(argument(result), "ids");
    let op = Decoupled::new([1.0]).with_top_k(Some(1000));
    let search = SearchInputs::new(&tables, ids, ids);
    assert_eq!(argument(backend.decoupled_search(&op, &device_batch, search)), "history_ids");
    let inputs = DecoupledInputs::new(&tables, &tables, ids, ids);
    assert_eq!(argument(backend.decoupled_attend(&op, &device_batch, inputs)), "history_ids");
    let inputs = AggregateInputs::new(&tables, ids, ids);
    let selection = Selection::new(ids, numbers, ids);
    assert_eq!(argument(backend.decoupled_aggregate(&op, &device_batch, inputs, selection)), "history_ids");
}

/// Few inputs, since there are no behaviours, and outputs of 2⁵⁰ bytes and more; the reference answers likewise.
fn reports_outputs_that_no_memory_holds<B: Backend>(backend: &B, _: Rules) {
    fn refused<T>(name: &str, result: Result<T>) {
        match result.err() {
            Some(Error::OutOfMemory { .. } | Error::Limit { .. }) => {}
            other => panic!("{name}: {other:?}"),
        }
    }
    let width = 1 << 48;
    let nobody = Jagged::from_lengths(&[0]).expect("a length");
    let one = Jagged::from_lengths(&[1]).expect("a length");
    let host = Batch::new(nobody.clone(), one.clone()).expect("one user on both sides");
    let (numbers, empty, one_id, no_ids) = ([1.0f32], [0.0f32; 0], [0u32], [0u32; 0]);
    let device = backend.batch(&nobody, &one).expect("a batch");
    let bags = backend.jagged(&nobody).expect("memory");

    let op = TargetAttention::new(1).with_value_width(width);
    let inputs = TargetAttentionInputs::new(Host::view(&numbers), Host::view(&empty));
    let inputs = inputs.with_values(Host::view(&empty));
    refused("the reference of target_attention", reference::target_attention(&op, &host, &inputs));
    let (queries, none) =
        (backend.upload(&numbers).expect("memory"), backend.upload(&empty).expect("memory"));
    let none = backend.view(&none);
    let inputs = TargetAttentionInputs::new(backend.view(&queries), none).with_values(none);
    refused("target_attention", backend.target_attention(&op, &device, inputs));

    let tables = [Table::new(0, width, TableData::F32(Host::view(&empty)))];
    let inputs = LookupInputs::new(Host::view(&no_ids), &tables);
    refused("the reference of lookup", reference::lookup(&Lookup::default(), Bags::Sum(&nobody), &inputs));
    let ids = backend.upload(&no_ids).expect("memory");
    let tables = [Table::new(0, width, TableData::F32(none))];
    let inputs = LookupInputs::new(backend.view(&ids), &tables);
    refused("lookup", backend.lookup(&Lookup::default(), Bags::Sum(&bags), inputs));

    let attention = [Table::new(0, 1, TableData::F32(Host::view(&empty)))];
    let representation = [Table::new(0, width, TableData::F32(Host::view(&empty)))];
    let op = Decoupled::new([1.0]).with_top_k(None).with_ids(IdPolicy::Zero);
    let inputs = DecoupledInputs::new(&attention, &representation, Host::view(&no_ids), Host::view(&one_id));
    refused("the reference of decoupled_attend", reference::decoupled_attend(&op, &host, &inputs));
    let attention = [Table::new(0, 1, TableData::F32(none))];
    let target = backend.upload(&one_id).expect("memory");
    let inputs = DecoupledInputs::new(&attention, &tables, backend.view(&ids), backend.view(&target));
    refused("decoupled_attend", backend.decoupled_attend(&op, &device, inputs));
}

/// No user, and users without behaviours or candidates.
fn takes_batches_of_nobody<B: Backend>(backend: &B, _: Rules) {
    let run = |lengths: &[(usize, usize)]| -> Result<usize> {
        let [histories, targets]: [Vec<usize>; 2] =
            [lengths.iter().map(|l| l.0).collect(), lengths.iter().map(|l| l.1).collect()];
        let [behaviours, candidates] = [&histories, &targets].map(|lengths| lengths.iter().sum::<usize>());
        let (histories, targets) = (Jagged::from_lengths(&histories)?, Jagged::from_lengths(&targets)?);
        let batch = backend.batch(&histories, &targets)?;
        let (history, rows) = (backend.zeros::<f32>(2 * behaviours)?, backend.zeros::<f32>(2 * candidates)?);
        let (history, rows) = (backend.view(&history), backend.view(&rows));
        let attention = TargetAttentionInputs::new(rows, history);
        let mut zeros = backend
            .target_attention(&TargetAttention::new(2), &batch, attention)
            .map(|out| backend.download(backend.view(&out)))??;
        let op = Sdim::new(2).with_groups(1, 1);
        let rotations = backend.upload(&op.rotations(1)?)?;
        let hash = Hash::Rotations(backend.view(&rotations));
        let encode = SdimEncodeInputs::new(history, hash);
        let table = backend.sdim_encode(&op, &backend.jagged(&histories)?, encode)?;
        let query = SdimQueryInputs::new(backend.view(&table), hash).with_targets(rows);
        let out = backend.sdim_query(&op, &backend.jagged(&targets)?, query)?;
        zeros.extend(backend.download::<f32>(backend.view(&out))?);
        zeros.extend(backend.download(backend.view(&table))?);
        let table = backend.upload(&[0.0f32; 2])?;
        let tables = [Table::new(1, 2, TableData::F32(backend.view(&table)))];
        let ids = (backend.zeros::<u32>(behaviours)?, backend.zeros::<u32>(candidates)?);
        let bags = backend.jagged(&histories)?;
        let inputs = LookupInputs::new(backend.view(&ids.0), &tables);
        let (out, _) = backend.lookup(&Lookup::default(), Bags::Mean(&bags), inputs)?;
        zeros.extend(backend.download(backend.view(&out))?);
        let inputs = DecoupledInputs::new(&tables, &tables, backend.view(&ids.0), backend.view(&ids.1));
        let out = backend.decoupled_attend(&Decoupled::new([1.0]), &batch, inputs)?;
        zeros.extend(backend.download(backend.view(&out))?);
        assert!(zeros.iter().all(|&x| x == 0.0), "{lengths:?}: {zeros:?}");
        Ok(zeros.len())
    };
    assert_eq!(run(&[]), Ok(0));
    assert_eq!(run(&[(0, 0)]), Ok(4 + 2));
    assert_eq!(run(&[(0, 3), (0, 0)]), Ok(6 + 6 + 8 + 4 + 6));
    assert_eq!(run(&[(3, 0), (0, 2)]), Ok(4 + 4 + 8 + 4 + 4));
}

/// An id outside its table at the first, the last and the only place, and in any feature; a signature.
fn finds_ids_outside_at_every_place<B: Backend>(backend: &B, _: Rules) {
    finds_a_signature_outside(backend);
    finds_an_item_outside(backend);
    for (count, place) in [(1, 0), (2, 0), (2, 1), (70, 0), (70, 35), (70, 69)] {
        for bad in [2u32, 3, u32::MAX] {
            let run = |features: usize| -> Result<()> {
                let mut ids = vec![1u32; count * features];
                ids[place * features + features - 1] = bad;
                let (ids, table) = (backend.upload(&ids)?, backend.upload(&[1.0f32, 2.0])?);
                let tables: Vec<_> =
                    (0..features).map(|_| Table::new(2, 1, TableData::F32(backend.view(&table)))).collect();
                let inputs = LookupInputs::new(backend.view(&ids), &tables);
                let (out, _) = backend.lookup(&Lookup::default(), Bags::Each, inputs)?;
                backend.download(backend.view(&out)).map(|_| ())
            };
            for features in [1, 3] {
                let expected = (place * features + features - 1) as u64;
                match run(features) {
                    Err(Error::IndexOutOfRange { argument: "ids", position, id, bound: 2, .. }) => {
                        assert_eq!((position, id), (expected, bad.into()));
                    }
                    other => panic!("{other:?}"),
                }
            }
            let search = || -> Result<()> {
                let (mut ids, table) = (vec![1u32; count], backend.upload(&[1.0f32, 2.0])?);
                ids[place] = bad;
                let (ids, target) = (backend.upload(&ids)?, backend.upload(&[0u32])?);
                let tables = [Table::new(2, 1, TableData::F32(backend.view(&table)))];
                let inputs = SearchInputs::new(&tables, backend.view(&ids), backend.view(&target));
                let op = Decoupled::new([1.0]).with_top_k(Some(3));
                let kept = backend.decoupled_search(&op, &batch(backend, count, 1), inputs)?;
                backend.download(backend.view(&kept.counts)).map(|_| ())
            };
            match search() {
                Err(Error::IndexOutOfRange { argument: "history_ids", position, id, bound: 2, .. }) => {
                    assert_eq!((position, id), (place as u64, bad.into()));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    backend.synchronize().expect("all errors were reported");
}

fn finds_positions_and_counts_outside_a_selection<B: Backend>(backend: &B, _: Rules) {
    let run = |positions: [u32; 2], counts: [u32; 1]| -> Result<Vec<f32>> {
        let table = backend.upload(&[1.0f32, 2.0])?;
        let tables = [Table::new(2, 1, TableData::F32(backend.view(&table)))];
        let (ids, target) = (backend.upload(&[0u32, 1, 1])?, backend.upload(&[0u32])?);
        let inputs = AggregateInputs::new(&tables, backend.view(&ids), backend.view(&target));
        let (positions, counts) = (backend.upload(&positions)?, backend.upload(&counts)?);
        let scores = backend.upload(&[0.0f32, 0.0])?;
        let selection =
            Selection::new(backend.view(&positions), backend.view(&scores), backend.view(&counts));
        let op = Decoupled::new([1.0]).with_top_k(Some(2));
        let out = backend.decoupled_aggregate(&op, &batch(backend, 3, 1), inputs, selection)?;
        backend.download(backend.view(&out))
    };
    assert_eq!(run([0, 2], [2]), Ok(vec![1.5]));
    // What is not counted may hold anything.
    assert_eq!(run([2, u32::MAX], [1]), Ok(vec![2.0]));
    assert_eq!(run([u32::MAX, 7], [0]), Ok(vec![0.0]));
    for (positions, counts, name) in [
        ([3, 0], [1], "positions"),
        ([0, 3], [2], "positions"),
        ([u32::MAX, 0], [2], "positions"),
        ([0, 1], [3], "counts"),
        ([0, 1], [u32::MAX], "counts"),
    ] {
        assert_eq!(argument(run(positions, counts)), name);
    }
    backend.synchronize().expect("all errors were reported");
}

/// `value = scale·code + offset`, whatever the scale is.
fn decodes_int8_rows_with_any_scale<B: Backend>(backend: &B, rules: Rules) {
    let scales = [0.0, -1.5, 1e-30, f32::INFINITY, f32::NAN, 1.0, 1.0];
    let offsets = [3.0, 0.5, 0.0, 0.0, 0.0, f32::NEG_INFINITY, f32::NAN];
    let codes: Vec<i8> = [-128, 0, 127].repeat(scales.len());
    let run = || -> Result<Vec<f32>> {
        let (codes, scale, offset) =
            (backend.upload(&codes)?, backend.upload(&scales)?, backend.upload(&offsets)?);
        let data = TableData::Int8 {
            codes: backend.view(&codes),
            scale: backend.view(&scale),
            offset: backend.view(&offset),
        };
        let tables = [Table::new(scales.len(), 3, data)];
        let ids = backend.upload(&(0..scales.len() as u32).collect::<Vec<u32>>())?;
        let inputs = LookupInputs::new(backend.view(&ids), &tables);
        let (out, _) = backend.lookup(&Lookup::default(), Bags::Each, inputs)?;
        backend.download(backend.view(&out))
    };
    for (i, got) in run().expect("a valid call").into_iter().enumerate() {
        let exact = scales[i / 3] * f32::from(codes[i]) + offsets[i / 3];
        let same =
            got == exact || got.is_nan() && exact.is_nan() || (got - exact).abs() <= 1e-6 * exact.abs();
        assert!(same || !rules.nan && !exact.is_finite(), "[{i}] is {got}, expected {exact}");
    }
}

fn takes_more_kept_than_there_are<B: Backend>(backend: &B, _: Rules) {
    let run = |top_k: usize| -> Result<(Vec<u32>, Vec<u32>)> {
        let table = backend.upload(&[1.0f32, 2.0])?;
        let tables = [Table::new(2, 1, TableData::F32(backend.view(&table)))];
        let (ids, targets) = (backend.upload(&[0u32, 1, 1])?, backend.upload(&[0u32])?);
        let inputs = SearchInputs::new(&tables, backend.view(&ids), backend.view(&targets));
        let op = Decoupled::new([1.0]).with_top_k(Some(top_k));
        let kept = backend.decoupled_search(&op, &batch(backend, 3, 1), inputs)?;
        Ok((backend.download(backend.view(&kept.positions))?, backend.download(backend.view(&kept.counts))?))
    };
    for top_k in [4, 65, 1024, 1025, Search::MAX_TOP_K] {
        let (positions, counts) = run(top_k).expect("a valid call");
        assert_eq!((&positions[..4], &counts[..]), (&[1, 2, 0, EMPTY_SLOT][..], &[3][..]), "top_k {top_k}");
    }
    assert_eq!(argument(run(usize::MAX - 1)), "positions");
}

/// Sums that are no means: up to `f32::MAX`, and infinite beyond it.
fn adds_up_to_the_end_of_the_range<B: Backend>(backend: &B, _: Rules) {
    const HALF: f32 = f32::MAX / 2.0;
    // The second number of each row stays small: an overflow is no other column's.
    for (rows, sum) in
        [([HALF, HALF], f32::MAX), ([-HALF, -HALF], f32::MIN), ([f32::MAX, HALF], f32::INFINITY)]
    {
        let expected = [sum, 3.0];
        let numbers = [rows[0], 1.0, rows[1], 2.0];
        // A rounding error at the very end of the range is infinite: CUDA adds a table's rows in three parts.
        let share = if sum.is_finite() { 0.5 } else { 1.0 };
        let run = || -> Result<[Vec<f32>; 4]> {
            let (history, ids) = (backend.upload(&numbers)?, backend.upload(&[0u32, 1])?);
            let (history, ids) = (backend.view(&history), backend.view(&ids));
            let two = backend.jagged(&Jagged::from_lengths(&[2])?)?;
            let tables = [Table::new(2, 2, TableData::F32(history))];
            let (looked_up, _) =
                backend.lookup(&Lookup::default(), Bags::Sum(&two), LookupInputs::new(ids, &tables))?;
            let signatures = backend.upload(&[0u8, 0])?;
            let hash = Hash::Signatures8(backend.view(&signatures));
            let op = Sdim::new(2).with_groups(1, 1);
            let halves: Vec<f32> = numbers.iter().map(|x| x * share).collect();
            let halves = backend.upload(&halves)?;
            let inputs = SdimEncodeInputs::new(backend.view(&halves), hash);
            let table = backend.sdim_encode(&op, &two, inputs)?;
            // Scores that are all 1.
            let (queries, keys) = (backend.upload(&[1.0f32])?, backend.upload(&[1.0f32, 1.0])?);
            let inputs =
                TargetAttentionInputs::new(backend.view(&queries), backend.view(&keys)).with_values(history);
            let op = TargetAttention::new(1).with_value_width(2).with_weighting(Weighting::Identity);
            let attended = backend.target_attention(&op, &batch(backend, 2, 1), inputs)?;
            let (weight, one) = (backend.zeros::<f32>(8)?, backend.upload(&[1.0f32])?);
            let (zero, one) = (backend.view(&weight), backend.view(&one));
            let hidden = [DinLayer::new(zero, zero.slice(0, 1)?, Activation::Relu)];
            let targets = zero.slice(0, 2)?;
            let inputs = DinInputs::new(targets, history, &hidden, zero.slice(0, 1)?, one);
            let pooled = backend.din(&Din::new(2), &batch(backend, 2, 1), inputs)?;
            Ok([
                backend.download(backend.view(&looked_up))?,
                backend.download(backend.view(&table))?[..2].to_vec(),
                backend.download(backend.view(&attended))?,
                backend.download(backend.view(&pooled))?,
            ])
        };
        let names = ["lookup", "sdim_encode", "target_attention", "din"];
        for (name, got) in names.into_iter().zip(run().expect("valid calls")) {
            let share = if name == "sdim_encode" { share } else { 1.0 };
            let expected: Vec<f32> = expected.iter().map(|x| x * share).collect();
            let is_equal = |got: &f32, expected: &f32| {
                got == expected || (got - expected).abs() <= 4.0 * f32::EPSILON * expected.abs()
            };
            let are_equal = got.iter().zip(&expected).all(|(got, expected)| is_equal(got, expected));
            assert!(are_equal, "{name} of {rows:?}: {got:?} instead of {expected:?}");
        }
    }
}
