// The gradient of the bucket row that a candidate reads in a group, for each candidate and group: of the sums that
// sdim/attend.wgsl wrote, in place, from the gradient of the candidate's output; see sdim/gradient_of_row.wgsl.

struct SdimTargetGradientsParams {
    groups: u32,
    grid_width: u32,
    // Candidates times groups.
    rows: u32,
    // Threads per row.
    lanes: u32,
    width: u32,
    hash_groups: u32,
    normalise: u32,
    grad_out_base: u32,
}
@group(0) @binding(0) var<uniform> params: SdimTargetGradientsParams;

fn bucket_at(row: u32, column: u32) -> f32 {
    return sums[row * params.width + column];
}

fn gradient_at(row: u32, column: u32) -> f32 {
    return grad_out_at(params.grad_out_base + row / params.hash_groups * params.width + column);
}

fn write_at(row: u32, column: u32, value: f32) {
    sums[row * params.width + column] = value;
}

fn is_read(row: u32, own: u32) -> bool {
    return true;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = group_index(id);
    if group >= params.groups {
        return;
    }
    let row = group * (64u / params.lanes) + thread / params.lanes;
    write_gradient(row, row < params.rows, thread);
}
