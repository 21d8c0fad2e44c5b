// Writes what channels keep as the caller asked for it: positions and scores, best first, then empty slots; and counts.
//
// One workgroup of 64 threads per list. A thread has consecutive slots of the list, whose behaviours of other channels are left out:
// its first place is the sum of what the threads before it keep.

struct ChannelWriteParams {
    groups: u32,
    grid_width: u32,
    // Slots of a list as it is, and as it is written.
    top_k: u32,
    out_top_k: u32,
    // Of the dispatch, among those of the whole batch.
    first_list: u32,
    positions_base: u32,
    scores_base: u32,
    counts_base: u32,
}
@group(0) @binding(0) var<uniform> params: ChannelWriteParams;

var<workgroup> kept_counts: array<u32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = group_index(id);
    if group >= params.groups {
        return;
    }
    let list = params.first_list + group;
    let share = (params.top_k + 63u) / 64u;
    let begin = min(thread * share, params.top_k);
    let end = min(begin + share, params.top_k);
    var own = 0u;
    for (var k = begin; k < end; k++) {
        own += select(0u, 1u, kept[group * params.top_k + k].y != NONE);
    }
    kept_counts[thread] = own;
    workgroupBarrier();
    var place = 0u;
    var total = 0u;
    for (var other = 0u; other < 64u; other++) {
        place += select(0u, kept_counts[other], other < thread);
        total += kept_counts[other];
    }
    let to = list * params.out_top_k;
    for (var k = begin; k < end; k++) {
        if kept[group * params.top_k + k].y != NONE {
            positions[params.positions_base + to + place] = found[list * params.top_k + k];
            scores[params.scores_base + to + place] = kept[group * params.top_k + k].x;
            place++;
        }
    }
    for (var k = total + thread; k < params.out_top_k; k += 64u) {
        positions[params.positions_base + to + k] = NONE;
        scores[params.scores_base + to + k] = NEGATIVE_INFINITY;
    }
    if thread == 0u {
        counts[params.counts_base + list] = total;
    }
}
