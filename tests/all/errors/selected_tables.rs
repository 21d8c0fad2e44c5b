//! Attention over a selection from tables, and its gradients.

use longseq::*;

use super::{assert_error, batch};

static NUMBERS: [f32; 64] = [0.0; 64];
static CODES: [i8; 64] = [0; 64];
static PLACES: [u32; 8] = [0; 8];

/// Tables of four rows, of these widths.
fn tables<const F: usize>(widths: [usize; F]) -> [Table<'static, Host>; F] {
    widths.map(|width| Table::new(4, width, TableData::F32(Host::view(&NUMBERS[..4 * width]))))
}

fn keys(length: usize) -> SelectedKeys<'static, Host, f32> {
    SelectedKeys::Rows(Host::view(&NUMBERS[..length]))
}

/// Two features, three behaviours, and two candidates that keep two each.
fn inputs<'a>(
    keys: SelectedKeys<'a, Host, f32>,
    values: &'a [Table<'a, Host>],
    ids: &'a [u32],
) -> SelectedTableInputs<'a, Host, f32> {
    let kept = Selection::new(Host::view(&PLACES[..4]), Host::view(&NUMBERS[..4]), Host::view(&PLACES[..2]));
    SelectedTableInputs::new(Host::view(&NUMBERS[..8]), keys, values, Host::view(ids), kept)
}

fn attention(op: &SelectedAttention, inputs: SelectedTableInputs<'_, Host, f32>) -> Result<()> {
    let mut out = vec![0.0; 2 * op.heads * op.value_width];
    let outputs = SelectedAttentionOutputs::new(Host::view_mut(&mut out));
    Cpu::new().selected_table_attention_into(op, &batch(&[3], &[2]), inputs, outputs)
}

fn op() -> SelectedAttention {
    SelectedAttention::new(4).with_top_k(2)
}

#[test]
fn selected_table_attention_checks_its_tables() {
    let (values, ids) = (tables([3, 1]), &PLACES[..6]);
    attention(&op(), inputs(keys(12), &values, ids)).expect("a valid call");
    attention(&op(), inputs(SelectedKeys::Values, &values, ids)).expect("a valid call");
    attention(&op(), inputs(SelectedKeys::Tables(&tables([2, 2])), &values, ids)).expect("a valid call");
    let other_rows = [tables([2])[0], Table::new(3, 2, TableData::F32(Host::view(&NUMBERS[..6])))];
    let short = [Table::new(4, 4, TableData::F32(Host::view(&NUMBERS[..15])))];
    for (keys, values, ids, expected) in [
        (keys(11), &values[..], 6, "keys: expected [N, H_kv, d] = [3, 1, 4], 12 elements, got 11 elements"),
        (keys(12), &values, 5, "history_ids: expected [N, F] = [3, 2], 6 elements, got 5 elements"),
        (keys(12), &[], 0, "values: expected 1 tables, one per feature, got 0 tables"),
        (
            keys(12),
            &tables([3, 2]),
            6,
            "values: expected widths that add up to H_kv·d_v = 4, got widths that add up to 5",
        ),
        (keys(12), &tables([4, 0]), 6, "values: expected a width of at least 1, got 0"),
        (keys(12), &short, 3, "values: expected [rows, width] = [4, 4], 16 elements, got 15 elements"),
        (
            SelectedKeys::Tables(&tables([4])),
            &values,
            6,
            "keys: expected 2 tables, one per feature, got 1 tables",
        ),
        (
            SelectedKeys::Tables(&tables([1, 2])),
            &values,
            6,
            "keys: expected widths that add up to H_kv·d = 4, got widths that add up to 3",
        ),
        (SelectedKeys::Tables(&other_rows), &values, 6, "keys: expected 4 rows, as in `values`, got 3 rows"),
    ] {
        let result = attention(&op(), inputs(keys, values, &PLACES[..ids]));
        assert_error(result, &format!("selected_table_attention: {expected}"));
    }
    assert_error(
        attention(&op().with_value_width(5), inputs(SelectedKeys::Values, &tables([4, 1]), ids)),
        "selected_table_attention: keys: expected keys of their own, as d = 4 is not d_v = 5, got the values as keys",
    );
}

