// Gradients of weights in DIN's backward pass: Σ dy ⊗ x over pairs, of 32 units and 32 inputs per workgroup of 64 threads.
//
// FIRST=0: of a later layer, over `per_split` tiles. A workgroup per split, units and inputs; `parts` has a matrix for each split.
// FIRST=1: of the first layer, over `per_split` runs. With G_m = Σ_l dy ⊗ s_l and S_m = Σ_l dy of the run of a candidate, the sums
//   are Σ S_m ⊗ q_m, Σ G_m and Σ G_m·diag(q_m), the gradients of W_q + W_d (as far as they come from q), W_k − W_d and W_p.
//   `target_parts` gets (W_q + W_d)ᵀ·S_m + the columns of W_p ⊙ G_m, summed: the run's part of the candidate's gradient, one for
//   every 32 units.
//
// A thread has units u, u + 8, u + 16, u + 24 and inputs j, j + 8, and so on. Tiles are staged in workgroup memory, in rows of five
// vec4s, so that neighbouring rows are in different banks. Sums are taken of each run, then of the runs. Workgroup memory: 6 KiB.

struct DinBackwardOuterParams {
    groups: u32,
    grid_width: u32,
    pieces: u32,
    first_piece: u32,
    items: u32,
    per_split: u32,
    // Workgroups by units and by inputs, and vec4s of both.
    unit_groups: u32,
    input_groups: u32,
    units4: u32,
    inputs4: u32,
    // Of a tile, and of dy and x in it.
    tile: u32,
    grads: u32,
    inputs: u32,
    // Numbers of a candidate; W_p and W_q + W_d in the network, in numbers.
    candidate: u32,
    products: u32,
    queries: u32,
    // Softmax: its states, of the candidates of the part.
    first_state: u32,
    softmax: u32,
    wants_targets: u32,
}
@group(0) @binding(0) var<uniform> params: DinBackwardOuterParams;

var<workgroup> unit_rows: array<vec4<f32>, 160>;
var<workgroup> input_rows: array<vec4<f32>, 160>;
var<workgroup> target_sums: array<vec4<f32>, 64>;

// Of a run: G, with a column for each of the thread's units, and S.
struct Sums {
    outer: mat4x4<f32>,
    units: vec4<f32>,
}

fn stage(thread: u32, tile: u32, first_unit: u32, first_input: u32) {
    workgroupBarrier();
    for (var i = thread; i < 128u; i += 64u) {
        let row = i / ROWS4;
        let quad = i % ROWS4;
        var dy = vec4<f32>();
        var x = vec4<f32>();
        if first_unit + row < 4u * params.units4 {
            dy = work[tile + params.grads + ROWS4 * first_unit + i];
        }
        if first_input + row < 4u * params.inputs4 {
            x = work[tile + params.inputs + ROWS4 * first_input + i];
        }
        unit_rows[5u * row + quad] = dy;
        input_rows[5u * row + quad] = x;
    }
    workgroupBarrier();
}

fn add_tile(sums: Sums, u: u32, j: u32) -> Sums {
    var all = sums;
    for (var quad = 0u; quad < ROWS4; quad++) {
        let x0 = input_rows[5u * j + quad];
        let x1 = input_rows[5u * (j + 8u) + quad];
        let x2 = input_rows[5u * (j + 16u) + quad];
        let x3 = input_rows[5u * (j + 24u) + quad];
        for (var a = 0u; a < 4u; a++) {
            let dy = unit_rows[5u * (u + 8u * a) + quad];
            all.outer[a] += vec4<f32>(dot(dy, x0), dot(dy, x1), dot(dy, x2), dot(dy, x3));
            if FIRST == 1u {
                all.units[a] += dot(dy, vec4<f32>(1.0));
            }
        }
    }
    return all;
}

// Inputs j, j + 8, and so on of a row of numbers at `at` of a candidate; zeros past the end.
fn columns_of_candidate(at: u32, first: u32) -> vec4<f32> {
    var out = vec4<f32>();
    for (var b = 0u; b < 4u; b++) {
        if first + 8u * b < 4u * params.inputs4 {
            out[b] = candidates[at + first + 8u * b];
        }
    }
    return out;
}

