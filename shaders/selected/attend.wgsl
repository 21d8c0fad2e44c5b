// Attention of one head of a candidate over a part of its slots:
//
//     w = softmax(α)      out = Σ w·v      lse = ln Σ exp α
//
// One workgroup of 64 threads per candidate, part and head. Sums of values are taken in halves, see `doubled`. Where a
// candidate has several parts, their results, and the states (maximum, sum) after them, are combined by
// target_attention/combine.wgsl. Workgroup memory: rows and weights of SLOTS slots, and 5.6 KiB.

struct SelectedAttendParams {
    groups: u32,
    grid_width: u32,
    heads: u32,
    kv_heads: u32,
    top_k: u32,
    parts: u32,
    part: u32,
    width: u32,
    key_lanes: u32,
    value_width: u32,
    value_lanes: u32,
    queries_base: u32,
    keys_base: u32,
    values_base: u32,
    bias_base: u32,
    gammas_base: u32,
    out_base: u32,
    lse_base: u32,
    // Where the states of several parts begin.
    first_stats: u32,
    has_bias: u32,
    has_gammas: u32,
    has_lse: u32,
    scale: f32,
}
@group(0) @binding(0) var<uniform> params: SelectedAttendParams;

// Makes `numbers` the α of all slots.
fn score_slots(part: Part, thread: u32) {
    let gamma = gammas_of(part.head);
    for (var block = 0u; block < part.count; block += BLOCK) {
        if use_scores(gamma) {
            multiply_keys(part, block, thread);
        }
        workgroupBarrier();
        let slot = block + thread;
        if slot < part.count {
            let alpha = score_of(part, slot, sum_of_lanes(thread, params.key_lanes), gamma).alpha;
            numbers[slot] = alpha;
            if is_removed(alpha) {
                slot_rows[slot] = NONE;
            }
        }
        workgroupBarrier();
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = group_index(id);
    if group >= params.groups {
        return;
    }
    let part = part_of(group);
    load_rows(part, thread);
    score_slots(part, thread);
    var own_max = negative_infinity();
    for (var slot = thread; slot < part.count; slot += 64u) {
        own_max = max(own_max, numbers[slot]);
    }
    let row_max = max_of_all(own_max, thread);
    let shift = shift_of(vec4<f32>(row_max)).x;
    var own_sum = 0.0;
    for (var slot = thread; slot < part.count; slot += 64u) {
        if slot_rows[slot] != NONE {
            let weight = exp_one(numbers[slot] - shift);
            numbers[slot] = weight;
            own_sum += weight;
        }
    }
    let row_sum = sum_of_all(own_sum, thread);
    for (var slot = thread; slot < part.count; slot += 64u) {
        numbers[slot] = 0.5 * (numbers[slot] / row_sum);
    }
    workgroupBarrier();
    let row = (part.candidate * params.parts + part.number) * params.heads + part.head;
    for (var first = 0u; first < params.value_width; first += 4u * params.value_lanes) {
        let mean = doubled(weighted_sum(part, first, thread));
        let column = first + 4u * thread;
        if thread < params.value_lanes && column < params.value_width {
            let left = params.value_width - column;
            let place = params.out_base + row * params.value_width + column;
            out[place] = mean.x;
            if left > 1u { out[place + 1u] = mean.y; }
            if left > 2u { out[place + 2u] = mean.z; }
            if left > 3u { out[place + 3u] = mean.w; }
        }
    }
    if thread == 0u {
        if params.parts > 1u {
            out[params.first_stats + 2u * row] = row_max;
            out[params.first_stats + 2u * row + 1u] = row_sum;
        } else if params.has_lse == 1u {
            lse_bits[params.lse_base + row] =
                select(bitcast<u32>(row_max + log(row_sum)), NEGATIVE_INFINITY, row_sum == 0.0);
        }
    }
}
