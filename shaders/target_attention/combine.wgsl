// Merges the partial results of target_attention/attend.wgsl over the parts of a history.
//
//     lse = log Σ_i exp(peak_i)·total_i          out = Σ_i exp(peak_i − peak)·sum_i / Σ_i exp(peak_i − peak)·total_i
//
// One thread takes four columns of one row of output. All threads of a row read the peaks and totals alike, in the
// order of the parts: the same bits on every run. Without softmax the sums just add up.

struct Params {
    groups: u32,
    grid_width: u32,
    kv_heads: u32,
    group_heads: u32,
    value_width: u32,
    first_column: u32,
    value_columns: u32,
    out_base: u32,
    lse_base: u32,
    first_stats: u32,
    tile: u32,
    weighting: u32,
    has_lse: u32,
}
@group(0) @binding(0) var<uniform> params: Params;

const SOFTMAX: u32 = 0u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let columns = (params.value_columns + 3u) / 4u;
    let index = group_index(id) * 64u + thread;
    let column = 4u * (index % columns);
    let r = index / columns % params.tile;
    let kv_head = index / (columns * params.tile) % params.kv_heads;
    let tile = index / (columns * params.tile * params.kv_heads);
    // The last workgroup has threads to spare.
    if 2u * tile >= arrayLength(&merges) {
        return;
    }
    let rows = merges[2u * tile];
    let slots = merges[2u * tile + 1u];
    if r >= rows.z {
        return;
    }
    let row = rows.y + r;
    let out_row = (rows.x + row / params.group_heads) * params.kv_heads * params.group_heads
        + kv_head * params.group_heads + row % params.group_heads;
    let left = params.value_columns - column;
    let first = (slots.x * params.kv_heads + kv_head) * params.tile + r;
    // From a part to the next.
    let next = params.kv_heads * params.tile;

    var peak = LOWEST;
    if params.weighting == SOFTMAX {
        for (var i = 0u; i < slots.y; i++) {
            peak = max(peak, partial_at(params.first_stats + 2u * (first + i * next)));
        }
    }
    var sum = vec4<f32>();
    var total = 0.0;
    for (var i = 0u; i < slots.y; i++) {
        let place = first + i * next;
        var factor = 1.0;
        if params.weighting == SOFTMAX {
            factor = exp_one(partial_at(params.first_stats + 2u * place) - peak);
            total += factor * partial_at(params.first_stats + 2u * place + 1u);
        }
        sum += factor * partial_four(place * params.value_columns + column, left);
    }
    if params.weighting == SOFTMAX {
        sum = select(vec4<f32>(), sum / total, total > 0.0);
        if params.has_lse == 1u && column == 0u {
            lse_bits[params.lse_base + out_row] =
                select(NEGATIVE_INFINITY, bitcast<u32>(peak + log(total)), total > 0.0);
        }
    }
    let place = params.out_base + out_row * params.value_width + params.first_column + column;
    out[place] = sum.x;
    if left > 1u { out[place + 1u] = sum.y; }
    if left > 2u { out[place + 2u] = sum.z; }
    if left > 3u { out[place + 3u] = sum.w; }
}
