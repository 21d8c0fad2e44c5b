// Combines the lists that a search kept for the pieces of a history (selection/pieces.wgsl), and writes the selection.
// Rows become positions in the user's history.
//
// One thread per entry of a list: the entry's place among those of all lists is its place in its own list, plus how many
// entries of each other list are better, which a binary search finds, because lists are sorted best first. No two
// entries are equal, so each place is written once. Threads of the first list also write the empty places. A workgroup
// of 64 threads processes 64 places of one list of one candidate; nothing is shared.
//
// Up to `members` lists are combined at a time. Where a history has more, rounds come first: each range of slots becomes
// one slot of `combined`, until the ranges of the last round are those of the tiles.

struct CombineSelectionParams {
    groups: u32,
    grid_width: u32,
    positions_base: u32,
    scores_base: u32,
    counts_base: u32,
    // Lists per piece.
    piece_lists: u32,
    // Of a candidate: rows of tiles, and how many of them are written. 1 but for interest channels.
    rows: u32,
    channels: u32,
    top_k: u32,
    first_whole: u32,
    // Whether `ranges` has the slots: [tile, first slot, end, 0].
    has_ranges: u32,
    // Whether this round writes lists.
    is_round: u32,
    // The most lists of a range.
    members: u32,
    // Whether an entry holds NONE - 1 - l for the row l.
    reversed: u32,
}
@group(0) @binding(0) var<uniform> params: CombineSelectionParams;

fn entry_of(slot: u32, list: u32, place: u32) -> vec2<u32> {
    return lists[(slot * params.piece_lists + list) * params.top_k + place];
}

// How many entries of a list are better than one that is in another.
fn better_entries(slot: u32, list: u32, than: vec2<u32>) -> u32 {
    var low = 0u;
    var high = params.top_k;
    while low < high {
        let middle = (low + high) / 2u;
        let entry = entry_of(slot, list, middle);
        if is_better(entry.x, entry.y, than.x, than.y) { low = middle + 1u; } else { high = middle; }
    }
    return low;
}

struct Result {
    // The range, and the list within a piece.
    index: u32,
    list: u32,
    // The candidate, or its channel, and the first row of its user's history.
    m: u32,
    history: u32,
}

fn write_entry(result: Result, place: u32, entry: vec2<u32>) {
    if params.is_round == 1u {
        combined[(result.index * params.piece_lists + result.list) * params.top_k + place] = entry;
        return;
    }
    let at = result.m * params.top_k + place;
    if entry.y == NONE {
        positions[params.positions_base + at] = NONE;
        scores[params.scores_base + at] = NEGATIVE_INFINITY;
        return;
    }
    let row = select(entry.y, NONE - 1u - entry.y, params.reversed == 1u);
    positions[params.positions_base + at] = row - result.history;
    scores[params.scores_base + at] = score_bits(entry.x);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = group_index(id);
    if group >= params.groups {
        return;
    }
    let chunks = (params.top_k + 63u) / 64u;
    let place = group % chunks * 64u + thread;
    let member = group / chunks % params.members;
    let list = group / (chunks * params.members) % params.piece_lists;
    let index = group / (chunks * params.members * params.piece_lists);
    var tile = index;
    if params.has_ranges == 1u {
        tile = ranges[index].x;
    }
    let rows = tiles[2u * tile];
    let slots = tiles[2u * tile + 1u];
    var first_slot = select(slots.x, params.first_whole + tile, slots.y == 0u);
    var end_slot = first_slot + max(slots.y, 1u);
    if params.has_ranges == 1u {
        first_slot = ranges[index].y;
        end_slot = ranges[index].z;
    }
    let own_slot = first_slot + member;
    let row = rows.y + list;
    let channel = row % params.rows;
    if list >= rows.z || channel >= params.channels || place >= params.top_k || own_slot >= end_slot {
        return;
    }
    let m = (rows.x + row / params.rows) * params.channels + channel;
    let result = Result(index, list, m, slots.z);
    if member == 0u {
        var total = 0u;
        for (var slot = first_slot; slot < end_slot; slot++) {
            // Every entry is better than an empty place.
            total += better_entries(slot, list, vec2<u32>(0u, NONE));
        }
        if place >= total {
            write_entry(result, place, vec2<u32>(0u, NONE));
        }
        if place == 0u && params.is_round == 0u {
            counts[params.counts_base + result.m] = min(total, params.top_k);
        }
    }
    let entry = entry_of(own_slot, list, place);
    if entry.y == NONE {
        return;
    }
    var rank = place;
    for (var slot = first_slot; slot < end_slot && rank < params.top_k; slot++) {
        if slot != own_slot {
            rank += better_entries(slot, list, entry);
        }
    }
    if rank < params.top_k {
        write_entry(result, rank, entry);
    }
}
