//! Shaders of attention over a selection, its gradients and histograms that are wrong on purpose.

use longseq::*;
use longseq_check::data::Ids;
use longseq_check::search::{Compared, NewestCase, SearchCase};
use longseq_check::selected::{
    Choice, HistogramCase, KeysFrom, Mix, SelectedBackwardCase, SelectedCase, SelectedTableBackwardCase,
    SelectedTableCase,
};
use longseq_check::target_attention::Bias;

use super::wrong_shaders::{Twin, twin, twin_of_check};

/// Rows of more than 64 numbers, of which 16 threads have more than a vec4 each.
fn wide() -> SelectedCase {
    SelectedCase {
        histories: vec![60, 40],
        targets: vec![3, 4],
        width: 80,
        value_width: Some(20),
        mix: Mix::All([0.5, 0.3, 1.0]),
        ..Default::default()
    }
}

/// Heads that share keys, with a bias.
fn grouped() -> SelectedCase {
    SelectedCase { width: 16, value_width: Some(16), heads: 4, kv_heads: 2, bias: Bias::Normal, ..wide() }
}

/// More slots than a part has.
fn parts() -> SelectedCase {
    let (histories, targets) = (vec![400], vec![3]);
    SelectedCase { histories, targets, top_k: 300, choice: Choice::Oldest, ..grouped() }
}

fn gradients(forward: &SelectedCase) -> SelectedBackwardCase {
    SelectedBackwardCase { forward: forward.clone(), with_grad_lse: true, ..Default::default() }
}

pub(super) fn twins() -> Vec<Twin> {
    let lists = [attention(), of_candidates(), of_behaviours(), of_tables(), histograms(), checks()];
    lists.into_iter().flatten().collect()
}

fn attention() -> Vec<Twin> {
    let (wide, grouped, parts) = (wide(), grouped(), parts());
    let masked = SelectedCase { bias: Bias::Mask, mix: Mix::All([0.0, 1.0, 0.0]), ..grouped.clone() };
    let removed = SelectedCase { some_removed: true, ..wide.clone() };
    let of = |case: &SelectedCase, right: &'static str, wrong: &'static str| {
        twin(case, "selected/attend", right, wrong)
    };
    vec![
        // The rows of the first user; removed behaviours kept.
        twin(
            &wide,
            "selection/given",
            "row = history.x - params.first_history + position;",
            "row = position;",
        ),
        twin(&removed, "selection/given", "} else if !is_removed(score) {", "} else {"),
        // Columns left out; lanes left out; the scale, a bias and a term left out; a bias of -∞ that removes nothing.
        of(&wide, "sums += queries_vec4(", "sums = queries_vec4("),
        of(&wide, "lane < lanes; lane++", "lane + 1u < lanes; lane++"),
        of(&wide, "var score = params.scale * product;", "var score = product;"),
        of(&grouped, "score += added;", ""),
        of(&wide, "term(gamma.z, score * similarity)", "term(gamma.z, score)"),
        of(&masked, "if is_removed(added) {", "if false {"),
        // The key of another head; rows of some threads left out; weights that do not add up to 1.
        of(&grouped, "+ head / (params.heads / params.kv_heads);", ";"),
        of(&wide, "sum += column_sums[other];", "sum = column_sums[other];"),
        of(&wide, "0.5 * (numbers[slot] / row_sum)", "0.5 * numbers[slot]"),
        of(&wide, "all += exchanged[other];", "all = exchanged[other];"),
        of(&wide, "row_max + log(row_sum)", "row_max + log2(row_sum)"),
        // Parts that weigh alike; all of them the first.
        of(&parts, "out[params.first_stats + 2u * row + 1u] = row_sum;", ""),
        of(&parts, "candidate * params.top_k + first,", "candidate * params.top_k,"),
    ]
}

