// Weighted sums of the representation rows of selected behaviours: out[m, first_column..] = Σ_k w[m,k] ·
// R[ids[row_k]].
//
// One thread sums four columns of one candidate, one feature per dispatch; neighbouring threads read neighbouring
// columns. Ids outside the table count as zeros. INT8: value = scale[id]·code + offset[id].

struct AggregateParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    top_k: u32,
    ids_base: u32,
    features: u32,
    feature: u32,
    table_rows: u32,
    width: u32,
    table_base: u32,
    scale_base: u32,
    offset_base: u32,
    out_base: u32,
    out_width: u32,
    first_column: u32,
}
@group(0) @binding(0) var<uniform> params: AggregateParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let width4 = (params.width + 3u) / 4u;
    let m = index / width4;
    let column = index % width4 * 4u;
    let left = params.width - column;
    var sum = vec4<f32>();
    for (var k = 0u; k < params.top_k; k++) {
        let entry = kept[m * params.top_k + k];
        if entry.y == NONE {
            continue;
        }
        let id = ids[params.ids_base + entry.y * params.features + params.feature];
        if id < params.table_rows {
            var value = table_data_vec4(params.table_base + id * params.width + column, left);
            if INT8 == 1u {
                value = scale[params.scale_base + id] * value + offset[params.offset_base + id];
            }
            sum += bitcast<f32>(entry.x) * value;
        }
    }
    let place = params.out_base + m * params.out_width + params.first_column + column;
    out[place] = sum.x;
    if left > 1u { out[place + 1u] = sum.y; }
    if left > 2u { out[place + 2u] = sum.z; }
    if left > 3u { out[place + 3u] = sum.w; }
}
