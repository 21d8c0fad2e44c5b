// Gradients of candidates in DIN's backward pass: adds up what the runs of a candidate left in din/backward_outer.wgsl, in the order
// of the history, to what earlier parts left.
//
// One thread has one column of a candidate.

struct DinBackwardTargetsParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    width: u32,
    // Rows of parts per run, and numbers of one.
    unit_groups: u32,
    padded: u32,
    pieces: u32,
    first_piece: u32,
    users: u32,
    first_user: u32,
    // The first candidate of the part.
    first_target: u32,
    out_base: u32,
}
@group(0) @binding(0) var<uniform> params: DinBackwardTargetsParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let m = index / params.width;
    let column = index % params.width;
    let user = user_of(m);
    if m - user.z >= user.w {
        return;
    }
    let at = params.out_base + (params.first_target + m) * params.width + column;
    var sum = 0.0;
    for (var i = 0u; i < user.y; i++) {
        let run = places_of_piece(user.x + i)[RUN] + m - user.z;
        for (var part = 0u; part < params.unit_groups; part++) {
            sum += target_parts[(run * params.unit_groups + part) * params.padded + column];
        }
    }
    out[at] = select(out[at], 0.0, places_of_piece(user.x).w == 1u) + sum;
}
