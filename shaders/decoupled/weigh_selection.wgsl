// Softmax weights of kept behaviours, and the rows they are: kept[m,k] = (weight, row of the history or NONE).
//
// One thread a candidate: K is small beside the rows that decoupled/aggregate.wgsl reads. Counts above K and positions outside
// the history keep nothing; the lowest of each is noted.

struct Params {
    groups: u32,
    grid_width: u32,
    tiles: u32,
    top_k: u32,
    positions_base: u32,
    scores_base: u32,
    counts_base: u32,
}
@group(0) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.tiles {
        return;
    }
    let tile = tiles[2u * index];
    let history = tiles[2u * index + 1u].zw;
    let m = tile.x + tile.y;
    let first = m * params.top_k;
    var count = counts[params.counts_base + m];
    if count > params.top_k {
        atomicMin(&bad_counts[0], m);
        count = 0u;
    }
    var peak = LOWEST;
    for (var k = 0u; k < count; k++) {
        peak = max(peak, bitcast<f32>(scores[params.scores_base + first + k]));
    }
    var total = 0.0;
    for (var k = 0u; k < count; k++) {
        total += weight_of(scores[params.scores_base + first + k], peak);
    }
    for (var k = 0u; k < params.top_k; k++) {
        var weight = 0.0;
        var row = NONE;
        if k < count {
            let position = positions[params.positions_base + first + k];
            if position >= history.y - history.x {
                atomicMin(&bad_positions[0], first + k);
            } else {
                weight = weight_of(scores[params.scores_base + first + k], peak) / total;
                // A score of -∞ takes no part, whatever its row holds.
                if weight != 0.0 {
                    row = history.x + position;
                }
            }
        }
        kept[first + k] = vec2<u32>(bitcast<u32>(weight), row);
    }
}

fn weight_of(score: u32, peak: f32) -> f32 {
    return select(exp_one(bitcast<f32>(score) - peak), 0.0, score == NEGATIVE_INFINITY);
}
