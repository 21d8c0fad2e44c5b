//! Every documented error: the words say which operation and argument, what was expected and what came.

use longseq::*;

/// The words of an error.
#[track_caller]
fn assert_error<T>(result: Result<T>, expected: &str) {
    match result {
        Ok(_) => panic!("no error; expected: {expected}"),
        Err(error) => assert_eq!(error.to_string(), expected),
    }
}

fn batch(histories: &[usize], targets: &[usize]) -> Batch {
    let jagged = |lengths| Jagged::from_lengths(lengths).expect("small lengths");
    Batch::new(jagged(histories), jagged(targets)).expect("as many users on both sides")
}

#[test]
fn offsets_are_checked() {
    assert_error(
        Jagged::new::<u32>(&[], 0),
        "Jagged::new: offsets: expected users + 1 offsets, at least one, got none",
    );
    assert_error(Jagged::new(&[1, 2], 2), "Jagged::new: offsets: expected offsets[0] = 0, got 1");
    assert_error(
        Jagged::new(&[0, 3, 2], 3),
        "Jagged::new: offsets: expected offsets[2] >= offsets[1] = 3, got 2",
    );
    assert_error(Jagged::new(&[0, -3i64], 3), "Jagged::new: offsets: expected offsets[1] in 0..=3, got -3");
    assert_error(
        Jagged::new(&[0, 4], 3),
        "Jagged::new: offsets: expected a last offset of at most 3, the number of rows, got 4",
    );
    assert_error(
        Jagged::new(&[0u64, 1 << 32], 1 << 32),
        "Jagged::new: length of one user needs 4294967296, above the limit of 4294967295",
    );
    assert_error(
        Jagged::from_lengths(&[usize::MAX, 1]),
        "Jagged::from_lengths: lengths needs 18446744073709551615, above the limit of 18446744073709551615",
    );
    assert_error(
        Batch::new(Jagged::from_lengths(&[1, 2]).unwrap(), Jagged::from_lengths(&[1]).unwrap()),
        "Batch::new: targets: expected 2 users, as many as there are histories, got 1 users",
    );
    assert!(Jagged::from_lengths(&[2]).unwrap().range(usize::MAX).is_empty());
}

#[test]
fn parts_of_views_are_checked() {
    let numbers = [0.0f32; 4];
    let message = "slice: start and length: expected a part of 4 elements, got 3 elements from 2 on";
    assert_error(Host::view(&numbers).slice(2, 3), message);
    assert_error(Host::view_mut(&mut numbers.clone()).slice(2, 3), message);
    assert_error(
        Host::view(&numbers).slice(usize::MAX, 2),
        &format!(
            "slice: start and length: expected a part of 4 elements, got 2 elements from {} on",
            usize::MAX
        ),
    );
}

#[test]
fn allocations_are_checked() {
    let elements = isize::MAX as usize / 2;
    let message = format!("zeros: out of memory for {} bytes", 4 * elements as u64);
    assert_error(Cpu::new().zeros::<f32>(elements), &message);
}

fn attention(op: &TargetAttention, lengths: [usize; 6], lse: bool) -> Result<()> {
    let batch = batch(&[3], &[2]);
    let [queries, keys, values, bias, out, lse_length] = lengths.map(|length| vec![0.0f32; length]);
    let (mut out, mut lse_out) = (out, lse_length);
    let inputs = TargetAttentionInputs {
        queries: Host::view(&queries),
        keys: Host::view(&keys),
        values: (!values.is_empty()).then(|| Host::view(&values)),
        bias: (!bias.is_empty()).then(|| Host::view(&bias)),
    };
    let lse = lse.then(|| Host::view_mut(&mut lse_out));
    let outputs = TargetAttentionOutputs { out: Host::view_mut(&mut out), lse };
    Cpu::new().target_attention_into(op, &batch, inputs, outputs)
}

