//! Decoupled embeddings and look-ups.

use longseq::*;

use super::{assert_error, batch};

/// A table of three rows of width 2, and one of four.
const ROWS3: [f32; 6] = [0.0; 6];
const ROWS4: [f32; 8] = [0.0; 8];

fn table(rows: usize, data: &[f32]) -> Table<'_, Host> {
    Table::new(rows, 2, TableData::F32(Host::view(data)))
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
    let out = SelectionMut::new(
        Host::view_mut(&mut positions),
        Host::view_mut(&mut scores),
        Host::view_mut(&mut counts),
    );
    Cpu::new().decoupled_search_into(op, &batch, SearchInputs::new(tables, ids, target_ids), out)?;
    let inputs = DecoupledInputs::new(tables, tables, ids, target_ids);
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
    let empty = Table::new(3, 0, TableData::F32(Host::view(&[])));
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
        (
            &tables,
            &ids[1..],
            &target_ids,
            4,
            "history_ids: expected [N, F] = [3, 2], 6 elements, got 5 elements",
        ),
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
    let inputs = DecoupledInputs::new(&tables, &swapped, ids, target_ids);
    assert_error(
        Cpu::new().decoupled_attend(&op, &batch, inputs),
        "decoupled_attend: representation: expected 3 rows, as in `attention`, got 4 rows",
    );
    let inputs = DecoupledInputs::new(&tables, &tables, ids, target_ids);
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
        "decoupled_search: history_ids[3] is 4, which must be below 4",
    );
    assert_error(
        decoupled(&op, &tables, &right, &[0, 0, 3, 0], 4),
        "decoupled_search: target_ids[2] is 3, which must be below 3",
    );
    decoupled(&op.with_ids(IdPolicy::Zero), &tables, &wrong, &[u32::MAX; 4], 4).expect("zeros");
}

#[test]
fn selections_from_anywhere_are_checked() {
    let op = Decoupled::new([1.0]).with_top_k(Some(2));
    let tables = [table(3, &ROWS3)];
    let aggregate = |positions: &[u32], counts: &[u32]| {
        let inputs = AggregateInputs::new(&tables, Host::view(&[0, 1, 2]), Host::view(&[0, 1]));
        let scores = vec![0.0; positions.len()];
        let selection = Selection::new(Host::view(positions), Host::view(&scores), Host::view(counts));
        let by_cpu = Cpu::new().decoupled_aggregate(&op, &batch(&[3], &[2]), inputs, selection).map(|_| ());
        let by_reference =
            reference::decoupled_aggregate(&op, &batch(&[3], &[2]), &inputs, &selection).map(|_| ());
        assert_eq!(by_cpu, by_reference);
        by_cpu
    };
    aggregate(&[0, 2, 1, EMPTY_SLOT], &[2, 1]).expect("a valid selection");
    assert_error(
        aggregate(&[0, 2, 3, EMPTY_SLOT], &[2, 1]),
        "decoupled_aggregate: positions[2] is 3, which must be below 3",
    );
    assert_error(
        aggregate(&[0, 2, 1, EMPTY_SLOT], &[3, 1]),
        "decoupled_aggregate: counts[0] is 3, which must be below 3",
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
        let inputs = LookupInputs::new(Host::view(ids), tables).with_second_tables(second_tables);
        let mut outputs = LookupOutputs::new(Host::view_mut(&mut out));
        if !second.is_empty() {
            outputs = outputs.with_second(Host::view_mut(&mut second));
        }
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
    assert_error(look(&first, &[], &[0, 3], 4, 0), "lookup: ids[1] is 3, which must be below 3");
    let bags = Jagged::from_lengths(&[2, 1]).expect("small lengths");
    let inputs = LookupInputs::new(Host::view(&[0, 1]), &first);
    let message = "lookup: ids: expected [N, F] = [3, 1], 3 elements, got 2 elements";
    assert_error(Cpu::new().lookup(&Lookup::default(), Bags::Sum(&bags), inputs).map(|_| ()), message);
}
