// Writes zeros to the tables of users, in any slots. One thread per number.

struct SdimClearTablesParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    // Elements of one user's table.
    size: u32,
    table_base: u32,
}
@group(0) @binding(0) var<uniform> params: SdimClearTablesParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let slot = tiles[2u * (index / params.size)].x;
    table[params.table_base + slot * params.size + index % params.size] = 0.0;
}
