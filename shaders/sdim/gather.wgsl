// The gradients of behaviours through bucket tables: ds_l = w_l·Σ_g dT[b,g,sig[l,g],:].
//
// One thread per element of the output, in the order of the rows: neighbouring threads read the same signatures and
// neighbouring numbers of the same bucket row. The user of a behaviour is found by bisection of the offsets. Sums are f32, in
// the order of the groups. Where `weighted` is 0, weights are 1 and are not read.

struct SdimGatherParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    // The first behaviour of the output.
    first_row: u32,
    users: u32,
    width: u32,
    hash_groups: u32,
    buckets: u32,
    grads_base: u32,
    codes_base: u32,
    out_base: u32,
    weights_base: u32,
    weighted: u32,
}
@group(0) @binding(0) var<uniform> params: SdimGatherParams;

fn user_of(row: u32) -> u32 {
    var low = 0u;
    var high = params.users;
    while high - low > 1u {
        let middle = (low + high) / 2u;
        if offsets[middle] <= row { low = middle; } else { high = middle; }
    }
    return low;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let row = params.first_row + index / params.width;
    let column = index % params.width;
    let first_group = user_of(row) * params.hash_groups;
    var sum = 0.0;
    for (var g = 0u; g < params.hash_groups; g++) {
        // A given signature may be out of range; another kernel reports it.
        let code = min(codes_at(params.codes_base + row * params.hash_groups + g), params.buckets - 1u);
        sum += grads[params.grads_base + ((first_group + g) * params.buckets + code) * params.width + column];
    }
    if params.weighted > 0u {
        sum *= weights[params.weights_base + row];
    }
    out[params.out_base + index] = sum;
}
