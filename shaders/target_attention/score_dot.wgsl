// Scores for target_attention/attend.wgsl: the scaled dot product of a query and a key, plus an optional bias.
//
//     s[r,l] = factor · ⟨scale · q[r], k[l]⟩ + bias[l, head of r]
//
// `factor` is 1 unless the scale is so large or small that one factor alone could overflow or underflow. The queries come
// packed by target_attention/pack_queries.wgsl: scaled, widened to f32, and stored as one 4 × 4
// matrix for each four rows of the tile and each vec4 of the width. The columns of a matrix are the rows of the tile,
// so the product of a vec4 of a key with a matrix gives four scores. Keys and values are read through
// target_attention/keys.wgsl and target_attention/values.wgsl, or through tin/rows.wgsl.

struct AttendParams {
    groups: u32,
    grid_width: u32,
    first_piece: u32,
    kv_heads: u32,
    // Query heads that share a key/value head.
    group_heads: u32,
    width: u32,
    value_width: u32,
    // Distance between the values of two behaviours, which includes all heads.
    value_stride: u32,
    // The columns of the value that this dispatch sums.
    first_column: u32,
    value_columns: u32,
    // The history row at the start of the bindings.
    first_history: u32,
    keys_base: u32,
    values_base: u32,
    bias_base: u32,
    out_base: u32,
    lse_base: u32,
    // The start of the maxima and sums in `partial`.
    first_stats: u32,
    divisor: f32,
    // What remains of the scale; the queries carry the rest.
    factor: f32,
    // Output rows per workgroup; vec4s of columns, a power of two.
    tile: u32,
    columns: u32,
    weighting: u32,
    has_bias: u32,
    has_lse: u32,
    // For tin/rows.wgsl: whether positions are given, and the last row of their table.
    has_places: u32,
    last_position: u32,
}
@group(0) @binding(0) var<uniform> params: AttendParams;

// The output row of row `r` of a tile: rows run over candidates, then over the heads of the group.
fn output_row(rows: vec4<u32>, kv_head: u32, r: u32) -> u32 {
    let row = rows.y + r;
    return (rows.x + row / params.group_heads) * params.kv_heads * params.group_heads
        + kv_head * params.group_heads + row % params.group_heads;
}

fn bias_of(l: u32, rows: vec4<u32>, kv_head: u32, r: u32) -> vec4<f32> {
    let heads = params.kv_heads * params.group_heads;
    let head = (vec4<u32>(rows.y + r) + vec4<u32>(0u, 1u, 2u, 3u)) % params.group_heads;
    let place = params.bias_base + l * heads + kv_head * params.group_heads;
    return vec4<f32>(
        bias_at(place + head.x), bias_at(place + head.y), bias_at(place + head.z), bias_at(place + head.w));
}

fn score(l: vec4<u32>, row_group: u32, rows: vec4<u32>, kv_head: u32, thread: u32) -> Scores {
    let row = l - params.first_history;
    let place0 = key_place(row.x, kv_head, rows.w); let place1 = key_place(row.y, kv_head, rows.w);
    let place2 = key_place(row.z, kv_head, rows.w); let place3 = key_place(row.w, kv_head, rows.w);
    let rows4 = params.tile / 4u;
    let width4 = (params.width + 3u) / 4u;
    // In columns of matrices.
    var block = 4u * ((rows.w * params.kv_heads + kv_head) * width4 * rows4 + row_group * GROUP4);
    var s = Scores();
    for (var k = 0u; k < params.width; k += 4u) {
        let left = params.width - k;
        let key0 = key_vec4(place0, k, left);
        let key1 = key_vec4(place1, k, left);
        let key2 = key_vec4(place2, k, left);
        let key3 = key_vec4(place3, k, left);
        let q = query_block(block, thread);
        s.a0 += key0 * q.a; s.a1 += key1 * q.a; s.a2 += key2 * q.a; s.a3 += key3 * q.a;
        if GROUP4 > 1u {
            s.b0 += key0 * q.b; s.b1 += key1 * q.b; s.b2 += key2 * q.b; s.b3 += key3 * q.b;
        }
        block += 4u * rows4;
    }
    s.a0 *= params.factor; s.a1 *= params.factor; s.a2 *= params.factor; s.a3 *= params.factor;
    if GROUP4 > 1u {
        s.b0 *= params.factor; s.b1 *= params.factor; s.b2 *= params.factor; s.b3 *= params.factor;
    }
    if params.has_bias == 1u {
        let r = row_group * GROUP4 * 4u;
        s.a0 += bias_of(row.x, rows, kv_head, r); s.a1 += bias_of(row.y, rows, kv_head, r);
        s.a2 += bias_of(row.z, rows, kv_head, r); s.a3 += bias_of(row.w, rows, kv_head, r);
        if GROUP4 > 1u {
            s.b0 += bias_of(row.x, rows, kv_head, r + 4u); s.b1 += bias_of(row.y, rows, kv_head, r + 4u);
            s.b2 += bias_of(row.z, rows, kv_head, r + 4u); s.b3 += bias_of(row.w, rows, kv_head, r + 4u);
        }
    }
    return s;
}

// The score of one behaviour for one row of the tile.
fn score_one(l: u32, r: u32, rows: vec4<u32>, kv_head: u32) -> f32 {
    let row = l - params.first_history;
    let key = key_place(row, kv_head, rows.w);
    let width4 = (params.width + 3u) / 4u;
    let query = (rows.w * params.kv_heads + kv_head) * width4 * params.tile + r;
    var sum = 0.0;
    for (var k = 0u; k < width4; k++) {
        sum += dot(key_vec4(key, 4u * k, params.width - 4u * k), queries[query + k * params.tile]);
    }
    sum *= params.factor;
    if params.has_bias == 1u {
        sum += bias_of(row, rows, kv_head, r).x;
    }
    return sum;
}
