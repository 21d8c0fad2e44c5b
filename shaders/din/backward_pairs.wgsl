// The pairs of DIN's backward pass: one workgroup of 64 threads computes one candidate against 16 behaviours, a tile.
//
// SCORES: each pair's score and the gradient of its weight, ⟨grad_out, s⟩, for the softmax states (din/backward_states.wgsl).
// GRADIENTS: the network forwards, weights and gradients of scores, and backwards down to the first layer that has a gradient.
//   It leaves the inputs of every layer and the gradients dy before every activation in `work`, weights in `pair_numbers`, and the
//   sums over the 16 pairs of the gradients of vectors in `tile_sums`. A pair that a score of -∞ removes, and one past the end of
//   the history, has zeros everywhere, whatever the behaviour holds.
// STATISTICS: mean and sum of squared distances of each unit before the activation of the last layer that is computed, and the
//   number of behaviours.
//
// What a thread reads in `work`, others of its workgroup wrote, before a barrier. Precision: f32. Workgroup memory: 4.4 KiB.

struct DinBackwardPairsParams {
    groups: u32,
    grid_width: u32,
    mode: u32,
    pieces: u32,
    // Units, activation, place of the weights, place of the vectors.
    layer_0: vec4<u32>,
    layer_1: vec4<u32>,
    layer_2: vec4<u32>,
    // Before the activation, after it, the sums, vec4s of units.
    place_0: vec4<u32>,
    place_1: vec4<u32>,
    place_2: vec4<u32>,
    // Layers to compute; the first whose numbers have gradients.
    layers: u32,
    deepest: u32,
    softmax: u32,
    width: u32,
    history_base: u32,
    candidate: u32,
    tile: u32,
    tile_sums: u32,
    output_sums: u32,
    output_bias: u32,
    first_state: u32,
    first_piece: u32,
}
@group(0) @binding(0) var<uniform> params: DinBackwardPairsParams;

const SCORES: u32 = 0u;
const STATISTICS: u32 = 2u;

// Sums of every thread, of up to four vectors.
var<workgroup> thread_sums: array<vec4<f32>, 256>;
// Of the 16 pairs: the gradients of their scores, and 1 for those that are not removed.
var<workgroup> grad_scores: array<vec4<f32>, 4>;
var<workgroup> kept: array<vec4<f32>, 4>;

fn layer_of(i: u32) -> vec4<u32> {
    if i == 0u { return params.layer_0; }
    if i == 1u { return params.layer_1; }
    return params.layer_2;
}

// The places of a layer of the tile at `tile`.
fn place_of(i: u32, tile: u32) -> vec4<u32> {
    let at = vec4<u32>(tile, tile, 0u, 0u);
    if i == 0u { return params.place_0 + at; }
    if i == 1u { return params.place_1 + at; }
    return params.place_2 + at;
}

fn load_history(thread: u32, tile: u32, first: u32, rows: u32) {
    let quad = thread % ROWS4;
    let padded = (params.width + 3u) / 4u * 4u;
    for (var k = thread / ROWS4; k < padded; k += 16u) {
        var value = vec4<f32>();
        for (var i = 0u; i < 4u; i++) {
            let row = 4u * quad + i;
            if row < rows && k < params.width {
                value[i] = history_at(params.history_base + (first + row) * params.width + k);
            }
        }
        work[tile + ROWS4 * k + quad] = value;
    }
}

// Each thread's share of the scores, and of the gradients of the weights, of four pairs.
fn share_scores(thread: u32, tile: u32, candidate: u32, layer: vec4<u32>, place: vec4<u32>) {
    let quad = thread % ROWS4;
    var score = vec4<f32>();
    for (var unit = thread / ROWS4; unit < layer.x; unit += 16u) {
        score += vector_of(layer, place.w, 4u, unit) * work[place.y + ROWS4 * unit + quad];
    }
    var grad_weight = vec4<f32>();
    let grad_out = candidate + (params.width + 3u) / 4u;
    for (var k = thread / ROWS4; k < params.width; k += 16u) {
        grad_weight += candidates[grad_out + k / 4u][k % 4u] * work[tile + ROWS4 * k + quad];
    }
    thread_sums[thread] = score;
    thread_sums[64u + thread] = grad_weight;
}