fn of_candidates() -> Vec<Twin> {
    let (wide, grouped, parts) = (gradients(&wide()), gradients(&grouped()), gradients(&parts()));
    let scores = "selected/backward_scores";
    let weights = "selected/backward_weights";
    vec![
        // Columns left out; the lanes of keys for those of values; scores where γ leaves them out.
        twin(&gradients(&wide_values()), scores, "sums += grad_out_vec4(", "sums = grad_out_vec4("),
        twin(
            &wide,
            scores,
            "product = sum_of_lanes(thread, params.value_lanes);",
            "product = products[thread];",
        ),
        twin(&wide, scores, "vec4<f32>(found.alpha, found.score,", "vec4<f32>(found.alpha, found.alpha,"),
        // Terms left out.
        twin(&wide, weights, "weight * (pair.z - subtracted)", "weight * pair.z"),
        twin(&wide, weights, "subtracted -= grad_lse[", "subtracted += grad_lse["),
        twin(&wide, weights, "(gamma.x + term(gamma.z, similarity))", "gamma.x"),
        twin(&wide, weights, "(gamma.y + term(gamma.z, pair.y))", "gamma.y"),
        twin(&wide, weights, "pair.y * similarity);", "pair.y);"),
        twin(&grouped, weights, "+ 3u * group + i] = sum;", "+ 3u * candidate + i] = sum;"),
        // The scale left out; the gradients of another head; parts overwritten.
        twin(&wide, "selected/backward_queries", "params.scale * weighted_sum(", "weighted_sum("),
        twin(&grouped, "selected/backward_queries", "* params.heads + part.head];", "* params.heads];"),
        twin(&parts, "selected/backward_queries", "* params.parts + part.number)", "* params.parts)"),
        twin(&grouped, "selected/sum_heads", "sum += bitcast", "sum = bitcast"),
    ]
}

/// Values of more than 64 numbers.
fn wide_values() -> SelectedCase {
    SelectedCase { value_width: Some(80), ..wide() }
}

fn of_behaviours() -> Vec<Twin> {
    let grouped_forward = grouped();
    let aliased = gradients(&SelectedCase { value_width: None, ..grouped_forward.clone() });
    let odd = gradients(&SelectedCase { width: 7, value_width: Some(5), ..grouped_forward.clone() });
    let grouped = gradients(&grouped_forward);
    let windows = "selected/gradient_windows";
    vec![
        // The gradients of the keys as values overwritten; a head left out; the part of another head; the scale left out.
        twin(&aliased, windows, "out[place + e] += value[e];", "out[place + e] = value[e];"),
        twin(&grouped, windows, "head < first + params.group_heads", "head < first + 1u"),
        twin(&grouped, windows, "let first = column / params.part_width *", "let first = 0u *"),
        twin(&grouped, windows, "return params.factor * sum_of_group(", "return sum_of_group("),
        twin(&odd, windows, "value[e] = params.factor *", "value[e] ="),
        // The query of another candidate; the bias of another head.
        twin(&grouped, windows, "position / params.top_k * params.heads", "0u"),
        twin(&grouped, windows, "* params.heads + column + e];", "* params.heads];"),
    ]
}

fn of_tables() -> Vec<Twin> {
    let forward = SelectedCase { some_removed: true, ..grouped() };
    let plain = SelectedTableCase { forward, keys: KeysFrom::Tables, ..Default::default() };
    let odd = SelectedTableCase { table_rows: vec![20, 7, 9], ..plain.clone() };
    let aliased = SelectedTableCase { keys: KeysFrom::Values, ..plain.clone() };
    let given = SelectedTableCase { keys: KeysFrom::Rows, ..plain.clone() };
    let gradients = |forward: &SelectedTableCase| SelectedTableBackwardCase {
        forward: forward.clone(),
        ..Default::default()
    };
    // Removed by the bias: their ids are no others'.
    let masked = SelectedCase { bias: Bias::Mask, ..grouped() };
    let masked = SelectedTableCase {
        forward: masked,
        table_rows: vec![5000, 3000],
        ids: Ids::Uniform,
        ..plain.clone()
    };
    let (slots, keys, windows) = ("selected/slots", "selected/slot_keys", "selected/gradient_windows");
    vec![
        // The rows of behaviours for those of slots; the ids of another behaviour; the keys and the bias of another.
        twin(&plain, slots, "select(slot, NONE, row == NONE)", "select(row, NONE, row == NONE)"),
        twin(&plain, slots, "ids[params.ids_base + row * params.features + feature]", "ids[params.ids_base]"),
        twin(&given, slots, "behaviours[slot] = row;", "behaviours[slot] = 0u;"),
        // Ids of what is removed; those of all slots if the first has any.
        twin(&gradients(&masked), keys, "numbers[first + head] != NONE", "true"),
        twin(&gradients(&masked), keys, "index / params.features * params.heads", "0u"),
        // The columns of another table; what values add overwritten by what keys do.
        twin(&gradients(&plain), windows, "params.first_column + column);", "column);"),
        twin(&gradients(&odd), windows, "params.first_column + column + e)", "column + e)"),
        twin(&gradients(&aliased), windows, "out[place + e] += value[e];", "out[place + e] = value[e];"),
    ]
}

