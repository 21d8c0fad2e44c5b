// Weighted sums of the representation rows of selected behaviours: out[m, first_column..] = Σ_k w[m,k] ·
// R[ids[row_k]].
//
// One thread sums four columns of one candidate, or of one of its parts where K is large, one feature per dispatch;
// neighbouring threads read neighbouring columns. Sums are taken of 32 behaviours, then of these, and of halves, see
// `doubled`; parts stay halves, which shared/sum_parts.wgsl adds up. Ids outside the table count as zeros. INT8: value = scale[id]·code + offset[id].

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
    // Parts of a candidate, and behaviours of each.
    parts: u32,
    part: u32,
}
@group(0) @binding(0) var<uniform> params: AggregateParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let width4 = (params.width + 3u) / 4u;
    let row = index / width4;
    let m = row / params.parts;
    let column = index % width4 * 4u;
    let left = params.width - column;
    let start = row % params.parts * params.part;
    let end = min(start + params.part, params.top_k);
    var half = vec4<f32>();
    for (var first = start; first < end; first += 32u) {
        var block = vec4<f32>();
        for (var k = first; k < min(first + 32u, end); k++) {
            let entry = kept[m * params.top_k + k];
            if entry.y != NONE {
                block += 0.5 * bitcast<f32>(entry.x) * value_of(entry.y, column, left);
            }
        }
        half += block;
    }
    var result = half;
    if params.parts == 1u {
        result = doubled(half);
    }
    let place = params.out_base + row * params.out_width + params.first_column + column;
    out[place] = result.x;
    if left > 1u { out[place + 1u] = result.y; }
    if left > 2u { out[place + 2u] = result.z; }
    if left > 3u { out[place + 3u] = result.w; }
}

fn value_of(row: u32, column: u32, left: u32) -> vec4<f32> {
    let id = ids[params.ids_base + row * params.features + params.feature];
    if id >= params.table_rows {
        return vec4<f32>();
    }
    let value = table_data_vec4(params.table_base + id * params.width + column, left);
    if INT8 == 1u {
        return scale[params.scale_base + id] * value + offset[params.offset_base + id];
    }
    return value;
}