// The weights of four pairs, and the gradients of their scores. `group` is the tile, `rows` the number of its behaviours.
fn weigh(quad: u32, group: u32, rows: u32, m: u32) {
    var score = vec4<f32>();
    var grad_weight = vec4<f32>();
    for (var part = quad; part < 64u; part += ROWS4) {
        score += thread_sums[part];
        grad_weight += thread_sums[64u + part];
    }
    score += network[params.output_bias].x;
    let row = 4u * vec4<u32>(quad) + vec4<u32>(0u, 1u, 2u, 3u);
    var present = row < vec4<u32>(rows);
    if params.mode == SCORES {
        pair_numbers[8u * group + quad] = select(vec4<f32>(negative_infinity()), score, present);
        pair_numbers[8u * group + 4u + quad] = grad_weight;
        return;
    }
    var weight = score;
    var grad = grad_weight;
    if params.softmax == 1u {
        present = present & (bitcast<vec4<u32>>(score) != vec4<u32>(NEGATIVE_INFINITY));
        // The largest score, the sum of exponentials, and that of exponentials times gradients.
        let state = states[params.first_state + m];
        weight = exp_of(score - shift_of(vec4<f32>(state.x))) / state.y;
        grad = weight * (grad_weight - state.z / state.y);
    }
    let ones = select(vec4<f32>(), vec4<f32>(1.0), present);
    grad_scores[quad] = select(vec4<f32>(), grad, present);
    kept[quad] = ones;
    pair_numbers[8u * group + quad] = select(vec4<f32>(), weight, present);
    pair_numbers[8u * group + 4u + quad] = ones;
}

// Sets `count` rows at `place` to zero where pairs are removed.
fn clear_removed(thread: u32, place: u32, count: u32) {
    let quad = thread % ROWS4;
    let keeps = kept[quad] > vec4<f32>();
    for (var row = thread / ROWS4; row < count; row += 16u) {
        let at = place + ROWS4 * row + quad;
        work[at] = select(vec4<f32>(), work[at], keeps);
    }
}

// The gradients of the output layer.
fn output_layer(thread: u32, sums: u32, layer: vec4<u32>, place: vec4<u32>) {
    for (var unit4 = thread; unit4 < place.w; unit4 += 64u) {
        var sum = vec4<f32>();
        for (var i = 0u; i < 4u; i++) {
            let at = place.y + ROWS4 * (4u * unit4 + i);
            for (var quad = 0u; quad < ROWS4; quad++) {
                sum[i] += dot(grad_scores[quad], work[at + quad]);
            }
        }
        tile_sums[sums + unit4] = sum;
    }
    if thread == 0u {
        let all = (grad_scores[0] + grad_scores[1]) + (grad_scores[2] + grad_scores[3]);
        tile_sums[sums + place.w] = vec4<f32>(dot(all, vec4<f32>(1.0)), 0.0, 0.0, 0.0);
    }
}

