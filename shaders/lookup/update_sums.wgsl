// Row-wise Adagrad: adds the mean square of a row's gradient to the row's sum, and writes the factor of the gradient,
// rate / (√sum + eps).
//
// A team of `lanes` threads (a power of two, 1 to 64) takes a row; their sums are added by pairs in workgroup memory.

struct UpdateSumsParams {
    groups: u32,
    grid_width: u32,
    ids_base: u32,
    gradient_base: u32,
    sums_base: u32,
    width: u32,
    lanes: u32,
    rate: f32,
    eps: f32,
}
@group(0) @binding(0) var<uniform> params: UpdateSumsParams;

var<workgroup> squares: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let lane = thread % params.lanes;
    let index = group_index(group) * (64u / params.lanes) + thread / params.lanes;
    let is_row = index < live[0];
    var own = 0.0;
    if is_row {
        for (var column = lane; column < params.width; column += params.lanes) {
            let g = gradient[params.gradient_base + index * params.width + column];
            own += g * g;
        }
    }
    squares[thread] = own;
    workgroupBarrier();
    for (var distance = params.lanes / 2u; distance > 0u; distance /= 2u) {
        if lane < distance {
            squares[thread] += squares[thread + distance];
        }
        workgroupBarrier();
    }
    if is_row && lane == 0u {
        let place = params.sums_base + ids[params.ids_base + index];
        let sum = sums[place] + squares[thread] / f32(params.width);
        sums[place] = sum;
        factors[index] = params.rate / (sqrt(sum) + params.eps);
    }
}
