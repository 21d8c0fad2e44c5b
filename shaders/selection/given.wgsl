// What the candidates of a given selection keep: kept[m,k] = (number, row of the history or NONE). A candidate may have several
// lists; then m counts lists.
//
// One workgroup of 64 threads per list. NUMBER: 0 the score, 1 its softmax weight, 2 nothing, and scores are not read. A score
// of -∞ removes its behaviour, whatever its row holds; any other counts, even where its weight underflows to 0. Counts above
// K and positions outside the history select nothing; the lowest position of each is reported.

struct GivenSelectionParams {
    groups: u32,
    grid_width: u32,
    tiles: u32,
    first_tile: u32,
    // The row that is 0 in `kept`.
    first_history: u32,
    // Of a candidate.
    lists: u32,
    top_k: u32,
    positions_base: u32,
    scores_base: u32,
    counts_base: u32,
}
@group(0) @binding(0) var<uniform> params: GivenSelectionParams;

var<workgroup> maxima: array<f32, 64>;
var<workgroup> sums: array<f32, 64>;

// The maximum of a candidate's scores and the sum of their exponentials. All threads call it together.
fn state_of(first: u32, count: u32, thread: u32) -> vec2<f32> {
    var own_max = negative_infinity();
    for (var k = thread; k < count; k += 64u) {
        own_max = max(own_max, scores_at(first + k));
    }
    maxima[thread] = own_max;
    workgroupBarrier();
    var row_max = negative_infinity();
    for (var other = 0u; other < 64u; other++) {
        row_max = max(row_max, maxima[other]);
    }
    let shift = shift_of(vec4<f32>(row_max)).x;
    var own_sum = 0.0;
    for (var k = thread; k < count; k += 64u) {
        own_sum += exp_one(scores_at(first + k) - shift);
    }
    sums[thread] = own_sum;
    workgroupBarrier();
    var row_sum = 0.0;
    for (var other = 0u; other < 64u; other++) {
        row_sum += sums[other];
    }
    return vec2<f32>(shift, row_sum);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id);
    if index >= params.tiles {
        return;
    }
    let tile = tiles[2u * (params.first_tile + index)];
    let history = tiles[2u * (params.first_tile + index) + 1u].zw;
    let m = tile.x * params.lists + tile.y;
    let first = m * params.top_k;
    var count = counts[params.counts_base + m];
    if count > params.top_k {
        if thread == 0u {
            atomicMin(&bad_counts[0], m);
        }
        count = 0u;
    }
    var state = vec2<f32>();
    if NUMBER == 1u {
        state = state_of(first, count, thread);
    }
    for (var k = thread; k < params.top_k; k += 64u) {
        var number = 0.0;
        var row = NONE;
        if k < count {
            let position = positions[params.positions_base + first + k];
            var score = 0.0;
            if NUMBER < 2u {
                score = scores_at(first + k);
            }
            if position >= history.y - history.x {
                atomicMin(&bad_positions[0], first + k);
            } else if !is_removed(score) {
                number = score;
                if NUMBER == 1u {
                    number = exp_one(score - state.x) / state.y;
                }
                row = history.x - params.first_history + position;
            }
        }
        kept[index * params.top_k + k] = vec2<u32>(bitcast<u32>(number), row);
    }
}

fn scores_at(k: u32) -> f32 {
    return bitcast<f32>(scores[params.scores_base + k]);
}
