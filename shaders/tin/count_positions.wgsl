// Positions of behaviours, counted from the newest of their user: 1 for the newest, 2 for the one before, and so on, at most the last row of
// the table.
//
// One thread per behaviour. Its user is found by lookup/bag_of.wgsl.

struct TinCountPositionsParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    // The first behaviour of the output.
    first_row: u32,
    // Users.
    bags: u32,
    last_position: u32,
}
@group(0) @binding(0) var<uniform> params: TinCountPositionsParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let row = params.first_row + index;
    out[index] = min(offsets[bag_of(row) + 1u] - row, params.last_position);
}
