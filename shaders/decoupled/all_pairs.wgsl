// Weights of pairs and gradients of their scores: pairs = (w, factor · w · (product − mean)), or (REMOVED, 0).
//
// One workgroup of 128 threads per tile.

struct AllPairsParams {
    groups: u32,
    grid_width: u32,
    tiles: u32,
    first_tile: u32,
    attention_width: u32,
    representation_width: u32,
    grads_base: u32,
    // Whether gradients of scores are wanted.
    has_values: u32,
    // On the products of scaled rows, and so on the gradients of scores.
    score_factor: f32,
}
@group(0) @binding(0) var<uniform> params: AllPairsParams;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id);
    if index >= params.tiles {
        return;
    }
    let tile = tiles[params.first_tile + index];
    let span = spans[2u * tile.x];
    let first_pair = spans[2u * tile.x + 1u].x;
    let first_own = tile.y + thread / LANES * 2u;
    let lane = thread % LANES;
    for (var begin = 0u; begin < span.y; begin += BEHAVIOURS) {
        let rows = TileRows(
            span.z + tile.y, min(CANDIDATES, span.w - tile.y), span.x + begin, min(BEHAVIOURS, span.y - begin));
        let scored = pair_scores(thread, rows);
        for (var c = 0u; c < 2u; c++) {
            let row = first_own + c;
            if row >= span.w {
                continue;
            }
            let state = states[span.z + row];
            let scores = scored.scores[c];
            let removed = bitcast<vec4<u32>>(scores) == vec4<u32>(NEGATIVE_INFINITY);
            let weights = exp_of(scores - shift_of(vec4<f32>(state.x))) / state.y;
            let grads_of = params.score_factor * (weights * (scored.products[c] - vec4<f32>(state.z / state.y)));
            for (var l = 0u; l < 4u; l++) {
                let own = begin + lane + l * LANES;
                if own < span.y {
                    pairs[first_pair + row * span.y + own] =
                        select(vec2<f32>(weights[l], grads_of[l]), vec2<f32>(REMOVED, 0.0), removed[l]);
                }
            }
        }
    }
}
