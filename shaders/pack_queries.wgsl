// Packs queries for score_dot.wgsl: scaled, widened, transposed in blocks of 4 × 4, zeros where a tile is not full.
//
// One thread writes four rows of one column: index = (((tile · H_kv + head) · width4 + k) · 4 + column) · TILE4 + ...,
// laid out so that `queries[(tile · H_kv + head) · width4 · TILE4 + k · TILE4 + j]` is one matrix.

struct Params {
    groups: u32,
    grid_width: u32,
    threads: u32,
    kv_heads: u32,
    group_heads: u32,
    width: u32,
    queries_base: u32,
    scale: f32,
}
@group(0) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let width4 = (params.width + 3u) / 4u;
    let column = index % 4u;
    let j = index / 4u % TILE4;
    let k = index / (4u * TILE4) % width4 * 4u + column;
    let kv_head = index / (4u * TILE4 * width4) % params.kv_heads;
    let rows = tiles[2u * (index / (4u * TILE4 * width4 * params.kv_heads))];
    var four = vec4<f32>();
    for (var e = 0u; e < 4u; e++) {
        let r = 4u * j + e;
        if r < rows.z && k < params.width {
            let row = rows.y + r;
            let query = (rows.x + row / params.group_heads) * params.kv_heads * params.group_heads
                + kv_head * params.group_heads + row % params.group_heads;
            four[e] = params.scale * queries_at(params.queries_base + query * params.width + k);
        }
    }
    packed[index] = four;
}