#[test]
fn target_attention_checks_its_parameters() {
    let op = TargetAttention::new(4);
    let right = [8, 12, 12, 3, 8, 2];
    attention(&op, right, true).expect("a valid call");
    for (op, expected) in [
        (op.with_heads(0, 1), "heads: expected at least 1, got 0"),
        (op.with_heads(1, 0), "kv_heads: expected at least 1, got 0"),
        (op.with_heads(3, 2), "kv_heads: expected a divisor of heads = 3, got 2"),
        (TargetAttention::new(0), "width: expected at least 1, got 0"),
        (op.with_value_width(0), "value_width: expected at least 1, got 0"),
        (op.with_scale(f32::NAN), "scale: expected a finite number, got NaN"),
        (
            op.with_weighting(Weighting::Silu { divisor: 0.0 }),
            "divisor: expected a finite number other than 0, got 0",
        ),
        (
            op.with_weighting(Weighting::Silu { divisor: f32::INFINITY }),
            "divisor: expected a finite number other than 0, got inf",
        ),
    ] {
        assert_error(attention(&op, right, true), &format!("target_attention: {expected}"));
    }
    assert_error(
        attention(&op.with_weighting(Weighting::Relu), right, true),
        "target_attention: lse with Relu weights is not supported; supported: lse with Softmax weights",
    );
    let huge = TargetAttention::new(usize::MAX / 2);
    assert_error(
        attention(&huge, right, true),
        "target_attention: queries needs 18446744073709551615, above the limit of 9223372036854775807",
    );
    assert!(matches!(huge.output_length(&batch(&[3], &[2])), Err(Error::Limit { .. })));
}

#[test]
fn target_attention_checks_its_buffers() {
    let op = TargetAttention::new(4);
    for (lengths, expected) in [
        ([7, 12, 12, 3, 8, 2], "queries: expected [M, H, d] = [2, 1, 4], 8 elements, got 7 elements"),
        ([8, 13, 12, 3, 8, 2], "keys: expected [N, H_kv, d] = [3, 1, 4], 12 elements, got 13 elements"),
        ([8, 12, 11, 3, 8, 2], "values: expected [N, H_kv, d_v] = [3, 1, 4], 12 elements, got 11 elements"),
        ([8, 12, 12, 2, 8, 2], "bias: expected [N, H] = [3, 1], 3 elements, got 2 elements"),
        ([8, 12, 12, 3, 9, 2], "out: expected [M, H, d_v] = [2, 1, 4], 8 elements, got 9 elements"),
        ([8, 12, 12, 3, 8, 1], "lse: expected [M, H] = [2, 1], 2 elements, got 1 elements"),
    ] {
        assert_error(attention(&op, lengths, true), &format!("target_attention: {expected}"));
    }
    assert_error(
        attention(&op.with_value_width(5), [8, 12, 0, 3, 10, 2], true),
        "target_attention: values: expected values of their own, as d_v = 5 is not d = 4, got none (the keys as values)",
    );
}

#[test]
fn merge_checks_its_buffers() {
    let op = TargetAttention::new(4);
    let merge = |op: &TargetAttention, lengths: [usize; 6]| {
        let [a, a_lse, b, b_lse, mut out, mut lse] = lengths.map(|length| vec![0.0f32; length]);
        let first = PartialAttention { out: Host::view(&a), lse: Host::view(&a_lse) };
        let second = PartialAttention { out: Host::view(&b), lse: Host::view(&b_lse) };
        let lse = Some(Host::view_mut(&mut lse));
        let outputs = TargetAttentionOutputs { out: Host::view_mut(&mut out), lse };
        Cpu::new().merge_attention_into(op, first, second, outputs)
    };
    merge(&op, [8, 2, 8, 2, 8, 2]).expect("a valid call");
    for (lengths, expected) in [
        ([7, 2, 8, 2, 8, 2], "first.out: expected [M·H, d_v] = [2, 4], 8 elements, got 7 elements"),
        ([8, 2, 7, 2, 8, 2], "second.out: expected [M·H, d_v] = [2, 4], 8 elements, got 7 elements"),
        ([8, 2, 8, 3, 8, 2], "second.lse: expected [M·H] = [2], 2 elements, got 3 elements"),
        ([8, 2, 8, 2, 7, 2], "out: expected [M·H, d_v] = [2, 4], 8 elements, got 7 elements"),
        ([8, 2, 8, 2, 8, 3], "lse: expected [M·H] = [2], 2 elements, got 3 elements"),
    ] {
        assert_error(merge(&op, lengths), &format!("merge_attention: {expected}"));
    }
    assert!(matches!(merge(&TargetAttention::new(0), [8, 2, 8, 2, 8, 2]), Err(Error::Parameter { .. })));
}

