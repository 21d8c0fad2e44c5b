// Adds up the partial results of the gradients of the queries: dq[m, h, c] = Σ_p partial[p, c].
//
// One thread adds one column of one row of a tile, 32 parts at a time, and then these sums: the same order on every run.

struct BackwardQueriesParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    kv_heads: u32,
    group_heads: u32,
    width: u32,
    out_base: u32,
    // The candidate at the start of `out`.
    first_target: u32,
    tile: u32,
    shares: u32,
}
@group(0) @binding(0) var<uniform> params: BackwardQueriesParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let column = index % params.width;
    let r = index / params.width % params.tile;
    let packed = index / (params.width * params.tile);
    let kv_head = packed % params.kv_heads;
    // [first candidate, first row, rows, _], [first partial result, spans, _, _].
    let rows = tiles[2u * (packed / params.kv_heads)];
    let parts = tiles[2u * (packed / params.kv_heads) + 1u];
    if r >= rows.z {
        return;
    }
    let row = rows.y + r;
    let query = (row / params.group_heads * params.kv_heads + kv_head) * params.group_heads + row % params.group_heads;
    let count = parts.y * params.shares;
    let first = parts.x + query * count;
    var sum = 0.0;
    for (var begin = 0u; begin < count; begin += 32u) {
        var block = 0.0;
        for (var p = begin; p < min(begin + 32u, count); p++) {
            block += partial[(first + p) * params.width + column];
        }
        sum += block;
    }
    let output = (rows.x - params.first_target) * params.kv_heads * params.group_heads + query;
    out[params.out_base + output * params.width + column] = sum;
}
