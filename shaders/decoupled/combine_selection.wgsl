// Combines the lists that decoupled/search.wgsl kept for the pieces of a history. One workgroup of 64 threads
// processes one candidate; the history of a tile with one piece has one list, which is copied. Rows become positions
// in the user's history.
//
// Where a history has more lists than a thread's loops may walk, rounds combine some at a time: each range of slots
// becomes one slot of `combined`, until the ranges of the last round are those of the tiles.

struct CombineSelectionParams {
    groups: u32,
    grid_width: u32,
    positions_base: u32,
    scores_base: u32,
    counts_base: u32,
    // Lists per piece.
    piece_lists: u32,
    top_k: u32,
    first_whole: u32,
    // Whether `ranges` has the slots: [tile, first slot, end, 0].
    has_ranges: u32,
    // Whether this round writes lists.
    is_round: u32,
}
@group(0) @binding(0) var<uniform> params: CombineSelectionParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = group_index(id);
    if group >= params.groups {
        return;
    }
    let list = group % params.piece_lists;
    let index = group / params.piece_lists;
    var tile = index;
    if params.has_ranges == 1u {
        tile = ranges[index].x;
    }
    let rows = tiles[2u * tile];
    let slots = tiles[2u * tile + 1u];
    if list >= rows.z {
        return;
    }
    let top_k = params.top_k;
    var first_slot = select(slots.x, params.first_whole + tile, slots.y == 0u);
    var end_slot = first_slot + max(slots.y, 1u);
    if params.has_ranges == 1u {
        first_slot = ranges[index].y;
        end_slot = ranges[index].z;
    }
    clear_lists(thread);
    for (var slot = first_slot; slot < end_slot; slot++) {
        let first = (slot * params.piece_lists + list) * top_k;
        for (var begin = 0u; begin < top_k; begin += 64u) {
            let place = begin + thread;
            var wanted = false;
            var entry = vec2<u32>();
            if place < top_k {
                entry = lists[first + place];
                wanted = entry.y != NONE;
            }
            loop {
                if wanted {
                    wanted = !offer(0u, entry.x, entry.y);
                }
                if !compact(thread, top_k, false) {
                    break;
                }
            }
        }
    }
    compact(thread, top_k, true);
    let count = atomicLoad(&list_counts[0]);
    if params.is_round == 1u {
        let first = (index * params.piece_lists + list) * top_k;
        for (var place = thread; place < top_k; place += 64u) {
            combined[first + place] = select(
                vec2<u32>(0u, NONE), vec2<u32>(list_keys[place], list_rows[place]), place < count);
        }
        return;
    }
    let m = rows.x + rows.y + list;
    for (var place = thread; place < top_k; place += 64u) {
        let filled = place < count;
        positions[params.positions_base + m * top_k + place] = select(NONE, list_rows[place] - slots.z, filled);
        scores[params.scores_base + m * top_k + place] =
            select(NEGATIVE_INFINITY, score_bits(list_keys[place]), filled);
    }
    if thread == 0u {
        counts[params.counts_base + m] = count;
    }
}
