// Turns the sums of the gradients of the candidates that read each bucket (sdim/encode.wgsl) into the gradients of the bucket
// rows, in place; see sdim/gradient_of_row.wgsl.

struct SdimBucketGradientsParams {
    groups: u32,
    grid_width: u32,
    // Bucket rows of all users.
    rows: u32,
    // Threads per row.
    lanes: u32,
    width: u32,
    hash_groups: u32,
    buckets: u32,
    normalise: u32,
    table_base: u32,
    grads_base: u32,
    codes_base: u32,
}
@group(0) @binding(0) var<uniform> params: SdimBucketGradientsParams;

fn bucket_at(row: u32, column: u32) -> f32 {
    return table[params.table_base + row * params.width + column];
}

fn gradient_at(row: u32, column: u32) -> f32 {
    return grads[params.grads_base + row * params.width + column];
}

fn write_at(row: u32, column: u32, value: f32) {
    grads[params.grads_base + row * params.width + column] = value;
}

// Whether one of every `lanes` candidates of the user, from `own` on, reads the row.
fn is_read(row: u32, own: u32) -> bool {
    let group = row / params.buckets;
    let user = group / params.hash_groups;
    var found = false;
    for (var m = offsets[user] + own; m < offsets[user + 1u]; m += params.lanes) {
        let code = codes_at(params.codes_base + m * params.hash_groups + group % params.hash_groups);
        found = found || code == row % params.buckets;
    }
    return found;
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
