// Packs queries for target_attention/score_dot.wgsl: scaled, widened to f32, and transposed in blocks of 4 × 4, with
// zeros for the rows that a tile does not have.
//
// One thread writes one vec4 of one row: packed[((tile · H_kv + head) · width4 + k) · tile_rows + r], where width4 is
// the number of vec4s of the width, rounded up, and k counts them.

struct PackQueriesParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    kv_heads: u32,
    group_heads: u32,
    width: u32,
    queries_base: u32,
    scale: f32,
    tile: u32,
}
@group(0) @binding(0) var<uniform> params: PackQueriesParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let width4 = (params.width + 3u) / 4u;
    let r = index % params.tile;
    let k = index / params.tile % width4 * 4u;
    let kv_head = index / (params.tile * width4) % params.kv_heads;
    let rows = tiles[2u * (index / (params.tile * width4 * params.kv_heads))];
    var value = vec4<f32>();
    if r < rows.z {
        let row = rows.y + r;
        let query = (rows.x + row / params.group_heads) * params.kv_heads * params.group_heads
            + kv_head * params.group_heads + row % params.group_heads;
        value = params.scale * queries_vec4(params.queries_base + query * params.width + k, params.width - k);
    }
    packed[index] = value;
}
