// Softmax states of candidates: the largest score a, Σ exp(a − largest) and Σ exp(a − largest)·dw, with dw = ⟨grad_out, s⟩. The
// ratio of the last two is the mean that gradients of scores are relative to. A score of -∞ removes a pair.
//
// RUNS: one thread computes the state of a run, of up to 256 pairs, from what din/backward_pairs.wgsl left.
// CANDIDATES: one thread adds those of a candidate, in the order of the history, to the state that earlier parts left.

struct DinBackwardStatesParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    step: u32,
    pieces: u32,
    first_piece: u32,
    users: u32,
    first_user: u32,
    first_state: u32,
}
@group(0) @binding(0) var<uniform> params: DinBackwardStatesParams;

const RUNS: u32 = 0u;

fn state_of_run(run: u32) -> vec4<f32> {
    let index = piece_of(run, RUN);
    let places = places_of_piece(index);
    let tiles = tiles_per_run(rows_of_piece(index));
    let first = 8u * (places[TILE] + (run - places[RUN]) * tiles);
    var largest = vec4<f32>(negative_infinity());
    for (var tile = 0u; tile < tiles; tile++) {
        for (var quad = 0u; quad < ROWS4; quad++) {
            largest = max(largest, pair_numbers[first + 8u * tile + quad]);
        }
    }
    let most = max(max(largest.x, largest.y), max(largest.z, largest.w));
    let shift = shift_of(vec4<f32>(most));
    var sums = vec4<f32>();
    var weighted = vec4<f32>();
    for (var tile = 0u; tile < tiles; tile++) {
        for (var quad = 0u; quad < ROWS4; quad++) {
            let at = first + 8u * tile + quad;
            let score = pair_numbers[at];
            let removed = bitcast<vec4<u32>>(score) == vec4<u32>(NEGATIVE_INFINITY);
            let exponential = select(exp_of(score - shift), vec4<f32>(), removed);
            sums += exponential;
            weighted += select(exponential * pair_numbers[at + 4u], vec4<f32>(), removed);
        }
    }
    let ones = vec4<f32>(1.0);
    return vec4<f32>(most, dot(sums, ones), dot(weighted, ones), 0.0);
}

fn add_states(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    let most = max(a.x, b.x);
    let shift = shift_of(vec4<f32>(most)).x;
    let factors = exp_of(vec4<f32>(a.x - shift, b.x - shift, -88.0, -88.0));
    // Both factors of states without scores are those of sums that are 0.
    return vec4<f32>(most, a.y * factors.x + b.y * factors.y, a.z * factors.x + b.z * factors.y, 0.0);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    if params.step == RUNS {
        run_states[index] = state_of_run(index);
        return;
    }
    let user = user_of(index);
    if index - user.z >= user.w {
        return;
    }
    var state = vec4<f32>(negative_infinity(), 0.0, 0.0, 0.0);
    if places_of_piece(user.x).w == 0u {
        state = states[params.first_state + index];
    }
    for (var i = 0u; i < user.y; i++) {
        state = add_states(state, run_states[places_of_piece(user.x + i)[RUN] + index - user.z]);
    }
    states[params.first_state + index] = state;
}