#[test]
fn selected_table_attention_checks_its_other_arguments() {
    let (values, ids) = (tables([3, 1]), &PLACES[..6]);
    let right = inputs(keys(12), &values, ids);
    let mut queries = right;
    queries.queries = Host::view(&NUMBERS[..9]);
    let bias = right.with_bias(Host::view(&NUMBERS[..2]));
    let gammas = right.with_gammas(Host::view(&NUMBERS[..4]));
    let mut counts = right;
    counts.selection = Selection::new(right.selection.positions, right.selection.scores, Host::view(&[1, 3]));
    for (op, inputs, expected) in [
        (op().with_heads(3, 2), right, "kv_heads: expected a divisor of heads = 3, got 2"),
        (
            op().with_ids(IdPolicy::Skip),
            right,
            "ids: expected IdPolicy::Error or IdPolicy::Zero, got IdPolicy::Skip",
        ),
        (op(), queries, "queries: expected [M, H, d] = [2, 1, 4], 8 elements, got 9 elements"),
        (op(), bias, "bias: expected [N, H] = [3, 1], 3 elements, got 2 elements"),
        (op(), gammas, "gammas: expected [H, 3] = [1, 3], 3 elements, got 4 elements"),
        (op(), counts, "counts[1] is 3, which must be below 3"),
    ] {
        assert_error(attention(&op, inputs), &format!("selected_table_attention: {expected}"));
    }
    let mut out = [0.0; 7];
    let outputs = SelectedAttentionOutputs::new(Host::view_mut(&mut out));
    assert_error(
        Cpu::new().selected_table_attention_into(&op(), &batch(&[3], &[2]), right, outputs),
        "selected_table_attention: out: expected [M, H, d_v] = [2, 1, 4], 8 elements, got 7 elements",
    );
}

/// Whoever keeps the behaviour, or nobody.
#[test]
fn selected_table_attention_finds_ids_outside() {
    let values = tables([3, 1]);
    let run = |ids: [u32; 6], policy| {
        attention(&op().with_ids(policy), inputs(SelectedKeys::Values, &values, &ids))
    };
    run([0, 3, 3, 0, 1, 2], IdPolicy::Error).expect("a valid call");
    let expected = "selected_table_attention: history_ids[5] is 4, which must be below 4";
    assert_error(run([0, 3, 3, 0, 1, 4], IdPolicy::Error), expected);
    run([0, 3, 3, 0, u32::MAX, 4], IdPolicy::Zero).expect("a valid call");
}

/// Gradients of queries, keys, bias, `γ` and similarities, with these lengths (0: not asked for), and of both kinds of tables.
fn backward(
    inputs: SelectedTableInputs<'_, Host, f32>,
    lengths: [usize; 6],
    key_tables: Vec<Option<TableGradient<'_, Host>>>,
    values: Vec<Option<TableGradient<'_, Host>>>,
) -> Result<()> {
    let mut buffers: Vec<Vec<f32>> = lengths[1..].iter().map(|&length| vec![0.0; length]).collect();
    let mut views = buffers.iter_mut().map(|numbers| match numbers.len() {
        0 => None,
        _ => Some(Host::view_mut(numbers)),
    });
    let mut next = || views.next().flatten();
    let mut grads = SelectedTableGradients::<Host, f32>::new();
    (grads.queries, grads.keys, grads.bias) = (next(), next(), next());
    (grads.gammas, grads.similarities) = (next(), next());
    (grads.key_tables, grads.values) = (key_tables, values);
    let grad_out = SelectedAttentionGradOut::new(Host::view(&NUMBERS[..lengths[0]]));
    Cpu::new().selected_table_attention_backward_into(&op(), &batch(&[3], &[2]), inputs, grad_out, grads)
}

