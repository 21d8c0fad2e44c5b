// Merges the lists that search.wgsl kept of the parts of a history. One workgroup of 64 threads takes one candidate.

struct Params {
    groups: u32,
    grid_width: u32,
    positions_base: u32,
    scores_base: u32,
    counts_base: u32,
    // Lists a part has.
    part_lists: u32,
}
@group(0) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = group_index(id);
    if group >= params.groups {
        return;
    }
    let row = group % params.part_lists;
    let tile = group / params.part_lists;
    let rows = merges[2u * tile];
    let slots = merges[2u * tile + 1u];
    if row >= rows.z {
        return;
    }
    clear_lists(thread);
    for (var slot = 0u; slot < slots.y; slot++) {
        for (var first = 0u; first < TOP_K; first += 64u) {
            let place = first + thread;
            if place < TOP_K {
                let at = (((slots.x + slot) * params.part_lists + row) * TOP_K + place) * 2u;
                if lists[at + 1u] != NONE {
                    offer(0u, lists[at], lists[at + 1u]);
                }
            }
            compact(thread, false);
        }
    }
    compact(thread, true);
    let count = atomicLoad(&list_counts[0]);
    let m = rows.x + rows.y + row;
    for (var place = thread; place < TOP_K; place += 64u) {
        let filled = place < count;
        positions[params.positions_base + m * TOP_K + place] = select(NONE, list_positions[place], filled);
        scores[params.scores_base + m * TOP_K + place] =
            select(NEGATIVE_INFINITY, score_bits(list_keys[place]), filled);
    }
    if thread == 0u {
        counts[params.counts_base + m] = count;
    }
}
