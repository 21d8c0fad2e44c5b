//! Shaders of the gradients of look-ups that are wrong on purpose.

use longseq::*;
use longseq_check::data::{Data, Ids};
use longseq_check::lookup::{Form, LookupBackwardCase, LookupCase, Pool, UpdateRowsCase};

use super::wrong_shaders::{Twin, twin, twin_of_check};

pub(super) fn twins() -> Vec<Twin> {
    [sorts(), gradients(), weights(), optimisers(), checks()].into_iter().flatten().collect()
}

/// Ids of which a third are one, in more blocks than one.
fn hot() -> LookupBackwardCase {
    let forward = LookupCase {
        ids: Ids::Hot,
        table_rows: vec![300],
        widths: vec![5],
        bags: vec![3000, 0, 200],
        pool: Pool::Mean,
        ..Default::default()
    };
    LookupBackwardCase { forward, ..Default::default() }
}

fn sorts() -> Vec<Twin> {
    let case = hot();
    let outside = LookupCase { policy: IdPolicy::Zero, ..case.forward.clone() };
    let outside = LookupBackwardCase { forward: outside, ..case.clone() };
    // More blocks of keys than a workgroup scans at a time.
    let many = LookupCase { bags: vec![300_000], pool: Pool::Each, widths: vec![1], ..case.forward.clone() };
    let many = LookupBackwardCase { forward: many, ..case.clone() };
    let of =
        |kernel: &'static str, right: &'static str, wrong: &'static str| twin(&case, kernel, right, wrong);
    vec![
        // Ids outside the table taken for its last row.
        twin(&outside, "lookup/sort_keys", "key = params.rows;", "key = params.rows - 1u;"),
        // The last key of a thread left out; blocks not added up; keys of a digit in the order of another digit.
        of("lookup/sort_count", "step < 16u; step++", "step < 15u; step++"),
        twin(&many, "lookup/sort_scan", "before += sums[63];", "before = sums[63];"),
        of("lookup/sort_scatter", "start += totals[d];", "start = totals[d];"),
        of("lookup/sort_scatter", "moves[digit_of(key)] + i", "moves[digit_of(key)] + source"),
        of("lookup/sort_scatter", "first + source;", "source;"),
        of("lookup/sort_heads", "distance > 0u; distance", "distance > 1u; distance"),
        // Runs of later blocks written over those of the first; the end of the last run left out.
        of("lookup/sort_runs", "run += counts[block];", ""),
        of("lookup/sort_runs", "= place + 1u;", "= place;"),
    ]
}

fn gradients() -> Vec<Twin> {
    let case = hot();
    let forms = vec![Form::Dense];
    let dense = LookupBackwardCase { forms, ..case.clone() };
    // Runs of more than a node of the second level.
    let long = LookupCase { ids: Ids::Last, bags: vec![5000], pool: Pool::Each, ..case.forward.clone() };
    let long = LookupBackwardCase { forward: long, ..case.clone() };
    vec![
        // The bag before; a mean that is a sum.
        twin(&case, "lookup/bags_of_rows", "offsets[middle] <= row", "offsets[middle] < row"),
        twin(&case, "lookup/bags_of_rows", "params.mean == 1u", "params.mean == 2u"),
        twin(&case, "lookup/gradient_ids", "if index < count", "if index + 1u < count"),
        // A run's number for its id; weights dropped; the next run added to this one; heads taken for rows.
        twin(&dense, "lookup/gradient_windows", "row = ids[params.ids_base + run];", "row = run;"),
        twin(&case, "lookup/gradient_windows", "bitcast<f32>(bag.y) *", ""),
        twin(&case, "lookup/gradient_windows", "sum = vec4<f32>();\n            begins_here", "begins_here"),
        twin(&case, "lookup/gradient_windows", "start_of(run) == first", "start_of(run) <= first"),
        // The last head left out; those of the first level for those of the second; duplicates overwritten.
        twin(&long, "lookup/gradient_heads", "child < WINDOW; child", "child + 1u < WINDOW; child"),
        twin(&long, "lookup/gradient_long_runs", "first += nodes;", ""),
        twin(&case, "lookup/gradient_long_runs", "sum += part;", "sum = part;"),
    ]
}

