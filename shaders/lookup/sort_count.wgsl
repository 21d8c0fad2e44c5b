// Counts the digits of each block of 1024 keys: counts[digit, block].
//
// One workgroup per block. Each thread counts its own keys in counters of its own, so that a digit that all keys share costs as much
// as any other; 16 digits of 4 bits.

struct SortCountParams {
    groups: u32,
    grid_width: u32,
    length: u32,
    shift: u32,
    blocks: u32,
}
@group(0) @binding(0) var<uniform> params: SortCountParams;

var<workgroup> own_counts: array<u32, 1024>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let block = group_index(id);
    for (var digit = 0u; digit < 16u; digit++) {
        own_counts[digit * 64u + thread] = 0u;
    }
    for (var step = 0u; step < 16u; step++) {
        let place = block * 1024u + step * 64u + thread;
        if place < params.length {
            let digit = (keys[place] >> params.shift) & 15u;
            own_counts[digit * 64u + thread]++;
        }
    }
    workgroupBarrier();
    // A quarter of a digit's counters, and then the quarters.
    var sum = 0u;
    for (var i = 0u; i < 16u; i++) {
        sum += own_counts[thread * 16u + i];
    }
    workgroupBarrier();
    own_counts[thread] = sum;
    workgroupBarrier();
    if thread < 16u && block < params.blocks {
        let quarters = thread * 4u;
        counts[thread * params.blocks + block] = own_counts[quarters] + own_counts[quarters + 1u]
            + own_counts[quarters + 2u] + own_counts[quarters + 3u];
    }
}
