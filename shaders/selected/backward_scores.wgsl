// What the gradients of a part's slots are computed from: pairs[m,h,k] = (α, s, ⟨grad_out, v⟩, 0), with an α of -∞ where a slot
// keeps nothing or is removed.
//
// One workgroup of 64 threads per candidate, part and head. Workgroup memory: rows of SLOTS slots, and 4.3 KiB.

struct SelectedScoresParams {
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
    grad_out_base: u32,
    has_bias: u32,
    has_gammas: u32,
    // Scores are wanted even where α leaves them out.
    wants_scores: u32,
    wants_products: u32,
    scale: f32,
}
@group(0) @binding(0) var<uniform> params: SelectedScoresParams;

// The products of the gradient of the output and the values of 64 slots, as `multiply_keys` has those of keys.
fn multiply_values(part: Part, block: u32, thread: u32) {
    let lanes = params.value_lanes;
    let lane = thread % lanes;
    let column = 4u * lane;
    let grad = params.grad_out_base + query_of(part) * params.value_width;
    var own = vec4<f32>();
    if column < params.value_width {
        own = grad_out_vec4(grad + column, params.value_width - column);
    }
    for (var s = thread / lanes; s < BLOCK; s += BLOCK / lanes) {
        var sum = 0.0;
        if block + s < part.count && column < params.value_width {
            let row = slot_rows[block + s];
            if row != NONE {
                let value = params.values_base + place_of(row, part.head) * params.value_width;
                var sums = own * values_vec4(value + column, params.value_width - column);
                for (var c = column + 4u * lanes; c < params.value_width; c += 4u * lanes) {
                    let left = params.value_width - c;
                    sums += grad_out_vec4(grad + c, left) * values_vec4(value + c, left);
                }
                sum = (sums.x + sums.y) + (sums.z + sums.w);
            }
        }
        products[s * STRIDE + lane] = sum;
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
    let gamma = gammas_of(part.head);
    let first_pair = query_of(part) * params.top_k + part.number * params.part;
    for (var block = 0u; block < part.count; block += BLOCK) {
        let slot = block + thread;
        if use_scores(gamma) || params.wants_scores == 1u {
            multiply_keys(part, block, thread);
        }
        workgroupBarrier();
        var found = Score(0.0, negative_infinity());
        if slot < part.count {
            found = score_of(part, slot, sum_of_lanes(thread, params.key_lanes), gamma);
            if is_removed(found.alpha) {
                slot_rows[slot] = NONE;
            }
        }
        workgroupBarrier();
        var product = 0.0;
        if params.wants_products == 1u {
            multiply_values(part, block, thread);
            workgroupBarrier();
            product = sum_of_lanes(thread, params.value_lanes);
        }
        if slot < part.count {
            pairs[first_pair + slot] = vec4<f32>(found.alpha, found.score, product, 0.0);
        }
        workgroupBarrier();
    }
}
