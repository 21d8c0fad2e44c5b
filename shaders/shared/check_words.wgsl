// Finds the first of some unsigned integers that is not below its limit: ids outside their table, signatures of too
// many bits.
//
// One thread a word; word i is of column i % columns, with the limit of that column. An integer minimum keeps the
// lowest position whatever the order of the threads.

struct Params {
    groups: u32,
    grid_width: u32,
    base: u32,
    count: u32,
    columns: u32,
}
@group(0) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index < params.count && words_at(params.base + index) >= limits[index % params.columns] {
        atomicMin(&report[0], index);
    }
}
