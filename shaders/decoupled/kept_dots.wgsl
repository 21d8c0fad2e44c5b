// Products of the gradient of a candidate's mean and the rows of its kept behaviours: dots[m,k] (+)= ⟨g[m], R[ids[row_k]]⟩, one feature
// per dispatch.
//
// 16 threads share a slot, four slots a workgroup of 64; neighbouring threads read neighbouring columns, and their sums are added in
// order. Ids outside the table count as zeros. INT8: value = scale[id]·code + offset[id].

struct KeptDotsParams {
    groups: u32,
    grid_width: u32,
    slots: u32,
    top_k: u32,
    ids_base: u32,
    features: u32,
    feature: u32,
    table_rows: u32,
    width: u32,
    table_base: u32,
    scale_base: u32,
    offset_base: u32,
    grad_base: u32,
    grad_width: u32,
    first_column: u32,
}
@group(0) @binding(0) var<uniform> params: KeptDotsParams;

var<workgroup> sums: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let slot = group_index(id) * 4u + thread / 16u;
    let lane = thread % 16u;
    var row = NONE;
    if slot < params.slots {
        row = kept[slot].y;
    }
    var sum = 0.0;
    if row != NONE {
        let place = ids[params.ids_base + row * params.features + params.feature];
        if place < params.table_rows {
            sum = product_of(place, slot / params.top_k, lane);
        }
    }
    sums[thread] = sum;
    workgroupBarrier();
    if lane != 0u || row == NONE {
        return;
    }
    for (var other = 1u; other < 16u; other++) {
        sum += sums[thread + other];
    }
    if params.feature > 0u {
        sum += dots[slot];
    }
    dots[slot] = sum;
}

fn product_of(row: u32, m: u32, lane: u32) -> f32 {
    var sum = vec4<f32>();
    for (var column = 4u * lane; column < params.width; column += 64u) {
        let left = params.width - column;
        var value = table_data_vec4(params.table_base + row * params.width + column, left);
        if INT8 == 1u {
            value = scale[params.scale_base + row] * value + offset[params.offset_base + row];
        }
        let place = params.grad_base + m * params.grad_width + params.first_column + column;
        // Not beyond the row, where an offset would count.
        sum += grad_vec4(place, left) * select(vec4<f32>(), value, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(left));
    }
    return sum.x + sum.y + (sum.z + sum.w);
}
