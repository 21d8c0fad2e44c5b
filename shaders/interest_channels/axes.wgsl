// Puts the axes of candidates at right angles: O·R = M, the diagonal of R positive, by Gram–Schmidt.
//
// One workgroup of 64 threads per candidate takes one axis after the other. A thread computes the products with whole axes before it,
// and takes what lies along all of them out of its own columns. That is done twice: what rounding leaves of the first time would be large
// against a short rest. Columns are scaled by powers of two first, so that no square leaves the range of f32; R is of the scaled ones.
//
// axes[m,i] are the rows of O, of zeros where there is no channel; triangle[m,j,i] is R for j ≤ i (the rest holds products of the second
// time); states[m,i] is (NO_CHANNEL, CHANNEL or NOT_FINITE, the power). An axis that depends on those before it is reported, if that
// is asked for: the first of the first candidate.
//
// A dispatch takes axes first_axis .. end_axis of all candidates, so that loops stay short.

struct ChannelAxesParams {
    groups: u32,
    grid_width: u32,
    first_axis: u32,
    end_axis: u32,
    channels: u32,
    width: u32,
    matrices_base: u32,
    reports: u32,
}
@group(0) @binding(0) var<uniform> params: ChannelAxesParams;

// The square of the part of an axis at right angles to those before it that counts as none.
const DEPENDENT_SQUARE: f32 = 1e-10;

// The product of two rows, in blocks of 1024.
fn product_of(a: u32, b: u32) -> f32 {
    var sum = 0.0;
    for (var begin = 0u; begin < params.width; begin += 1024u) {
        var some = 0.0;
        for (var k = begin; k < min(begin + 1024u, params.width); k++) {
            some += axes[a + k] * axes[b + k];
        }
        sum += some;
    }
    return sum;
}

// Whether all numbers of a candidate are finite.
fn is_finite_candidate(first: u32, thread: u32) -> bool {
    var bad = 0.0;
    for (var k = thread; k < params.channels * params.width; k += 64u) {
        let bits = bitcast<u32>(matrices_at(params.matrices_base + first * params.width + k));
        bad = select(bad, 1.0, (bits & EXPONENT) == EXPONENT);
    }
    return sum_of_all(bad, thread) == 0.0;
}

// The power of two that brings the largest number of an axis between 4 and 8.
fn power_of(row: u32, thread: u32) -> f32 {
    var most = 0u;
    for (var k = thread; k < params.width; k += 64u) {
        most = max(most, bitcast<u32>(matrices_at(params.matrices_base + row + k)) & 0x7fffffffu);
    }
    let largest = max_of_all(bitcast<f32>(most), thread);
    return power_of_two(256u - clamp(bitcast<u32>(largest) >> 23u, 3u, 254u));
}

// Takes what lies along the axes before axis `i` out of it. `first` is the candidate's first axis.
fn take_out(first: u32, i: u32, thread: u32) {
    let row = (first + i) * params.width;
    // The rest is complete.
    storageBarrier();
    for (var j = thread; j < i; j += 64u) {
        triangle[(first + i) * params.channels + j] = product_of((first + j) * params.width, row);
    }
    storageBarrier();
    for (var k = thread; k < params.width; k += 64u) {
        var rest = axes[row + k];
        for (var j = 0u; j < i; j++) {
            rest -= triangle[(first + i) * params.channels + j] * axes[(first + j) * params.width + k];
        }
        axes[row + k] = rest;
    }
    for (var j = thread; j < i; j += 64u) {
        triangle[(first + j) * params.channels + i] += triangle[(first + i) * params.channels + j];
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let m = group_index(id);
    if m >= params.groups {
        return;
    }
    let first = m * params.channels;
    let is_finite = is_finite_candidate(first, thread);
    for (var i = params.first_axis; i < params.end_axis; i++) {
        let row = (first + i) * params.width;
        let power = power_of(row, thread);
        var whole = 0.0;
        for (var k = thread; k < params.width; k += 64u) {
            let number = power * matrices_at(params.matrices_base + row + k);
            axes[row + k] = number;
            whole += number * number;
        }
        for (var j = thread; j < i; j += 64u) {
            triangle[(first + j) * params.channels + i] = 0.0;
        }
        take_out(first, i, thread);
        take_out(first, i, thread);
        var rest = 0.0;
        for (var k = thread; k < params.width; k += 64u) {
            rest += axes[row + k] * axes[row + k];
        }
        let square = sum_of_all(rest, thread);
        let depends = !(square > DEPENDENT_SQUARE * sum_of_all(whole, thread));
        let exists = is_finite && !depends;
        let inverse = inverse_root(square);
        for (var k = thread; k < params.width; k += 64u) {
            axes[row + k] = select(0.0, axes[row + k] * inverse, exists);
        }
        if thread == 0u {
            triangle[(first + i) * params.channels + i] = select(0.0, square * inverse, exists);
            let kind = select(select(NO_CHANNEL, CHANNEL, exists), NOT_FINITE, !is_finite);
            states[first + i] = vec2<u32>(kind, bitcast<u32>(power));
            if params.reports == 1u && is_finite && depends {
                atomicMin(&report[0], first + i);
            }
        }
    }
}