// The gradients of a layer before its activation, in the place of its numbers, and the sums of those of its vectors at `sums`.
fn layer_backward(thread: u32, tile: u32, i: u32, sums: u32) {
    let quad = thread % ROWS4;
    let layer = layer_of(i);
    let place = place_of(i, tile);
    let keeps = kept[quad] > vec4<f32>();
    for (var first = 0u; first < place.w; first += 16u) {
        let unit4 = first + thread / ROWS4;
        if unit4 < place.w {
            var dx = mat4x4<f32>();
            if i + 1u == params.layers {
                let w = network[layer.w + 4u * place.w + unit4];
                let grad = grad_scores[quad];
                dx = mat4x4<f32>(w.x * grad, w.y * grad, w.z * grad, w.w * grad);
            } else {
                dx = through_next(unit4, quad, layer_of(i + 1u), place_of(i + 1u, tile), place.w);
            }
            for (var unit = 0u; unit < 4u; unit++) {
                let at = place.x + ROWS4 * (4u * unit4 + unit) + quad;
                let y = select(vec4<f32>(), work[at], keeps);
                let own = activate_backward(y, select(vec4<f32>(), dx[unit], keeps), layer, place.w, 4u * unit4 + unit);
                work[at] = own.dy;
                thread_sums[64u * unit + thread] = own.sums;
            }
        }
        workgroupBarrier();
        // Four threads have the same units: each adds up one of the four vectors.
        if unit4 < place.w {
            var sum = vec4<f32>();
            for (var unit = 0u; unit < 4u; unit++) {
                for (var other = 0u; other < ROWS4; other++) {
                    sum[unit] += thread_sums[64u * unit + thread - quad + other][quad];
                }
            }
            tile_sums[sums + quad * place.w + unit4] = sum;
        }
        workgroupBarrier();
    }
}

// Mean and sum of squared distances of each unit before its activation.
fn measure(thread: u32, sums: u32, rows: u32, place: vec4<u32>) {
    for (var unit4 = thread; unit4 < place.w; unit4 += 64u) {
        var mean = vec4<f32>();
        var squares = vec4<f32>();
        for (var i = 0u; i < 4u; i++) {
            let at = place.x + ROWS4 * (4u * unit4 + i);
            for (var row = 0u; row < rows; row++) {
                mean[i] += work[at + row / 4u][row % 4u];
            }
            mean[i] /= f32(rows);
            for (var row = 0u; row < rows; row++) {
                let distance = work[at + row / 4u][row % 4u] - mean[i];
                squares[i] += distance * distance;
            }
        }
        tile_sums[sums + unit4] = mean;
        tile_sums[sums + place.w + unit4] = squares;
    }
    if thread == 0u {
        tile_sums[sums + 2u * place.w] = vec4<f32>(f32(rows));
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = group_index(id);
    if group >= params.groups {
        return;
    }
    let index = piece_of(group, TILE);
    let piece = rows_of_piece(index);
    let own = group - places_of_piece(index)[TILE];
    let m = piece.z + own / tiles_per_run(piece);
    let first = own % tiles_per_run(piece) * 16u;
    let rows = min(16u, piece.y - first);
    let tile = group * params.tile;
    let candidate = m * params.candidate;
    let sums = group * params.tile_sums;
    let last = params.layers - 1u;
    load_history(thread, tile, piece.x + first, rows);
    storageBarrier();
    workgroupBarrier();
    first_layer(thread, tile, candidate, params.layer_0, place_of(0u, tile));
    for (var i = 1u; i < params.layers; i++) {
        storageBarrier();
        workgroupBarrier();
        let before = place_of(i - 1u, tile);
        later_layer(thread, before.y, before.w, layer_of(i), place_of(i, tile));
    }
    storageBarrier();
    workgroupBarrier();
    if params.mode == STATISTICS {
        measure(thread, sums, rows, place_of(last, tile));
        return;
    }
    share_scores(thread, tile, candidate, layer_of(last), place_of(last, tile));
    workgroupBarrier();
    if thread < ROWS4 {
        weigh(thread, group, rows, m);
    }
    if params.mode == SCORES {
        return;
    }
    workgroupBarrier();
    let all = (kept[0] + kept[1]) + (kept[2] + kept[3]);
    if dot(all, vec4<f32>(1.0)) < 16.0 {
        clear_removed(thread, tile, (params.width + 3u) / 4u * 4u);
        for (var i = 0u; i < params.layers; i++) {
            let place = place_of(i, tile);
            clear_removed(thread, place.y, 4u * place.w);
        }
    }
    storageBarrier();
    workgroupBarrier();
    output_layer(thread, sums + params.output_sums, layer_of(last), place_of(last, tile));
    for (var i = params.layers; i > params.deepest; i--) {
        layer_backward(thread, tile, i - 1u, sums + place_of(i - 1u, tile).z);
        storageBarrier();
        workgroupBarrier();
    }
}
