// Combines the partial results of the pieces of a tile, written by target_attention/attend.wgsl or din/attend.wgsl.
//
//     lse = max + log Σ_i w_i        out = Σ_i w_i·out_i / Σ_i w_i        w_i = exp(max_i − max)·sum_i
//
// One thread computes one vec4 of columns of one output row. All threads of a row read the same states in the order
// of the slots, so the result has the same bits on every run. A piece of which every behaviour is removed has no
// weight, whatever its result. Without softmax the sums are just added. Sums are taken of 32 pieces, then of these.

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

    let is_softmax = params.weighting == SOFTMAX;
    var row_max = negative_infinity();
    if is_softmax {
        for (var i = 0u; i < slots.y; i++) {
            row_max = max(row_max, partial_at(params.first_stats + 2u * (first + i * next)));
        }
    }
    let shift = shift_of(vec4<f32>(row_max)).x;
    var row_sum = 0.0;
    if is_softmax {
        for (var i = 0u; i < slots.y; i++) {
            row_sum += weight_of(first + i * next, shift);
        }
    }
    var acc = vec4<f32>();
    for (var part = 0u; part < slots.y; part += 32u) {
        var sum = vec4<f32>();
        for (var i = part; i < min(part + 32u, slots.y); i++) {
            let place = first + i * next;
            let value = partial_vec4(place * params.value_columns + column, left);
            if !is_softmax {
                sum += value;
            } else if !(partial_at(params.first_stats + 2u * place + 1u) == 0.0) {
                sum += 0.5 * (weight_of(place, shift) / row_sum) * value;
            }
        }
        acc += sum;
    }
    if is_softmax {
        acc = doubled(acc);
        if params.has_lse == 1u && column == 0u {
            lse_bits[params.lse_base + out_row] =
                select(bitcast<u32>(row_max + log(row_sum)), NEGATIVE_INFINITY, row_sum == 0.0);
        }
    }
    let place = params.out_base + out_row * params.value_width + params.first_column + column;
    out[place] = acc.x;
    if left > 1u { out[place + 1u] = acc.y; }
    if left > 2u { out[place + 2u] = acc.z; }
    if left > 3u { out[place + 3u] = acc.w; }
}

// The weight of the piece whose state is at `place`.
fn weight_of(place: u32, shift: f32) -> f32 {
    let sum = partial_at(params.first_stats + 2u * place + 1u);
    if sum == 0.0 {
        return 0.0;
    }
    return exp_one(partial_at(params.first_stats + 2u * place) - shift) * sum;
}