/// Lengths: targets, history, weight, bias, α, output weight, output bias, out.
fn din(op: &Din, layers: usize, lengths: [usize; 8]) -> Result<()> {
    let [targets, history, weight, bias, alpha, output_weight, output_bias, mut out] =
        lengths.map(|length| vec![0.0f32; length]);
    let layer = DinLayer {
        weight: Host::view(&weight),
        bias: Host::view(&bias),
        activation: Activation::Prelu { alpha: Host::view(&alpha) },
    };
    let hidden = vec![layer; layers];
    let inputs = DinInputs {
        targets: Host::view(&targets),
        history: Host::view(&history),
        hidden: &hidden,
        output_weight: Host::view(&output_weight),
        output_bias: Host::view(&output_bias),
    };
    Cpu::new().din_into(op, &batch(&[3], &[2]), inputs, Host::view_mut(&mut out))
}

#[test]
fn din_checks_its_parameters_and_buffers() {
    let op = Din::new(4);
    din(&op, 1, [8, 12, 80, 5, 5, 5, 1, 8]).expect("a valid call");
    let right = [8, 12, 80, 5, 5, 5, 1, 8];
    assert_error(din(&Din::new(0), 1, right), "din: width: expected at least 1, got 0");
    for layers in [0, 4] {
        let expected = format!(
            "din: a network of {layers} hidden layers is not supported; supported: 1 to 3 hidden layers"
        );
        assert_error(din(&op, layers, right), &expected);
    }
    assert!(matches!(din(&Din::new(usize::MAX / 2), 1, right), Err(Error::Limit { .. })));
    for (layers, lengths, expected) in [
        (1, [7, 12, 80, 5, 5, 5, 1, 8], "targets: expected [M, d] = [2, 4], 8 elements, got 7 elements"),
        (1, [8, 13, 80, 5, 5, 5, 1, 8], "history: expected [N, d] = [3, 4], 12 elements, got 13 elements"),
        (
            1,
            [8, 12, 79, 5, 5, 5, 1, 8],
            "hidden[0].weight: expected [h, 4, d] = [5, 4, 4], 80 elements, got 79 elements",
        ),
        (1, [8, 12, 80, 0, 5, 5, 1, 8], "hidden[0].bias: expected at least 1 element, got 0 elements"),
        (
            1,
            [8, 12, 80, 5, 4, 5, 1, 8],
            "hidden[0].activation.alpha: expected [h] = [5], 5 elements, got 4 elements",
        ),
        (
            2,
            [8, 12, 80, 5, 5, 5, 1, 8],
            "hidden[1].weight: expected [h, h] = [5, 5], 25 elements, got 80 elements",
        ),
        (1, [8, 12, 80, 5, 5, 4, 1, 8], "output_weight: expected [h] = [5], 5 elements, got 4 elements"),
        (1, [8, 12, 80, 5, 5, 5, 2, 8], "output_bias: expected [1] = [1], 1 elements, got 2 elements"),
        (1, [8, 12, 80, 5, 5, 5, 1, 9], "out: expected [M, d] = [2, 4], 8 elements, got 9 elements"),
    ] {
        assert_error(din(&op, layers, lengths), &format!("din: {expected}"));
    }
    let statistics =
        DiceStatistics { mean: &[0.0], variance: &[1.0, 1.0], epsilon: 0.0, gamma: None, beta: None };
    assert_error(
        fold_dice(&statistics),
        "fold_dice: variance: expected [h] = [1], 1 elements, got 2 elements",
    );
}

fn encode(op: &Sdim, rows: usize, hash: Hash<'_, Host>, table: &mut [f32]) -> Result<()> {
    let rows = vec![0.0f32; rows];
    let histories = Jagged::from_lengths(&[3]).expect("small lengths");
    let inputs = SdimHistory { rows: Host::view(&rows), hash };
    Cpu::new().sdim_encode_into(op, &histories, inputs, Host::view_mut(table))?;
    Cpu::new().sdim_append(op, &histories, inputs, Host::view_mut(table))
}