/// Weights of ids, and means without those outside, of bags short and cut.
fn weights() -> Vec<Twin> {
    let two = LookupCase {
        policy: IdPolicy::Skip,
        table_rows: vec![300, 50],
        widths: vec![5, 8],
        second_widths: vec![12, 70],
        bags: vec![3, 900, 0, 20],
        ..Default::default()
    };
    let weighted = LookupCase { pool: Pool::Sum, weights: Some(Data::Normal), ..two.clone() };
    let skipped = LookupCase { pool: Pool::Mean, ..two };
    let backward =
        |forward: &LookupCase| LookupBackwardCase { forward: forward.clone(), ..Default::default() };
    let (of_weighted, of_skipped) = (backward(&weighted), backward(&skipped));
    let wide = LookupCase { widths: vec![2500, 8], bags: vec![3, 0, 2], ..weighted.clone() };
    let wide = backward(&wide);
    let product = "dot(table_vec4(id, column), grad_vec4(grads + column, params.width - column))";
    vec![
        // Weights left out, or those of the next id; the count of another bag.
        twin(&weighted, "lookup/gather", "weights[params.weights_base + place] * value", "value"),
        twin(&weighted, "lookup/gather", "weights_base + place]", "weights_base + place + 1u]"),
        twin(&skipped, "lookup/gather", "weights_base + row]", "weights_base]"),
        // All ids counted; the bag before; parts without their bag.
        twin(
            &skipped,
            "lookup/count_ids",
            "params.feature] < params.table_rows",
            "params.feature] <= 0xffffffffu",
        ),
        twin(&skipped, "lookup/count_ids", "offsets[middle] <= row", "offsets[middle] < row"),
        twin(&skipped, "lookup/counts_of_parts", "bag_of(edges[part])", "0u"),
        // Weights taken for means; those of another feature; the count for its share.
        twin(&of_weighted, "lookup/weigh_ids", "params.features + params.feature]", "params.features]"),
        twin(&of_skipped, "lookup/weigh_ids", "1.0 / weights", "weights"),
        twin(&of_weighted, "lookup/weigh_ids", "vec2<u32>(bag,", "vec2<u32>(0u,"),
        // The second tables overwrite the first; lanes left out; the gradient of the first bag; ids outside with one.
        twin(&of_weighted, "lookup/weight_gradient", "params.adds == 1u", "params.adds == 2u"),
        twin(&of_weighted, "lookup/weight_gradient", "other < LANES", "other + 1u < LANES"),
        twin(&of_weighted, "lookup/weight_gradient", "bags[row].x", "bags[0].x"),
        twin(
            &of_weighted,
            "lookup/weight_gradient",
            "let id = ids[params.ids_base + place];",
            "let id = ids[params.ids_base + place] % params.table_rows;",
        ),
        twin(&of_weighted, "lookup/weight_gradient", product, "table_vec4(id, column).x"),
        // The second block of columns left out.
        twin(&wide, "lookup/weight_gradient", "block += BLOCK)", "block += 2u * BLOCK)"),
    ]
}

fn optimisers() -> Vec<Twin> {
    let case = |optimiser, dtype, width| UpdateRowsCase { optimiser, dtype, width, ..Default::default() };
    let adagrad = case(Optimiser::adagrad(0.1), DType::F32, 16);
    let row_wise = case(Optimiser::row_wise_adagrad(0.1), DType::F32, 17);
    let adam = case(Optimiser::adam(0.1, 5), DType::F32, 16);
    let decay = case(Optimiser::sgd(0.1).with_weight_decay(0.1), DType::Bf16, 3);
    // Words that two rows share.
    let dense = UpdateRowsCase { rows: 30, ids: 400, draw: Ids::Uniform, ..decay.clone() };
    let of = |case: &UpdateRowsCase, right: &'static str, wrong: &'static str| {
        twin(case, "lookup/update_rows", right, wrong)
    };
    vec![
        // State ignored; the bias of a moment not corrected; decay dropped.
        of(&adagrad, "first[first_place] + g * g", "g * g"),
        of(&adam, "(m * params.mean /", "(m /"),
        of(&adam, "params.beta2 * second[second_place]", "params.beta2 * first[first_place]"),
        of(&decay, "params.kept * w", "w"),
        // A number of a row without a gradient changed; one of the next row left as it was.
        of(&decay, "return NONE;", "return index;"),
        of(&dense, "return index + 1u;", "return NONE;"),
        twin(&row_wise, "lookup/update_sums", "distance > 0u; distance", "distance > 1u; distance"),
        twin(&row_wise, "lookup/update_sums", "sums[place] + squares", "squares"),
    ]
}

/// A step with these ids on a table of three rows of two numbers.
fn update(gpu: &Wgpu, ids: &[u32]) -> Result<()> {
    let mut table = gpu.zeros::<f32>(6)?;
    let (rows, count) = (gpu.zeros::<f32>(2 * ids.len())?, gpu.upload(&[ids.len() as u32])?);
    let ids = gpu.upload(ids)?;
    let gradient = SparseGradient::new(gpu.view(&ids), gpu.view(&rows), gpu.view(&count));
    let table = TableMut::new(3, 2, gpu.view_mut(&mut table));
    gpu.update_rows(&Optimiser::sgd(0.1), table, OptimiserState::Empty, gradient)?;
    gpu.synchronize()
}

fn checks() -> Vec<Twin> {
    let order = "update_rows: gradient.ids: expected an ascending list, got 0 at position 1";
    let outside = "update_rows: gradient.ids[2] is 3, which must be below 3";
    let in_order: fn(&Wgpu) -> Result<()> = |gpu| update(gpu, &[2, 0, 0]);
    let inside: fn(&Wgpu) -> Result<()> = |gpu| update(gpu, &[0, 1, 3, 4]);
    vec![
        twin_of_check(order, in_order, "lookup/order_check", "index - 1u] >= id", "index - 1u] < id"),
        twin_of_check(outside, inside, "lookup/order_check", "id >= params.rows", "id > params.rows"),
        twin_of_check(outside, inside, "lookup/order_verdict", "report[1] = what;", ""),
    ]
}

#[test]
fn wrong_gradients_of_look_ups_are_caught() {
    Twin::assert_caught(&twins());
}
