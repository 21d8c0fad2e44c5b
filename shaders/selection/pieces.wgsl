// The threads and the main function of every search: scores the behaviours of a piece and keeps the best K for each
// candidate.
//
// One workgroup of 64 threads processes one piece: up to LISTS candidates of one user and a span of the history, 256
// behaviours at a time. Each thread scores 4 behaviours against all candidates, in registers (`keys_of_rows` of the
// search): one load of a vec4 of a behaviour serves 4 · GROUP4 candidates, one load of a query 4 behaviours. Scores stay
// in registers, as keys: one bit each says which of them reach the threshold of their list, and only these are offered
// to the list (selection/select.wgsl). Every piece writes its lists to `lists`, best first, for selection/combine.wgsl.
// Variants: LISTS candidates and the CAPACITY of a list depend on K; GROUP4, vec4s of candidates per thread; REVERSED,
// whether the newest of equal behaviours is the best: the history is read from its end, and an entry holds, instead of
// the row l, NONE - 1 - l. Workgroup memory: that of the lists.

// The sort keys of scores, and the bits (see `reached`) of those that may be kept.
struct Keys {
    allowed: u32,
    a0: vec4<u32>, a1: vec4<u32>, a2: vec4<u32>, a3: vec4<u32>,
    b0: vec4<u32>, b1: vec4<u32>, b2: vec4<u32>, b3: vec4<u32>,
}

fn keys_of(s: Scores) -> Keys {
    var keys = Keys();
    keys.allowed = 0xffffffffu;
    keys.a0 = key_of(s.a0); keys.a1 = key_of(s.a1); keys.a2 = key_of(s.a2); keys.a3 = key_of(s.a3);
    if GROUP4 > 1u {
        keys.b0 = key_of(s.b0); keys.b1 = key_of(s.b1); keys.b2 = key_of(s.b2); keys.b3 = key_of(s.b3);
    }
    return keys;
}

// The bits of a condition of each of 4 behaviours.
fn bits_of_behaviours(kept: vec4<bool>) -> u32 {
    let bits = select(vec4<u32>(), vec4<u32>(0x000f000fu, 0x00f000f0u, 0x0f000f00u, 0xf000f000u), kept);
    return bits.x | bits.y | bits.z | bits.w;
}

fn threshold_of(list: u32) -> vec4<u32> {
    // Lists that do not exist repeat the last threshold; their bits are masked by the caller.
    return vec4<u32>(
        list_threshold[list].x, list_threshold[min(list + 1u, LISTS - 1u)].x,
        list_threshold[min(list + 2u, LISTS - 1u)].x, list_threshold[min(list + 3u, LISTS - 1u)].x);
}

fn bits_of(reached: vec4<bool>) -> u32 {
    let bits = select(vec4<u32>(), vec4<u32>(1u, 2u, 4u, 8u), reached);
    return bits.x | bits.y | bits.z | bits.w;
}

// One bit per key that reaches its list's threshold: candidates 0..3 of each of 4 behaviours, then candidates 4..7.
fn reached(keys: Keys) -> u32 {
    let a = threshold_of(0u);
    var bits = bits_of(keys.a0 >= a) | (bits_of(keys.a1 >= a) << 4u)
        | (bits_of(keys.a2 >= a) << 8u) | (bits_of(keys.a3 >= a) << 12u);
    if GROUP4 > 1u {
        let b = threshold_of(4u);
        bits |= (bits_of(keys.b0 >= b) << 16u) | (bits_of(keys.b1 >= b) << 20u)
            | (bits_of(keys.b2 >= b) << 24u) | (bits_of(keys.b3 >= b) << 28u);
    }
    return bits;
}

// The key that belongs to a bit.
fn key_at(keys: Keys, bit: u32) -> u32 {
    let behaviour = bit / 4u % 4u;
    var keys4 = select(keys.a0, keys.a1, behaviour == 1u);
    keys4 = select(keys4, keys.a2, behaviour == 2u);
    keys4 = select(keys4, keys.a3, behaviour == 3u);
    if GROUP4 > 1u {
        var others = select(keys.b0, keys.b1, behaviour == 1u);
        others = select(others, keys.b2, behaviour == 2u);
        others = select(others, keys.b3, behaviour == 3u);
        keys4 = select(keys4, others, bit >= 16u);
    }
    let keys2 = select(keys4.xy, keys4.zw, (bit & 2u) != 0u);
    return select(keys2.x, keys2.y, (bit & 1u) != 0u);
}

// Offers the keys whose bits are set. Returns the bits of those that found no place.
fn offer_all(keys: Keys, l: u32, bits: u32) -> u32 {
    var left = bits;
    var again = 0u;
    while left != 0u {
        let bit = firstTrailingBit(left);
        left &= left - 1u;
        let list = bit % 4u + bit / 16u * 4u;
        if !offer(list, key_at(keys, bit), l + bit / 4u % 4u * 64u) {
            again |= 1u << bit;
        }
    }
    return again;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = group_index(id);
    if group >= params.groups {
        return;
    }
    let piece = params.first_piece + group;
    let rows = pieces[2u * piece];
    let span = pieces[2u * piece + 1u];
    // The bits of the candidates that this tile has.
    let candidates = 0x1111u * ((1u << min(rows.z, 4u)) - 1u)
        + 0x11110000u * ((1u << (max(rows.z, 4u) - 4u)) - 1u);
    let place = select(span.z, params.first_whole + rows.w, span.z == NONE);
    let first = place * LISTS * params.top_k;
    start_lists(thread, first);
    clear_lists(thread);
    for (var start = span.x; start < span.y; start += 256u) {
        let l = start + thread + vec4<u32>(0u, 64u, 128u, 192u);
        // Behaviours past the end repeat the last one and are not offered.
        var row = min(l, vec4<u32>(span.y - 1u));
        var entry = l.x;
        if REVERSED == 1u {
            row = span.x + (span.y - 1u) - row;
            // NONE - 1 - row of behaviours before the end.
            entry = l.x + (NONE - span.x - span.y);
        }
        let keys = keys_of_rows(row, rows.w);
        var wanted = bits_of_behaviours(l < vec4<u32>(span.y)) & candidates & keys.allowed;
        loop {
            wanted = offer_all(keys, entry, wanted & reached(keys));
            if !compact(thread, params.top_k, false) {
                break;
            }
        }
    }
    compact(thread, params.top_k, true);
    write_lists(thread, params.top_k, first, rows.z);
}
