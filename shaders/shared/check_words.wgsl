// Finds the first of a list of unsigned integers that is not below its limit: ids outside their table, or signatures
// with too many bits.
//
// One thread per word. Word i belongs to column i % columns and is compared with the limit of that column. An atomic
// minimum keeps the lowest position, whatever the order of the threads.

struct CheckWordsParams {
    groups: u32,
    grid_width: u32,
    base: u32,
    count: u32,
    columns: u32,
}
@group(0) @binding(0) var<uniform> params: CheckWordsParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index < params.count && words_at(params.base + index) >= limits[index % params.columns] {
        atomicMin(&report[0], index);
    }
}
