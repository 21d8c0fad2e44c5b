// Softmax weights of selected behaviours, and their rows: kept[m,k] = (weight, row of the history or NONE).
//
// One thread per candidate: K is small compared with the rows that decoupled/aggregate.wgsl reads. Counts above K and
// positions outside the history select nothing; the lowest position of each is reported.

struct WeighSelectionParams {
    groups: u32,
    grid_width: u32,
    tiles: u32,
    top_k: u32,
    positions_base: u32,
    scores_base: u32,
    counts_base: u32,
}
@group(0) @binding(0) var<uniform> params: WeighSelectionParams;

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
    var row_max = LOWEST;
    for (var k = 0u; k < count; k++) {
        row_max = max(row_max, bitcast<f32>(scores[params.scores_base + first + k]));
    }
    var row_sum = 0.0;
    for (var k = 0u; k < count; k++) {
        row_sum += weight_of(scores[params.scores_base + first + k], row_max);
    }
    for (var k = 0u; k < params.top_k; k++) {
        var weight = 0.0;
        var row = NONE;
        if k < count {
            let position = positions[params.positions_base + first + k];
            if position >= history.y - history.x {
                atomicMin(&bad_positions[0], first + k);
            } else {
                weight = weight_of(scores[params.scores_base + first + k], row_max) / row_sum;
                // A score of -∞ does not contribute, even if its row holds NaN.
                if weight != 0.0 {
                    row = history.x + position;
                }
            }
        }
        kept[first + k] = vec2<u32>(bitcast<u32>(weight), row);
    }
}

fn weight_of(score: u32, row_max: f32) -> f32 {
    return select(exp_one(bitcast<f32>(score) - row_max), 0.0, score == NEGATIVE_INFINITY);
}