#[test]
fn sdim_checks_its_parameters() {
    let op = Sdim::new(4).with_groups(2, 3);
    let rotations = [0.0; 24];
    let rotate = Hash::Rotations(Host::view(&rotations));
    encode(&op, 12, rotate, &mut [0.0; 64]).expect("a valid call");
    for (op, expected) in [
        (Sdim::new(0), "sdim_encode: width: expected at least 1, got 0"),
        (op.with_groups(0, 3), "sdim_encode: groups: expected at least 1, got 0"),
        (op.with_groups(2, 0), "sdim_encode: bits: expected at least 1, got 0"),
        (
            op.with_groups(2, 17),
            "sdim_encode: a signature of 17 bits is not supported; supported: 1 to 16 bits",
        ),
    ] {
        assert_error(encode(&op, 12, rotate, &mut [0.0; 64]), expected);
        assert!(op.rotations(1).is_err());
        assert!(op.table_length(1).is_err());
    }
    assert!(matches!(Sdim::new(usize::MAX / 8).rotations(1), Err(Error::Limit { .. })));
    assert!(matches!(op.table_length(usize::MAX / 8), Err(Error::Limit { .. })));
    let wide = op.with_groups(2, 9);
    let given = [0u8; 6];
    assert_error(
        encode(&wide, 12, Hash::Signatures8(Host::view(&given)), &mut [0.0; 4096]),
        "sdim_encode: a signature of 9 bits in a u8 is not supported; supported: u8 up to 8 bits, u16 up to 16",
    );
}

#[test]
fn sdim_checks_its_buffers() {
    let op = Sdim::new(4).with_groups(2, 3);
    let (rotations, given) = ([0.0; 24], [0u16; 6]);
    let rotate = Hash::Rotations(Host::view(&rotations));
    let short = Hash::Rotations(Host::view(&rotations[..23]));
    let few = Hash::Signatures16(Host::view(&given[..5]));
    let mut table = [0.0; 64];
    for (rows, hash, table, expected) in [
        (11, rotate, &mut table[..], "rows: expected [N, d] = [3, 4], 12 elements, got 11 elements"),
        (
            12,
            short,
            &mut [0.0; 64],
            "rotations: expected [d, G, τ] = [4, 2, 3], 24 elements, got 23 elements",
        ),
        (12, few, &mut [0.0; 64], "signatures: expected [N, G] = [3, 2], 6 elements, got 5 elements"),
        (
            12,
            rotate,
            &mut [0.0; 63],
            "table: expected [B, G, 2^τ, d] = [1, 2, 8, 4], 64 elements, got 63 elements",
        ),
    ] {
        assert_error(encode(&op, rows, hash, table), &format!("sdim_encode: {expected}"));
    }

    let targets = Jagged::from_lengths(&[2]).expect("small lengths");
    let rows = [0.0f32; 8];
    let query = |table: &[f32], targets_given: Option<&[f32]>, out: usize| {
        let targets_given = targets_given.map(Host::view);
        let inputs = SdimQuery { table: Host::view(table), targets: targets_given, hash: rotate };
        Cpu::new().sdim_query_into(&op, &targets, inputs, Host::view_mut(&mut vec![0.0; out]))
    };
    query(&[0.0; 64], Some(&rows), 8).expect("a valid call");
    assert_error(
        query(&[0.0; 60], Some(&rows), 8),
        "sdim_query: table: expected [B, G, 2^τ, d] = [1, 2, 8, 4], 64 elements, got 60 elements",
    );
    assert_error(
        query(&[0.0; 64], None, 8),
        "sdim_query: targets: expected the rows to hash with the rotations, got none",
    );
    assert_error(
        query(&[0.0; 64], Some(&rows[1..]), 8),
        "sdim_query: targets: expected [M, d] = [2, 4], 8 elements, got 7 elements",
    );
    assert_error(
        query(&[0.0; 64], Some(&rows), 9),
        "sdim_query: out: expected [M, d] = [2, 4], 8 elements, got 9 elements",
    );
    let history_rows = [0.0f32; 12];
    let history = SdimHistory { rows: Host::view(&history_rows), hash: rotate };
    let inputs = SdimInputs { history, targets: None, hash: rotate };
    assert_error(
        Cpu::new().sdim_attend_into(&op, &batch(&[3], &[2]), inputs, Host::view_mut(&mut [0.0; 8])),
        "sdim_attend: targets: expected the rows to hash with the rotations, got none",
    );
    assert_error(
        Cpu::new().sdim_add_tables(&op, Host::view_mut(&mut [0.0; 65]), Host::view(&[0.0; 64])),
        "sdim_add_tables: table: expected [B, G, 2^τ, d] = [1, 2, 8, 4], 64 elements, got 65 elements",
    );
    assert_error(
        Cpu::new().sdim_add_tables(&op, Host::view_mut(&mut [0.0; 64]), Host::view(&[0.0; 65])),
        "sdim_add_tables: other: expected [B, G, 2^τ, d] = [1, 2, 8, 4], 64 elements, got 65 elements",
    );
    let signatures = |rows: &[f32], out: &mut [u8]| {
        Cpu::new().sdim_signatures_into(&op, Host::view(rows), Host::view(&rotations), Host::view_mut(out))
    };
    signatures(&rows, &mut [0; 4]).expect("a valid call");
    assert_error(
        signatures(&rows[1..], &mut [0; 4]),
        "sdim_signatures: rows: expected [rows, d] = [1, 4], 4 elements, got 7 elements",
    );
    assert_error(
        signatures(&rows, &mut [0; 3]),
        "sdim_signatures: out: expected [rows, G] = [2, 2], 4 elements, got 3 elements",
    );
}

