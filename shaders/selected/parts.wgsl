// The part of a candidate's slots that a workgroup of 64 threads computes, for one head. A part has at most SLOTS slots.
//
// The kernels' parameters have `heads`, `kv_heads`, `top_k`, and `parts` of `part` slots each.

// The rows of the part's slots, among those that are bound; NONE where a slot keeps nothing.
var<workgroup> slot_rows: array<u32, SLOTS>;

struct Part {
    // Among those of the dispatch.
    candidate: u32,
    head: u32,
    number: u32,
    // The first slot in `kept`, and their number.
    first: u32,
    count: u32,
}

fn part_of(group: u32) -> Part {
    let number = group / params.heads % params.parts;
    let candidate = group / (params.heads * params.parts);
    let first = number * params.part;
    let count = min(params.part, params.top_k - first);
    return Part(candidate, group % params.heads, number, candidate * params.top_k + first, count);
}

// The row of a query, of its gradient or of its output.
fn query_of(part: Part) -> u32 {
    return part.candidate * params.heads + part.head;
}

// The place of a behaviour's key or value for a head, in rows.
fn place_of(row: u32, head: u32) -> u32 {
    return row * params.kv_heads + head / (params.heads / params.kv_heads);
}

fn load_rows(part: Part, thread: u32) {
    for (var slot = thread; slot < part.count; slot += 64u) {
        slot_rows[slot] = kept[part.first + slot].y;
    }
    workgroupBarrier();
}
