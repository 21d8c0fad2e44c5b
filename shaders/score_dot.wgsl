// Scores for attend.wgsl: the scaled dot product of a query and a key, with an optional bias.
//
//     s[r,l] = ⟨scale · q[r], k[l]⟩ + bias[l, head of r]
//
// The queries come packed by pack_queries.wgsl: scaled, widened to f32, and for each four of the width and each four
// rows of the tile one 4 × 4 matrix whose columns follow the width. A thread then multiplies four numbers of its own
// key with one matrix that all threads read alike: one load serves 16 products in 64 threads.

struct Params {
    groups: u32,
    grid_width: u32,
    first_piece: u32,
    kv_heads: u32,
    // Query heads that share a key/value head.
    group_heads: u32,
    width: u32,
    value_width: u32,
    // Of one behaviour: all heads.
    value_stride: u32,
    // The part of the value that this dispatch sums.
    first_column: u32,
    value_columns: u32,
    // The history row with which the bindings begin.
    first_history: u32,
    keys_base: u32,
    values_base: u32,
    bias_base: u32,
    out_base: u32,
    lse_base: u32,
    // Where peaks and totals begin in `partial`.
    first_stats: u32,
    divisor: f32,
}
@group(0) @binding(0) var<uniform> params: Params;

// The row of output of row `r` of a tile: rows run over candidates, then over the heads of the group.
fn output_row(rows: vec4<u32>, kv_head: u32, r: u32) -> u32 {
    let row = rows.y + r;
    return (rows.x + row / params.group_heads) * params.kv_heads * params.group_heads
        + kv_head * params.group_heads + row % params.group_heads;
}

fn bias_of(l: u32, rows: vec4<u32>, kv_head: u32, r: u32) -> f32 {
    let heads = params.kv_heads * params.group_heads;
    let head = kv_head * params.group_heads + (rows.y + r) % params.group_heads;
    return bias_at(params.bias_base + l * heads + head);
}

fn score(l: u32, thread: u32, rows: vec4<u32>, kv_head: u32) {
    let width4 = (params.width + 3u) / 4u;
    let row = l - params.first_history;
    let key = params.keys_base + (row * params.kv_heads + kv_head) * params.width;
    let matrices = (rows.w * params.kv_heads + kv_head) * width4 * TILE4;
    var s: array<vec4<f32>, TILE4>;
    for (var k = 0u; k < width4; k++) {
        let four = keys_four(key + 4u * k, params.width - 4u * k);
        for (var j = 0u; j < TILE4; j++) {
            s[j] += queries[matrices + k * TILE4 + j] * four;
        }
    }
    for (var j = 0u; j < TILE4; j++) {
        if HAS_BIAS == 1u {
            let r = 4u * j;
            s[j] += vec4<f32>(
                bias_of(row, rows, kv_head, r), bias_of(row, rows, kv_head, r + 1u),
                bias_of(row, rows, kv_head, r + 2u), bias_of(row, rows, kv_head, r + 3u));
        }
        // A bias of -∞ removes the behaviour.
        tile_weights[thread * TILE4 + j] = max(s[j], vec4<f32>(LOWEST));
    }
}
