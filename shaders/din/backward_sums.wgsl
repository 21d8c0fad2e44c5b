// Adds up rows of numbers in DIN's backward pass: out[g,:] = Σ in[r,:] over 64 rows r from 64·g on, in order; added to what is there
// if `adds`. One thread has four columns.

struct DinBackwardSumsParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    rows: u32,
    // vec4s of a row, in and out alike.
    width4: u32,
    // The first row of `sums`, in vec4s.
    first: u32,
    adds: u32,
}
@group(0) @binding(0) var<uniform> params: DinBackwardSumsParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let group = index / params.width4;
    let column = index % params.width4;
    var sum = vec4<f32>();
    for (var row = 64u * group; row < min(64u * group + 64u, params.rows); row++) {
        sum += parts[row * params.width4 + column];
    }
    let at = params.first + index;
    if params.adds == 1u {
        sum += sums[at];
    }
    sums[at] = sum;
}
