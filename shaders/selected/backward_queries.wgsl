// The gradient of a query over a part of its slots: dq = scale · Σ ds·k. Parts are added up by shared/sum_parts.wgsl. Interest channels
// add up what they keep as well: rows are those of behaviours, and numbers their scores.
//
// One workgroup of 64 threads per candidate, part and head. Workgroup memory: rows and gradients of SLOTS slots, and 1 KiB.

struct SelectedQueriesParams {
    groups: u32,
    grid_width: u32,
    heads: u32,
    kv_heads: u32,
    top_k: u32,
    parts: u32,
    part: u32,
    // Of a key.
    value_width: u32,
    value_lanes: u32,
    values_base: u32,
    first_grad: u32,
    out_base: u32,
    scale: f32,
}
@group(0) @binding(0) var<uniform> params: SelectedQueriesParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = group_index(id);
    if group >= params.groups {
        return;
    }
    let part = part_of(group);
    load_rows(part, thread);
    for (var slot = thread; slot < part.count; slot += 64u) {
        let bits = grads[params.first_grad + (part.first + slot) * params.heads + part.head];
        numbers[slot] = bitcast<f32>(bits);
        if bits == NONE {
            slot_rows[slot] = NONE;
        }
    }
    workgroupBarrier();
    let row = (part.candidate * params.parts + part.number) * params.heads + part.head;
    for (var first = 0u; first < params.value_width; first += 4u * params.value_lanes) {
        let sum = params.scale * weighted_sum(part, first, thread);
        let column = first + 4u * thread;
        if thread < params.value_lanes && column < params.value_width {
            let left = params.value_width - column;
            let place = params.out_base + row * params.value_width + column;
            out[place] = sum.x;
            if left > 1u { out[place + 1u] = sum.y; }
            if left > 2u { out[place + 2u] = sum.z; }
            if left > 3u { out[place + 3u] = sum.w; }
        }
    }
}
