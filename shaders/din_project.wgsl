// Products of rows with a matrix: out[i, u] = b[u] + Σ_k W[u, k] · x[i, k], for the part of DIN's first layer that
// depends on a candidate or a behaviour alone.
//
// One thread four units of one row. W is f32, its rows padded to whole fours; the bias is a row behind it.

struct Params {
    groups: u32,
    grid_width: u32,
    threads: u32,
    width: u32,
    // Fours of units.
    units: u32,
    rows_base: u32,
    weight: u32,
    bias: u32,
    has_bias: u32,
    out_base: u32,
    out_stride: u32,
}
@group(0) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let i = index / params.units;
    let u = index % params.units;
    let width4 = (params.width + 3u) / 4u;
    var sum = vec4<f32>();
    if params.has_bias == 1u {
        sum = weights[params.bias + u];
    }
    for (var k = 0u; k < width4; k++) {
        let x = rows_four(params.rows_base + i * params.width + 4u * k, params.width - 4u * k);
        let place = params.weight + 4u * u * width4 + k;
        sum += x * mat4x4<f32>(
            weights[place], weights[place + width4], weights[place + 2u * width4], weights[place + 3u * width4]);
    }
    out[params.out_base + i * params.out_stride + u] = sum;
}
