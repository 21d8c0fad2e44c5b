// Scores a user's behaviours for some candidates and keeps the best K of each.
//
//     score[m,l] = ⟨q[m], k[l]⟩          q scaled and packed by pack_queries.wgsl, k gathered table rows
//
// One workgroup of 64 threads takes one piece: up to LISTS candidates of one user against a part of the history, 64
// behaviours at a time, one a thread. Scores stay in registers: those that beat the list's threshold go into the list
// (select.wgsl). A part of a history leaves its lists in `lists` for merge_selection.wgsl.
// Variants: TOP_K, and LISTS as many candidates as have room beside each other.

struct Params {
    groups: u32,
    grid_width: u32,
    first_piece: u32,
    first_history: u32,
    width: u32,
    // Rows of a packed tile: LISTS, or 4 where that is less.
    tile: u32,
    keys_base: u32,
    positions_base: u32,
    scores_base: u32,
    counts_base: u32,
}
@group(0) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = group_index(id);
    if group >= params.groups {
        return;
    }
    let piece = params.first_piece + group;
    let rows = pieces[2u * piece];
    let part = pieces[2u * piece + 1u];
    let history = tiles[2u * rows.w + 1u].z;
    let width4 = (params.width + 3u) / 4u;
    clear_lists(thread);
    for (var start = part.x; start < part.y; start += 64u) {
        let l = min(start + thread, part.y - 1u);
        let live = start + thread < part.y;
        let key = params.keys_base + (l - params.first_history) * params.width;
        for (var first = 0u; first < rows.z; first += 4u) {
            var matrix = rows.w * width4 * (params.tile / 4u) + first / 4u;
            var score = vec4<f32>();
            for (var k = 0u; k < params.width; k += 4u) {
                score += keys_four(key + k, params.width - k) * queries[matrix];
                matrix += params.tile / 4u;
            }
            if live {
                for (var e = 0u; e < min(4u, rows.z - first); e++) {
                    let list = first + e;
                    offer(list, key_of(score[e]), l - history);
                }
            }
        }
        compact(thread, false);
    }
    compact(thread, true);
    for (var i = thread; i < rows.z * TOP_K; i += 64u) {
        let list = i / TOP_K;
        let place = i % TOP_K;
        let filled = place < atomicLoad(&list_counts[list]);
        let entry = list * CAPACITY + place;
        let position = select(NONE, list_positions[entry], filled);
        if part.z != NONE {
            let at = ((part.z * LISTS + list) * TOP_K + place) * 2u;
            lists[at] = select(0u, list_keys[entry], filled);
            lists[at + 1u] = position;
        } else {
            let at = (rows.x + rows.y + list) * TOP_K + place;
            positions[params.positions_base + at] = position;
            scores[params.scores_base + at] = select(NEGATIVE_INFINITY, score_bits(list_keys[entry]), filled);
        }
    }
    if part.z == NONE && thread < rows.z {
        counts[params.counts_base + rows.x + rows.y + thread] = atomicLoad(&list_counts[thread]);
    }
}
