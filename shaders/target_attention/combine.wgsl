// Combines the partial results of the pieces of a tile, written by target_attention/attend.wgsl or din/attend.wgsl.
//
//     lse = max + log Σ_i exp(max_i − max)·sum_i        out = Σ_i exp(max_i − max)·acc_i / Σ_i exp(max_i − max)·sum_i
//
// One thread computes one vec4 of columns of one output row. All threads of a row read the same states in the order
// of the slots, so the result has the same bits on every run. Without softmax the sums are just added.

struct CombineParams {
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
@group(0) @binding(0) var<uniform> params: CombineParams;

const SOFTMAX: u32 = 0u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let columns = (params.value_columns + 3u) / 4u;
    let index = group_index(id) * 64u + thread;
    let column = 4u * (index % columns);
    let r = index / columns % params.tile;
    let kv_head = index / (columns * params.tile) % params.kv_heads;
    let tile = index / (columns * params.tile * params.kv_heads);
    // The last workgroup may have idle threads.
    if 2u * tile >= arrayLength(&split_tiles) {
        return;
    }
    let rows = split_tiles[2u * tile];
    let slots = split_tiles[2u * tile + 1u];
    if r >= rows.z {
        return;
    }
    let row = rows.y + r;
    let out_row = (rows.x + row / params.group_heads) * params.kv_heads * params.group_heads
        + kv_head * params.group_heads + row % params.group_heads;
    let left = params.value_columns - column;
    let first = (slots.x * params.kv_heads + kv_head) * params.tile + r;
    // Distance between two slots.
    let next = params.kv_heads * params.tile;

    var row_max = LOWEST;
    if params.weighting == SOFTMAX {
        for (var i = 0u; i < slots.y; i++) {
            row_max = max(row_max, partial_at(params.first_stats + 2u * (first + i * next)));
        }
    }
    var acc = vec4<f32>();
    var row_sum = 0.0;
    for (var i = 0u; i < slots.y; i++) {
        let place = first + i * next;
        var factor = 1.0;
        if params.weighting == SOFTMAX {
            factor = exp_one(partial_at(params.first_stats + 2u * place) - row_max);
            row_sum += factor * partial_at(params.first_stats + 2u * place + 1u);
        }
        acc += factor * partial_vec4(place * params.value_columns + column, left);
    }
    if params.weighting == SOFTMAX {
        acc = select(vec4<f32>(), acc / row_sum, row_sum > 0.0);
        if params.has_lse == 1u && column == 0u {
            lse_bits[params.lse_base + out_row] =
                select(NEGATIVE_INFINITY, bitcast<u32>(row_max + log(row_sum)), row_sum > 0.0);
        }
    }
    let place = params.out_base + out_row * params.value_width + params.first_column + column;
    out[place] = acc.x;
    if left > 1u { out[place + 1u] = acc.y; }
    if left > 2u { out[place + 2u] = acc.z; }
    if left > 3u { out[place + 3u] = acc.w; }
}
