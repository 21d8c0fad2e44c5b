// The gradients of the axes as they were given, from those of the axes at right angles, through O·R = M. For i from the last to the first:
//
//     dv = (dO_i − O_i·⟨O_i, dO_i⟩)/R_ii          dM_i = dv − Σ_{j<i} O_j·⟨O_j, dv⟩
//     dO_j −= R_ji·dv + ⟨O_j, dv⟩·M_i             j < i
//
// One workgroup of 64 threads per candidate. A thread owns columns; it computes the products of dv with whole axes, which are kept
// where interest_channels/axes.wgsl kept its own, below the diagonal of R. R and M are those of scaled axes, and so is dM until the end.
// dO is overwritten. Zeros where there is no channel, NaN for a candidate whose axes are not finite.
//
// A dispatch takes axes first_axis .. end_axis of some candidates, the last first, so that loops stay short.

struct ChannelAxesBackwardParams {
    groups: u32,
    grid_width: u32,
    first_axis: u32,
    end_axis: u32,
    channels: u32,
    width: u32,
    // Of the dispatch, among those of the whole batch.
    first_candidate: u32,
    matrices_base: u32,
    out_base: u32,
}
@group(0) @binding(0) var<uniform> params: ChannelAxesBackwardParams;

// The product of an axis and a row of the gradients, in blocks of 1024.
fn product_of(axis: u32, row: u32) -> f32 {
    var sum = 0.0;
    for (var begin = 0u; begin < params.width; begin += 1024u) {
        var some = 0.0;
        for (var k = begin; k < min(begin + 1024u, params.width); k++) {
            some += axes[axis + k] * grads[row + k];
        }
        sum += some;
    }
    return sum;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let m = group_index(id);
    if m >= params.groups {
        return;
    }
    // The candidate's first axis among those of the dispatch, and among all.
    let own = m * params.channels;
    let first = own + params.first_candidate * params.channels;
    for (var next = params.end_axis; next > params.first_axis; next--) {
        let i = next - 1u;
        let row = (own + i) * params.width;
        let axis = (first + i) * params.width;
        let kind = states[first + i].x;
        let power = bitcast<f32>(states[first + i].y);
        var along = 0.0;
        for (var k = thread; k < params.width; k += 64u) {
            along += axes[axis + k] * grads[row + k];
        }
        along = sum_of_all(along, thread);
        let length = select(1.0, triangle[(first + i) * params.channels + i], kind == CHANNEL);
        for (var k = thread; k < params.width; k += 64u) {
            let rest = (grads[row + k] - along * axes[axis + k]) / length;
            grads[row + k] = select(0.0, rest, kind == CHANNEL);
        }
        // The gradient of what is at right angles is complete.
        storageBarrier();
        for (var j = thread; j < i; j += 64u) {
            triangle[(first + i) * params.channels + j] = product_of((first + j) * params.width, row);
        }
        storageBarrier();
        for (var k = thread; k < params.width; k += 64u) {
            let rest = grads[row + k];
            let column = power * matrices_at(params.matrices_base + row + k);
            var grad = rest;
            for (var j = 0u; j < i; j++) {
                let product = triangle[(first + i) * params.channels + j];
                grad -= product * axes[(first + j) * params.width + k];
                grads[(own + j) * params.width + k] -= triangle[(first + j) * params.channels + i] * rest + product * column;
            }
            var nan = 0x7fc00000u;
            out[params.out_base + row + k] = select(power * grad, bitcast<f32>(nan), kind == NOT_FINITE);
        }
    }
}
