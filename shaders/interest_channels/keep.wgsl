// What channels keep, for the kernels that add up rows: kept[list,k] = (score, row of the history or NONE), and
// weights[list,k] = A/L. A list is a channel of a candidate.
//
// One thread per slot. ALL: lists hold the best of all behaviours along each axis, and a behaviour of another channel is left out. Its
// channel is computed again, by this kernel alone, so that none is in two channels.

struct ChannelKeepParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    channels: u32,
    width: u32,
    top_k: u32,
    // Of the dispatch, and the row that is 0 in `kept`.
    first_list: u32,
    first_history: u32,
    rows_base: u32,
}
@group(0) @binding(0) var<uniform> params: ChannelKeepParams;

// The score of a row along an axis, in blocks of 1024 numbers for each of four sums.
fn score_along(axis: u32, row: u32) -> f32 {
    let a = axis * params.width;
    let e = params.rows_base + row * params.width;
    var sums = vec4<f32>();
    for (var begin = 0u; begin < params.width; begin += 4096u) {
        var some = vec4<f32>();
        for (var k = begin; k < min(begin + 4096u, params.width); k += 4u) {
            some += axes_vec4(a + k, params.width - k) * rows_vec4(e + k, params.width - k);
        }
        sums += some;
    }
    return (sums.x + sums.y) + (sums.z + sums.w);
}

// The first of a candidate's axes along which the score of a row is the highest.
fn channel_of(first_axis: u32, row: u32) -> u32 {
    var channel = NONE;
    var best = 0.0;
    for (var i = 0u; i < params.channels; i++) {
        if states[first_axis + i].x == CHANNEL {
            let score = score_along(first_axis + i, row);
            if channel == NONE || score > best {
                channel = i;
                best = score;
            }
        }
    }
    return channel;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let list = params.first_list + index / params.top_k;
    let slot = params.first_list * params.top_k + index;
    let history = tiles[2u * list + 1u].zw;
    let position = positions[slot];
    let score = bitcast<f32>(scores[slot]);
    var row = NONE;
    if position != NONE {
        row = history.x - params.first_history + position;
        if ALL == 1u {
            if channel_of(list / params.channels * params.channels, row) != list % params.channels {
                row = NONE;
            }
        }
    }
    kept[index] = vec2<u32>(bitcast<u32>(score), row);
    weights[index] = bitcast<u32>(select(0.0, score / f32(max(history.y - history.x, 1u)), row != NONE));
}