fn histograms() -> Vec<Twin> {
    let counted = HistogramCase { edges: true, targets: vec![5, 3], ..Default::default() };
    let (histories, targets) = (vec![3000, 5], vec![13, 2]);
    let search = SearchCase { histories, targets, width: 6, top_k: 2500, ..Default::default() };
    let cosine = NewestCase { search: search.clone(), steps: 10 };
    let score = SearchScore::Dot { scale: 0.1 };
    let dot = SearchCase { score, bias: true, stored: Compared::Int8, ..search };
    let dot = NewestCase { search: dot, steps: 10 };
    let newest = "selected/newest";
    vec![
        twin(&counted, "selected/histogram", "ceil(clamp(", "floor(clamp("),
        twin(&counted, "selected/histogram", "m * params.top_k + k]", "k]"),
        // Behaviours and candidates left out; those past the end counted; pieces overwritten; rows of zeros counted.
        twin(&cosine, newest, "if counts.z { count(s.a2, 0u, rows.z); }", ""),
        twin(
            &cosine,
            newest,
            "if counts.x { count(s.b0, 4u, rows.z); }",
            "if counts.x { count(s.a0, 4u, rows.z); }",
        ),
        twin(&cosine, newest, "var counts = l < vec4<u32>(span.y);", "var counts = vec4<bool>(true);"),
        twin(&cosine, newest, "atomicAdd(&out[first + i], more);", "atomicStore(&out[first + i], more);"),
        twin(&cosine, newest, "counts = counts & (scales.powers > vec4<f32>());", ""),
        // The length of another row; another bias.
        twin(&cosine, newest, "let w = length_of(rows.w);", "let w = length_of(rows.z);"),
        twin(&dot, newest, "s.a3 = added(s.a3, l.w);", "s.a3 = added(s.a3, l.z);"),
    ]
}

/// One candidate with two slots over two behaviours.
fn given(gpu: &Wgpu, positions: [u32; 2], count: u32) -> Result<()> {
    let one = |rows| Jagged::from_lengths(&[rows]);
    let batch = gpu.batch(&one(2)?, &one(1)?)?;
    let (rows, scores) = (gpu.zeros::<f32>(2)?, gpu.zeros::<f32>(2)?);
    let (positions, counts) = (gpu.upload(&positions)?, gpu.upload(&[count])?);
    let kept = Selection::new(gpu.view(&positions), gpu.view(&scores), gpu.view(&counts));
    let query = gpu.view(&rows).slice(0, 1)?;
    let inputs = SelectedAttentionInputs::new(query, gpu.view(&rows), kept);
    gpu.selected_attention(&SelectedAttention::new(1).with_top_k(2), &batch, inputs)?;
    gpu.synchronize()
}

/// Counts the similarities of one candidate.
fn counted(gpu: &Wgpu, count: u32) -> Result<()> {
    let one = |rows| Jagged::from_lengths(&[rows]);
    let batch = gpu.batch(&one(2)?, &one(1)?)?;
    let (positions, scores) = (gpu.zeros::<u32>(2)?, gpu.zeros::<f32>(2)?);
    let counts = gpu.upload(&[count])?;
    let kept = Selection::new(gpu.view(&positions), gpu.view(&scores), gpu.view(&counts));
    gpu.similarity_histogram(&SimilarityHistogram::new(3).with_top_k(2), &batch, kept)?;
    gpu.synchronize()
}

fn checks() -> Vec<Twin> {
    vec![
        // Errors not reported; the last instead of the first.
        twin_of_check(
            "selected_attention: positions[0] is 7, which must be below 2",
            |gpu| given(gpu, [7, 9], 2),
            "selection/given",
            "atomicMin(&bad_positions[0], first + k);",
            "atomicMin(&bad_positions[0], first + 1u);",
        ),
        twin_of_check(
            "selected_attention: counts[0] is 3, which must be below 3",
            |gpu| given(gpu, [0, 1], 3),
            "selection/given",
            "atomicMin(&bad_counts[0], m);",
            "",
        ),
        twin_of_check(
            "similarity_histogram: counts[0] is 3, which must be below 3",
            |gpu| counted(gpu, 3),
            "selected/histogram",
            "atomicMin(&bad_counts[0], m);",
            "",
        ),
    ]
}

#[test]
fn wrong_attention_over_a_selection_is_caught() {
    Twin::assert_caught(&twins());
}
