// The softmax of each candidate over a span: partial results (maximum, sum, Σ weight · product); and which behaviours any candidate keeps.
//
// One workgroup of 128 threads per tile. What 16 threads have of a candidate is merged in order.

struct AllStatesParams {
    groups: u32,
    grid_width: u32,
    tiles: u32,
    first_tile: u32,
    attention_width: u32,
    representation_width: u32,
    grads_base: u32,
    // Whether products are wanted.
    has_values: u32,
    // The chunk's first behaviour.
    first_behaviour: u32,
    // On the products of scaled rows.
    score_factor: f32,
}
@group(0) @binding(0) var<uniform> params: AllStatesParams;

var<workgroup> states: array<vec4<f32>, 256>;

// Of four behaviours, for the candidate's state before.
fn with_scores(before: vec4<f32>, scores: vec4<f32>, products: vec4<f32>, counts: vec4<bool>) -> vec4<f32> {
    var highest = before.x;
    for (var l = 0u; l < 4u; l++) {
        if counts[l] {
            highest = max(highest, scores[l]);
        }
    }
    let factor = rescale_of(vec4<f32>(before.x), vec4<f32>(highest)).x;
    let weights = exp_of(scores - shift_of(vec4<f32>(highest)));
    var sum = before.y * factor;
    var mean = before.z * factor;
    for (var l = 0u; l < 4u; l++) {
        if counts[l] {
            sum += weights[l];
            mean += weights[l] * products[l];
        }
    }
    return vec4<f32>(highest, sum, mean, 0.0);
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id);
    if index >= params.tiles {
        return;
    }
    let tile = tiles[params.first_tile + index];
    let span = spans[2u * tile.x];
    let first_partial = spans[2u * tile.x + 1u].y;
    let first_own = tile.y + thread / LANES * 2u;
    let lane = thread % LANES;
    var own = array<vec4<f32>, 2>();
    own[0].x = negative_infinity();
    own[1].x = negative_infinity();
    for (var begin = 0u; begin < span.y; begin += BEHAVIOURS) {
        let rows = TileRows(
            span.z + tile.y, min(CANDIDATES, span.w - tile.y), span.x + begin, min(BEHAVIOURS, span.y - begin));
        let pairs = pair_scores(thread, rows);
        let own_rows = vec4<u32>(begin + lane) + vec4<u32>(0u, 16u, 32u, 48u);
        let in_span = own_rows < vec4<u32>(span.y);
        var keeps = vec4<bool>();
        for (var c = 0u; c < 2u; c++) {
            if first_own + c < span.w {
                let removed = bitcast<vec4<u32>>(pairs.scores[c]) == vec4<u32>(NEGATIVE_INFINITY);
                let counts = in_span & !removed;
                own[c] = with_scores(own[c], pairs.scores[c], pairs.products[c], counts);
                keeps = keeps | counts;
            }
        }
        for (var l = 0u; l < 4u; l++) {
            if keeps[l] {
                atomicOr(&kept[params.first_behaviour + span.x + own_rows[l]], 1u);
            }
        }
    }
    states[2u * thread] = own[0];
    states[2u * thread + 1u] = own[1];
    workgroupBarrier();
    if lane < 2u && first_own + lane < span.w {
        var state = states[2u * (thread - lane) + lane];
        for (var other = 1u; other < LANES; other++) {
            state = merged(state, states[2u * (thread - lane + other) + lane]);
        }
        partial[first_partial + first_own + lane] = state;
    }
}
