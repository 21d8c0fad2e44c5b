// The gradients of the sums of what channels keep, from those of the output:
//
//     dr = g                                             without `normalise`
//     dr = (g − u·⟨u, g⟩)/‖r‖, u = r/‖r‖                  with it; g/1e-12 where ‖r‖ is not above that
//
// Zeros where there is no channel. One workgroup of 64 threads per list, each of which computes the length and the product.

struct ChannelGradientParams {
    groups: u32,
    grid_width: u32,
    width: u32,
    // Of the dispatch, among those of the whole batch.
    first_list: u32,
    grad_out_base: u32,
    normalise: u32,
}
@group(0) @binding(0) var<uniform> params: ChannelGradientParams;

// Whether a length is not above its floor, by which search/row_length.wgsl then divides.
fn is_floor(length: vec2<f32>) -> bool {
    return length.x == 0.0 || length.y >= 1e12 * power_of_two(254u - (bitcast<u32>(length.x) >> 23u));
}

// ⟨u, g⟩ of a row, in blocks of 1024 numbers for each of four sums.
fn product_of(row: u32, length: vec2<f32>) -> f32 {
    var sums = vec4<f32>();
    for (var begin = 0u; begin < params.width; begin += 4096u) {
        var some = vec4<f32>();
        for (var k = begin; k < min(begin + 4096u, params.width); k += 4u) {
            let left = params.width - k;
            let unit = length.y * (length.x * rows_vec4(row + k, left));
            some += unit * grad_out_vec4(params.grad_out_base + row + k, left);
        }
        sums += some;
    }
    return (sums.x + sums.y) + (sums.z + sums.w);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let list = group_index(id);
    if list >= params.groups {
        return;
    }
    let row = list * params.width;
    let exists = states[params.first_list + list].x == CHANNEL;
    var length = vec2<f32>(1.0, 1.0);
    var product = 0.0;
    var floored = false;
    if params.normalise == 1u {
        length = length_of(row);
        floored = is_floor(length);
        if !floored {
            product = product_of(row, length);
        }
    }
    for (var k = thread; k < params.width; k += 64u) {
        var number = grad_out_at(params.grad_out_base + row + k);
        if floored {
            number *= 1e12;
        } else if params.normalise == 1u {
            let unit = length.y * (length.x * rows_at(row + k));
            number = length.y * ((number - product * unit) * length.x);
        }
        grads[row + k] = select(0.0, number, exists);
    }
}
