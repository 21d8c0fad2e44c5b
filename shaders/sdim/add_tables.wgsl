// Adds one bucket table to another, in place. One thread per element.

struct SdimAddTablesParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    table_base: u32,
    other_base: u32,
}
@group(0) @binding(0) var<uniform> params: SdimAddTablesParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index < params.threads {
        table[params.table_base + index] += other[params.other_base + index];
    }
}
