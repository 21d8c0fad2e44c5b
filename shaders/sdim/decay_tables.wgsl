// Multiplies bucket tables by one factor, or each by its own, in place. One thread per element.

struct SdimDecayTablesParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    // Elements that share a factor: of one user's table, or of all.
    size: u32,
    table_base: u32,
    factors_base: u32,
}
@group(0) @binding(0) var<uniform> params: SdimDecayTablesParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index < params.threads {
        table[params.table_base + index] *= factors[params.factors_base + index / params.size];
    }
}
