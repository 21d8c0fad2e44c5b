//! Gradients of attention over a selection whose values are rows of tables.

use longseq::reference::*;
use longseq::*;

use super::*;

/// Where keys come from.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Keys {
    Rows,
    Tables,
    Values,
}

/// Inputs, and the gradients that come in.
struct Case {
    op: SelectedAttention,
    from: Keys,
    batch: Batch,
    queries: Vec<f32>,
    keys: Vec<f32>,
    key_tables: [Vec<f32>; 2],
    values: [Vec<f32>; 2],
    ids: Vec<u32>,
    bias: Vec<f32>,
    gammas: Vec<f32>,
    positions: Vec<u32>,
    similarities: Vec<f32>,
    counts: Vec<u32>,
    grad_out: Vec<f64>,
    grad_lse: Vec<f64>,
}

/// The slots of a candidate, and the rows of both features' tables: fewer than behaviours.
const TOP_K: usize = 3;
const ROWS: [usize; 2] = [4, 3];
/// The widths of both features' tables of values, and of those of keys: heads end within a table's row.
const VALUE_WIDTHS: [usize; 2] = [3, 1];
const KEY_WIDTHS: [usize; 2] = [1, 3];

fn tables(data: &[Vec<f32>; 2], widths: [usize; 2]) -> [Table<'_, Host>; 2] {
    [0, 1].map(|f| Table::new(ROWS[f], widths[f], TableData::F32(Host::view(&data[f]))))
}

impl Case {
    /// Two heads of width 2 on each side; ids outside their tables where that is no error.
    fn new(from: Keys, heads: usize, ids: IdPolicy) -> Self {
        let op = SelectedAttention::new(2).with_heads(heads, 2).with_top_k(TOP_K).with_ids(ids);
        let mut numbers = Numbers(5);
        let batch = batch(&[4, 0, 3, 1, 2], &[3, 3, 2, 2, 0], 1);
        let (n, m) = (batch.histories().rows(), batch.targets().rows());
        let (mut positions, mut counts) = (vec![EMPTY_SLOT; m * TOP_K], vec![u32::MAX; m]);
        for (history, targets) in batch.requests() {
            for m in targets {
                let kept = if m % 4 == 2 { TOP_K - 1 } else { TOP_K }.min(history.len());
                counts[m] = kept as u32;
                let slots = positions[m * TOP_K..].iter_mut().take(kept);
                slots.enumerate().for_each(|(slot, place)| *place = ((slot + m) % history.len()) as u32);
            }
        }
        // The second candidate keeps a behaviour twice.
        positions[TOP_K] = positions[TOP_K + 1];
        let mut table = |widths: [usize; 2]| [0, 1].map(|f| numbers.f32(ROWS[f] * widths[f]));
        let (key_tables, values) = (table(KEY_WIDTHS), table(VALUE_WIDTHS));
        let mut history_ids: Vec<u32> =
            (0..n).flat_map(|l| [l * 7 % ROWS[0], l * 5 % ROWS[1]].map(|id| id as u32)).collect();
        if ids == IdPolicy::Zero {
            (history_ids[2], history_ids[9]) = (ROWS[0] as u32, u32::MAX);
        }
        Self {
            op,
            from,
            queries: numbers.f32(m * heads * 2),
            keys: numbers.f32(n * 2 * 2),
            key_tables,
            values,
            ids: history_ids,
            bias: numbers.f32(n * heads),
            gammas: numbers.f32(3 * heads),
            positions,
            similarities: numbers.f32(m * TOP_K),
            counts,
            grad_out: numbers.f64(m * heads * 2),
            grad_lse: numbers.f64(m * heads),
            batch,
        }
    }