// Whether any behaviour of the candidate is not removed: otherwise it adds nothing, whatever it holds.
fn counts(m: u32) -> bool {
    return params.softmax == 0u || bitcast<u32>(states[params.first_state + m].y) != 0u;
}

// The part of a candidate's gradient that comes from the thread's units.
fn target_part(sums: Sums, first_unit: u32, first_input: u32) -> vec4<f32> {
    var part = vec4<f32>();
    for (var a = 0u; a < 4u; a++) {
        let unit = first_unit + 8u * a;
        for (var b = 0u; b < 4u; b++) {
            let input = first_input + 8u * b;
            if unit < 4u * params.units4 && input < 4u * params.inputs4 {
                let at = unit * 4u * params.inputs4 + input;
                part[b] += network[params.queries + at] * sums.units[a] + network[params.products + at] * sums.outer[a][b];
            }
        }
    }
    return part;
}

// Adds up the parts of eight threads with the same inputs, for the candidate of run `run`.
fn write_target(thread: u32, run: u32, unit_group: u32, first_input: u32, part: vec4<f32>) {
    target_sums[thread] = part;
    workgroupBarrier();
    if thread < 8u {
        var sum = vec4<f32>();
        for (var other = thread; other < 64u; other += 8u) {
            sum += target_sums[other];
        }
        let row = (run * params.unit_groups + unit_group) * 4u * params.inputs4;
        for (var b = 0u; b < 4u; b++) {
            if first_input + 8u * b < 4u * params.inputs4 {
                target_parts[row + first_input + 8u * b] = sum[b];
            }
        }
    }
}

fn write_part(matrix: u32, sums: mat4x4<f32>, first_unit: u32, first_input: u32) {
    for (var a = 0u; a < 4u; a++) {
        let unit = first_unit + 8u * a;
        for (var b = 0u; b < 4u; b++) {
            let input = first_input + 8u * b;
            if unit < 4u * params.units4 && input < 4u * params.inputs4 {
                parts[(matrix * 4u * params.units4 + unit) * 4u * params.inputs4 + input] = sums[a][b];
            }
        }
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = group_index(id);
    if group >= params.groups {
        return;
    }
    let input_group = group % params.input_groups;
    let unit_group = group / params.input_groups % params.unit_groups;
    let split = group / (params.input_groups * params.unit_groups);
    let u = thread / 8u;
    let j = thread % 8u;
    let first_unit = 32u * unit_group;
    let first_input = 32u * input_group;
    let begin = split * params.per_split;
    let end = min(begin + params.per_split, params.items);
    var of_behaviours = mat4x4<f32>();
    var of_queries = mat4x4<f32>();
    var of_pairs = mat4x4<f32>();
    for (var item = begin; item < end; item++) {
        var sums = Sums();
        if FIRST == 0u {
            stage(thread, item * params.tile, first_unit, first_input);
            sums = add_tile(sums, u, j);
            of_behaviours += sums.outer;
            continue;
        }
        let index = piece_of(item, RUN);
        let piece = rows_of_piece(index);
        let places = places_of_piece(index);
        let tiles = tiles_per_run(piece);
        let first_tile = places[TILE] + (item - places[RUN]) * tiles;
        for (var tile = first_tile; tile < first_tile + tiles; tile++) {
            stage(thread, tile * params.tile, first_unit, first_input);
            sums = add_tile(sums, u, j);
        }
        let m = piece.z + item - places[RUN];
        var q = vec4<f32>();
        var part = vec4<f32>();
        if counts(m) {
            q = columns_of_candidate(m * params.candidate, first_input + j);
            if params.wants_targets == 1u {
                part = target_part(sums, first_unit + u, first_input + j);
            }
        }
        for (var a = 0u; a < 4u; a++) {
            of_queries[a] += sums.units[a] * q;
            of_behaviours[a] += sums.outer[a];
            of_pairs[a] += sums.outer[a] * q;
        }
        if params.wants_targets == 1u {
            write_target(thread, item, unit_group, first_input + j, part);
        }
    }
    if FIRST == 0u {
        write_part(split, of_behaviours, first_unit + u, first_input + j);
    } else {
        write_part(3u * split, of_queries, first_unit + u, first_input + j);
        write_part(3u * split + 1u, of_behaviours, first_unit + u, first_input + j);
        write_part(3u * split + 2u, of_pairs, first_unit + u, first_input + j);
    }
}
