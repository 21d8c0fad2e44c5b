// Counts the ids of each bag that are inside their table, for means that skip the others. An integer sum: the same in any order.
//
// One thread per row of ids.

struct CountIdsParams {
    groups: u32,
    grid_width: u32,
    rows: u32,
    bags: u32,
    ids_base: u32,
    features: u32,
    feature: u32,
    table_rows: u32,
}
@group(0) @binding(0) var<uniform> params: CountIdsParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group_index(id) * 64u + thread;
    if row >= params.rows {
        return;
    }
    if ids[params.ids_base + row * params.features + params.feature] < params.table_rows {
        atomicAdd(&counts[bag_of(row)], 1u);
    }
}
