// Products of rows with rows of candidates: out = a ⊙ b, or out += a ⊙ b. Of the means in the forward pass, and of the gradient that comes in in
// the backward pass.
//
// One thread per number.

struct TinMultiplyParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    a_base: u32,
    b_base: u32,
    out_base: u32,
    // Whether there is a second factor.
    multiplies: u32,
    adds: u32,
}
@group(0) @binding(0) var<uniform> params: TinMultiplyParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    var product = a_at(params.a_base + index);
    if params.multiplies == 1u {
        product *= b_at(params.b_base + index);
    }
    if params.adds == 1u {
        product += out[params.out_base + index];
    }
    out[params.out_base + index] = product;
}