    fn with_inputs<R>(&self, run: impl FnOnce(&SelectedTableInputs<'_, Host, f32>) -> R) -> R {
        let key_tables = tables(&self.key_tables, KEY_WIDTHS);
        let values = tables(&self.values, VALUE_WIDTHS);
        let keys = match self.from {
            Keys::Rows => SelectedKeys::Rows(Host::view(&self.keys)),
            Keys::Tables => SelectedKeys::Tables(&key_tables),
            Keys::Values => SelectedKeys::Values,
        };
        let kept = Selection::new(
            Host::view(&self.positions),
            Host::view(&self.similarities),
            Host::view(&self.counts),
        );
        let (queries, ids) = (Host::view(&self.queries[..]), Host::view(&self.ids[..]));
        let inputs = SelectedTableInputs::new(queries, keys, &values, ids, kept)
            .with_bias(Host::view(&self.bias))
            .with_gammas(Host::view(&self.gammas));
        run(&inputs)
    }

    fn loss(&self) -> f64 {
        let result = self
            .with_inputs(|inputs| selected_table_attention(&self.op, &self.batch, inputs))
            .expect("a valid case");
        // The lse of a candidate that keeps nothing is -∞, whatever the inputs.
        let finite = |(lse, grad): (&f64, &f64)| if lse.is_finite() { lse * grad } else { 0.0 };
        dot(&result.out, &self.grad_out) + result.lse.iter().zip(&self.grad_lse).map(finite).sum::<f64>()
    }

    fn gradient(&self) -> SelectedTableGradientReference {
        let (op, batch) = (&self.op, &self.batch);
        self.with_inputs(|inputs| {
            selected_table_attention_backward(op, batch, inputs, &self.grad_out, Some(&self.grad_lse))
        })
        .expect("a valid case")
    }

    fn tensors(&mut self) -> Vec<Tensor<'_>> {
        let [first, second] = &mut self.values;
        let mut tensors = vec![
            ("queries", &mut self.queries),
            ("values[0]", first),
            ("values[1]", second),
            ("bias", &mut self.bias),
            ("gammas", &mut self.gammas),
            ("similarities", &mut self.similarities),
        ];
        let [first, second] = &mut self.key_tables;
        match self.from {
            Keys::Rows => tensors.push(("keys", &mut self.keys)),
            Keys::Tables => tensors.extend([("keys[0]", first), ("keys[1]", second)]),
            Keys::Values => {}
        }
        tensors
    }

    fn compare(&mut self, gradient: SelectedTableGradientReference) -> Result<(), String> {
        let of = |f: usize, tables: &[SparseGradientReference], widths: [usize; 2]| {
            dense(&tables[f], ROWS[f], widths[f])
        };
        let mut gradients = vec![
            ("queries", gradient.queries),
            ("values[0]", of(0, &gradient.values, VALUE_WIDTHS)),
            ("values[1]", of(1, &gradient.values, VALUE_WIDTHS)),
            ("bias", gradient.bias.expect("a bias")),
            ("gammas", gradient.gammas.expect("gammas")),
            ("similarities", gradient.similarities),
        ];
        match self.from {
            Keys::Rows => gradients.push(("keys", gradient.keys)),
            Keys::Tables => gradients.extend([
                ("keys[0]", of(0, &gradient.key_tables, KEY_WIDTHS)),
                ("keys[1]", of(1, &gradient.key_tables, KEY_WIDTHS)),
            ]),
            Keys::Values => assert!(gradient.keys.is_empty() && gradient.key_tables.is_empty()),
        }
        compare_with_differences(self, Self::tensors, Self::loss, &gradients)
    }
}

#[test]
fn of_keys_from_anywhere() {
    for from in [Keys::Rows, Keys::Tables, Keys::Values] {
        for heads in [2, 4] {
            for ids in [IdPolicy::Error, IdPolicy::Zero] {
                let mut case = Case::new(from, heads, ids);
                let gradient = case.gradient();
                case.compare(gradient).unwrap_or_else(|error| panic!("{from:?}, {heads}, {ids:?}: {error}"));
            }
        }
    }
}

/// Looked-up rows are like given ones.
#[test]
fn tables_are_like_their_rows() {
    let case = Case::new(Keys::Tables, 2, IdPolicy::Zero);
    let rows = |tables: &[Vec<f32>; 2], widths: [usize; 2]| -> Vec<f32> {
        let row = |(place, &id): (usize, &u32)| {
            let (f, id) = (place % 2, id as usize);
            let data = tables[f].get(id * widths[f]..(id + 1) * widths[f]);
            data.map_or(vec![0.0; widths[f]], <[f32]>::to_vec)
        };
        case.ids.iter().enumerate().flat_map(row).collect()
    };
    let (keys, values) = (rows(&case.key_tables, KEY_WIDTHS), rows(&case.values, VALUE_WIDTHS));
    case.with_inputs(|inputs| {
        let mut given = SelectedAttentionInputs::new(inputs.queries, Host::view(&keys), inputs.selection)
            .with_values(Host::view(&values));
        (given.bias, given.gammas) = (inputs.bias, inputs.gammas);
        let expected = selected_attention(&case.op, &case.batch, &given);
        assert_eq!(selected_table_attention(&case.op, &case.batch, inputs), expected);
    });
}

/// The comparison sees what a faulty backward pass is likely to forget.
#[test]
fn wrong_ones_are_noticed() {
    let mut case = Case::new(Keys::Values, 2, IdPolicy::Error);
    let right = case.gradient();
    case.compare(right.clone()).expect("the right one");

    // As if the last of the behaviours with an id were the only one, or one of them were left out.
    let mut wrong = right.clone();
    wrong.values[0].rows.iter_mut().for_each(|grad| *grad *= 0.5);
    assert!(case.compare(wrong).is_err());

    // The rows of another id.
    let mut wrong = right;
    wrong.values[1].rows.rotate_left(VALUE_WIDTHS[1]);
    assert!(case.compare(wrong).is_err());
}