#[test]
fn gradients_of_selected_table_attention_check_their_buffers() {
    let (values, ids) = (tables([3, 1]), &PLACES[..6]);
    let right = [8, 8, 12, 0, 0, 4];
    backward(inputs(keys(12), &values, ids), right, vec![], vec![]).expect("a valid call");
    for (place, length, expected) in [
        (0, 7, "grad_out.out: expected [M, H, d_v] = [2, 1, 4], 8 elements, got 7 elements"),
        (1, 9, "grads.queries: expected [input] = [8], 8 elements, got 9 elements"),
        (2, 11, "grads.keys: expected [input] = [12], 12 elements, got 11 elements"),
        (3, 3, "grads.bias: expected no gradient of an input that is not given, got a view to write it to"),
        (4, 3, "grads.gammas: expected no gradient of an input that is not given, got a view to write it to"),
        (5, 3, "grads.similarities: expected [input] = [4], 4 elements, got 3 elements"),
    ] {
        let mut lengths = right;
        lengths[place] = length;
        let result = backward(inputs(keys(12), &values, ids), lengths, vec![], vec![]);
        assert_error(result, &format!("selected_table_attention_backward: {expected}"));
    }
    assert_error(
        backward(inputs(SelectedKeys::Values, &values, ids), right, vec![], vec![]),
        "selected_table_attention_backward: grads.keys: expected no gradient of an input that is not given, got a view to write it to",
    );
}

/// No gradient but those of tables.
const NONE: [usize; 6] = [8, 0, 0, 0, 0, 0];

fn dense(rows: &mut [f32]) -> Option<TableGradient<'_, Host>> {
    Some(TableGradient::Dense(Host::view_mut(rows)))
}

#[test]
fn gradients_of_selected_table_attention_check_their_tables() {
    let (values, ids) = (tables([3, 1]), &PLACES[..6]);
    let int8 = TableData::Int8 {
        codes: Host::view(&CODES[..16]),
        scale: Host::view(&NUMBERS[..4]),
        offset: Host::view(&NUMBERS[..4]),
    };
    let int8 = [Table::new(4, 4, int8)];
    let (mut first, mut second, mut third, mut wide) = ([0.0; 12], [0.0; 12], [0.0; 12], [0.0; 16]);
    let right = inputs(keys(12), &values, ids);
    backward(right, NONE, vec![], vec![dense(&mut first), None]).expect("a valid call");
    let (mut places, mut rows, mut count) = ([0; 2], [0.0; 6], [0]);
    let small = SparseGradientMut::new(
        Host::view_mut(&mut places),
        Host::view_mut(&mut rows),
        Host::view_mut(&mut count),
    );
    let results = [
        backward(right, NONE, vec![], vec![dense(&mut first)]),
        backward(right, NONE, vec![], vec![dense(&mut second[..11]), None]),
        backward(right, NONE, vec![dense(&mut third), None], vec![]),
        backward(right, NONE, vec![], vec![Some(small.into()), None]),
        backward(inputs(keys(12), &int8, &ids[..3]), NONE, vec![], vec![dense(&mut wide)]),
    ];
    let expected = [
        "grads.values: expected none, or 2, one per table, got 1",
        "grads.values: expected [rows, width] = [4, 3], 12 elements, got 11 elements",
        "grads.key_tables: expected none, or 0, one per table, got 2",
        "grads.values: expected a capacity of at least 3 rows, got 2 rows",
        "grads.values[0], the gradient of an int8 table, is not supported; supported: gradients of f32, f16 and bf16 tables; int8 tables are read",
    ];
    for (result, expected) in results.into_iter().zip(expected) {
        assert_error(result, &format!("selected_table_attention_backward: {expected}"));
    }
}
