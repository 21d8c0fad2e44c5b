// Counts the heads of each block of 1024 keys in order: keys of the table that differ from the one before.
//
// One workgroup per block.

struct SortHeadsParams {
    groups: u32,
    grid_width: u32,
    length: u32,
    rows: u32,
}
@group(0) @binding(0) var<uniform> params: SortHeadsParams;

var<workgroup> sums: array<u32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let block = group_index(id);
    var own = 0u;
    for (var step = 0u; step < 16u; step++) {
        let place = block * 1024u + step * 64u + thread;
        if place < params.length {
            let key = keys[place];
            let is_new = place == 0u || keys[max(place, 1u) - 1u] != key;
            own += select(0u, 1u, key < params.rows && is_new);
        }
    }
    sums[thread] = own;
    workgroupBarrier();
    for (var distance = 32u; distance > 0u; distance /= 2u) {
        if thread < distance {
            sums[thread] += sums[thread + distance];
        }
        workgroupBarrier();
    }
    if thread == 0u && block < params.groups {
        counts[block] = sums[0];
    }
}