#[test]
fn signatures_outside_the_table_are_errors_and_change_nothing() {
    let op = Sdim::new(4).with_groups(2, 3);
    let given = [0u8, 1, 7, 8, 9, 0];
    let mut table = [5.0; 64];
    let expected = "sdim_encode: signatures[3] is 8, but there are only 8 rows";
    assert_error(encode(&op, 12, Hash::Signatures8(Host::view(&given)), &mut table), expected);
    assert_eq!(table, [5.0; 64]);
    let histories = Jagged::from_lengths(&[3]).expect("small lengths");
    let inputs = SdimHistory { rows: Host::view(&[0.0f32; 12]), hash: Hash::Signatures8(Host::view(&given)) };
    assert_error(reference::sdim_encode(&op, &histories, &inputs), expected);
}

/// A table of three rows of width 2, and one of four.
const ROWS3: [f32; 6] = [0.0; 6];
const ROWS4: [f32; 8] = [0.0; 8];

fn table(rows: usize, data: &[f32]) -> Table<'_, Host> {
    Table { rows, width: 2, data: TableData::F32(Host::view(data)) }
}

fn decoupled(
    op: &Decoupled,
    tables: &[Table<'_, Host>],
    ids: &[u32],
    target_ids: &[u32],
    slots: usize,
) -> Result<()> {
    let (ids, target_ids) = (Host::view(ids), Host::view(target_ids));
    let batch = batch(&[3], &[2]);
    let (mut positions, mut scores, mut counts) = (vec![0; slots], vec![0.0; slots], [0; 2]);
    let out = SelectionMut {
        positions: Host::view_mut(&mut positions),
        scores: Host::view_mut(&mut scores),
        counts: Host::view_mut(&mut counts),
    };
    Cpu::new().decoupled_search_into(op, &batch, SearchInputs { attention: tables, ids, target_ids }, out)?;
    let inputs = DecoupledInputs { attention: tables, representation: tables, ids, target_ids };
    Cpu::new().decoupled_attend(op, &batch, inputs).map(|_| ())
}

#[test]
fn decoupled_checks_its_parameters_and_buffers() {
    let op = Decoupled::new([1.0, 0.5]).with_top_k(Some(2));
    let tables = [table(3, &ROWS3), table(4, &ROWS4)];
    let (ids, target_ids) = ([0, 1, 2, 3, 0, 0], [2, 3, 0, 0]);
    decoupled(&op, &tables, &ids, &target_ids, 4).expect("a valid call");
    for (op, expected) in [
        (Decoupled::new([]), "scales: expected a factor per feature, at least one, got none"),
        (Decoupled::new([1.0, f32::INFINITY]), "scales: expected finite numbers, got inf"),
        (op.clone().with_top_k(Some(0)), "top_k: expected at least 1, got 0"),
    ] {
        let expected = format!("decoupled_search: {expected}");
        assert_error(decoupled(&op, &tables, &ids, &target_ids, 4), &expected);
    }
    assert_error(
        decoupled(&op.clone().with_top_k(None), &tables, &ids, &target_ids, 4),
        "decoupled_search: top_k = None is not supported; supported: a top_k; `decoupled_attend` keeps all behaviours with None",
    );
    assert!(matches!(
        decoupled(&op.clone().with_top_k(Some(usize::MAX)), &tables, &ids, &target_ids, 4),
        Err(Error::Limit { .. })
    ));
    let empty = Table { rows: 3, width: 0, data: TableData::F32(Host::view(&[])) };
    let small = table(3, &ROWS3[..5]);
    let four = tables[1];
    for (tables, ids, target_ids, slots, expected) in [
        (
            &[four][..],
            &ids[..],
            &target_ids[..],
            4,
            "attention: expected 2 tables, one per feature, got 1 tables",
        ),
        (&[empty, four], &ids, &target_ids, 4, "attention: expected a width of at least 1, got 0"),
        (
            &[small, four],
            &ids,
            &target_ids,
            4,
            "attention: expected [rows, width] = [3, 2], 6 elements, got 5 elements",
        ),
        (&tables, &ids[1..], &target_ids, 4, "ids: expected [N, F] = [3, 2], 6 elements, got 5 elements"),
        (
            &tables,
            &ids,
            &target_ids[1..],
            4,
            "target_ids: expected [M, F] = [2, 2], 4 elements, got 3 elements",
        ),
        (&tables, &ids, &target_ids, 3, "positions: expected [M, K] = [2, 2], 4 elements, got 3 elements"),
    ] {
        let expected = format!("decoupled_search: {expected}");
        assert_error(decoupled(&op, tables, ids, target_ids, slots), &expected);
    }
    let batch = batch(&[3], &[2]);
    let (ids, target_ids) = (Host::view(&ids), Host::view(&target_ids));
    let swapped = [tables[1], tables[1]];
    let inputs = DecoupledInputs { attention: &tables, representation: &swapped, ids, target_ids };
    assert_error(
        Cpu::new().decoupled_attend(&op, &batch, inputs),
        "decoupled_attend: representation: expected 3 rows, as in `attention`, got 4 rows",
    );
    let inputs = DecoupledInputs { attention: &tables, representation: &tables, ids, target_ids };
    assert_error(
        Cpu::new().decoupled_attend_into(&op, &batch, inputs, Host::view_mut(&mut [0.0; 7])),
        "decoupled_attend: out: expected [M, Σ r] = [2, 4], 8 elements, got 7 elements",
    );
}

#[test]
fn ids_outside_a_table_are_errors_or_zeros() {
    let op = Decoupled::new([1.0, 0.5]).with_top_k(Some(2));
    let tables = [table(3, &ROWS3), table(4, &ROWS4)];
    let (right, wrong) = ([0, 1, 2, 3, 0, 0], [0, 1, 2, 4, 3, 0]);
    assert_error(
        decoupled(&op, &tables, &wrong, &[0; 4], 4),
        "decoupled_search: ids[3] is 4, but there are only 4 rows",
    );
    assert_error(
        decoupled(&op, &tables, &right, &[0, 0, 3, 0], 4),
        "decoupled_search: target_ids[2] is 3, but there are only 3 rows",
    );
    decoupled(&op.with_ids(IdPolicy::Zero), &tables, &wrong, &[u32::MAX; 4], 4).expect("zeros");
}

#[test]
fn selections_from_anywhere_are_checked() {
    let op = Decoupled::new([1.0]).with_top_k(Some(2));
    let tables = [table(3, &ROWS3)];
    let aggregate = |positions: &[u32], counts: &[u32]| {
        let inputs = AggregateInputs {
            representation: &tables,
            ids: Host::view(&[0, 1, 2]),
            target_ids: Host::view(&[0, 1]),
        };
        let scores = vec![0.0; positions.len()];
        let selection = Selection {
            positions: Host::view(positions),
            scores: Host::view(&scores),
            counts: Host::view(counts),
        };
        let by_cpu = Cpu::new().decoupled_aggregate(&op, &batch(&[3], &[2]), inputs, selection).map(|_| ());
        let by_reference =
            reference::decoupled_aggregate(&op, &batch(&[3], &[2]), &inputs, &selection).map(|_| ());
        assert_eq!(by_cpu, by_reference);
        by_cpu
    };
    aggregate(&[0, 2, 1, EMPTY_SLOT], &[2, 1]).expect("a valid selection");
    assert_error(
        aggregate(&[0, 2, 3, EMPTY_SLOT], &[2, 1]),
        "decoupled_aggregate: positions[2] is 3, but there are only 3 rows",
    );
    assert_error(
        aggregate(&[0, 2, 1, EMPTY_SLOT], &[3, 1]),
        "decoupled_aggregate: counts[0] is 3, but there are only 3 rows",
    );
    assert_error(
        aggregate(&[0, 2, 1], &[2, 1]),
        "decoupled_aggregate: positions: expected [M, K] = [2, 2], 4 elements, got 3 elements",
    );
}

#[test]
fn lookup_checks_its_buffers() {
    let (first, second) = ([table(3, &ROWS3)], [table(4, &ROWS4)]);
    let same = [table(3, &ROWS3)];
    let look = |tables: &[Table<'_, Host>],
                second_tables: &[Table<'_, Host>],
                ids: &[u32],
                out: usize,
                second: usize| {
        let (mut out, mut second) = (vec![0.0; out], vec![0.0; second]);
        let inputs = LookupInputs { ids: Host::view(ids), tables, second_tables };
        let second = (!second.is_empty()).then(|| Host::view_mut(&mut second));
        let outputs = LookupOutputs { out: Host::view_mut(&mut out), second };
        Cpu::new().lookup_into(&Lookup::default(), Bags::Each, inputs, outputs)
    };
    look(&first, &same, &[0, 2], 4, 4).expect("a valid call");
    for (result, expected) in [
        (look(&[], &[], &[0, 2], 4, 0), "tables: expected 1 tables, one per feature, got 0 tables"),
        (look(&first, &second, &[0, 2], 4, 4), "second_tables: expected 3 rows, as in `tables`, got 4 rows"),
        (
            look(&first, &[same[0], same[0]], &[0, 2], 4, 4),
            "second_tables: expected 1 tables, one per feature, got 2 tables",
        ),
        (
            look(&first, &[], &[0, 2], 5, 0),
            "out: expected [N or bags, Σ width] = [2, 2], 4 elements, got 5 elements",
        ),
        (look(&first, &same, &[0, 2], 4, 0), "second: expected an output for the second tables, got none"),
        (
            look(&first, &[], &[0, 2], 4, 4),
            "second: expected none, as there are no second tables, got an output",
        ),
        (
            look(&[first[0], first[0]], &[], &[0, 2, 1], 4, 0),
            "ids: expected [N, F] = [1, 2], 2 elements, got 3 elements",
        ),
    ] {
        assert_error(result, &format!("lookup: {expected}"));
    }
    assert_error(look(&first, &[], &[0, 3], 4, 0), "lookup: ids[1] is 3, but there are only 3 rows");
    let bags = Jagged::from_lengths(&[2, 1]).expect("small lengths");
    let inputs = LookupInputs { ids: Host::view(&[0, 1]), tables: &first, second_tables: &[] };
    let message = "lookup: ids: expected [N, F] = [3, 1], 3 elements, got 2 elements";
    assert_error(Cpu::new().lookup(&Lookup::default(), Bags::Sum(&bags), inputs).map(|_| ()), message);
}
