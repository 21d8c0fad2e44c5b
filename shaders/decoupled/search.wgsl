// Scores a user's behaviours for several candidates and keeps the best K of each.
//
//     score[m,l] = factor · Σ_f ⟨q[m,f], A_f[ids[l,f]]⟩          q scaled and packed by decoupled/search_queries.wgsl
//
// Table rows are read in place, by id (`key_vec4` of the file that is included before this one). The ids are checked
// on the way: one outside its table counts as a row of zeros, and the lowest position of such an id is reported.
//
// One workgroup of 64 threads processes one piece: up to LISTS candidates of one user and a span of the history, 256
// behaviours at a time. Each thread scores 4 behaviours against all candidates, in registers: one load of a vec4 of a
// behaviour serves 4 · GROUP4 candidates, one load of a query 4 behaviours. Scores stay in registers: one bit each
// says which of them reach the threshold of their list, and only these are offered to the list
// (decoupled/select.wgsl). Every piece writes its lists to `lists`, best first, for decoupled/combine_selection.wgsl.
// Variants: LISTS candidates and the CAPACITY of a list depend on K; GROUP4, vec4s of candidates per thread; TABLES
// that are read, where 0 stands for rows that were gathered into table 0 beforehand. Workgroup memory: that of the
// lists.

struct SearchParams {
    groups: u32,
    grid_width: u32,
    first_piece: u32,
    // The history row of the first gathered row.
    first_history: u32,
    ids_base: u32,
    features: u32,
    top_k: u32,
    // The first slot of the tiles with one piece.
    first_whole: u32,
    // vec4s of a packed query.
    width4: u32,
    check_ids: u32,
    // For an 8-bit table.
    scale_base: u32,
    offset_base: u32,
    factor: f32,
    unused1: u32,
    unused2: u32,
    unused3: u32,
    // Of each table: width, rows, first element, first vec4 in the packed query.
    feature0: vec4<u32>,
    feature1: vec4<u32>,
    feature2: vec4<u32>,
}
@group(0) @binding(0) var<uniform> params: SearchParams;

// Scores of 4 behaviours (0..3) for candidates 0..3 (a) and 4..7 (b).
struct Scores {
    a0: vec4<f32>, a1: vec4<f32>, a2: vec4<f32>, a3: vec4<f32>,
    b0: vec4<f32>, b1: vec4<f32>, b2: vec4<f32>, b3: vec4<f32>,
}

fn id_of(l: u32, feature: u32) -> u32 {
    if TABLES == 0u {
        return l - params.first_history;
    }
    let place = l * params.features + feature;
    let id = ids[params.ids_base + place];
    if params.check_ids == 1u && id >= rows_of(feature) {
        atomicMin(&report[0], place);
    }
    return id;
}

fn rows_of(feature: u32) -> u32 {
    return select(select(params.feature2.y, params.feature1.y, feature == 1u), params.feature0.y, feature == 0u);
}

fn add_feature(before: Scores, feature: u32, shape: vec4<u32>, l: vec4<u32>, tile: u32) -> Scores {
    let wanted = vec4<u32>(id_of(l.x, feature), id_of(l.y, feature), id_of(l.z, feature), id_of(l.w, feature));
    let known = wanted < vec4<u32>(shape.y);
    // For a bad id row 0 is read, and then counts as zeros.
    let id = select(vec4<u32>(), wanted, known);
    let row = shape.z + id * shape.x;
    var matrix = (tile * params.width4 + shape.w) * GROUP4;
    var s = before;
    for (var k = 0u; k < shape.x; k += 4u) {
        let left = shape.x - k;
        let key0 = select(vec4<f32>(), key_vec4(feature, row.x + k, left, id.x), known.x);
        let key1 = select(vec4<f32>(), key_vec4(feature, row.y + k, left, id.y), known.y);
        let key2 = select(vec4<f32>(), key_vec4(feature, row.z + k, left, id.z), known.z);
        let key3 = select(vec4<f32>(), key_vec4(feature, row.w + k, left, id.w), known.w);
        let a = queries[matrix];
        s.a0 += key0 * a; s.a1 += key1 * a; s.a2 += key2 * a; s.a3 += key3 * a;
        if GROUP4 > 1u {
            let b = queries[matrix + 1u];
            s.b0 += key0 * b; s.b1 += key1 * b; s.b2 += key2 * b; s.b3 += key3 * b;
        }
        matrix += GROUP4;
    }
    return s;
}

// The sort keys of Scores.
struct Keys {
    a0: vec4<u32>, a1: vec4<u32>, a2: vec4<u32>, a3: vec4<u32>,
    b0: vec4<u32>, b1: vec4<u32>, b2: vec4<u32>, b3: vec4<u32>,
}

fn keys_of(s: Scores) -> Keys {
    var keys = Keys();
    let f = params.factor;
    keys.a0 = key_of(f * s.a0); keys.a1 = key_of(f * s.a1); keys.a2 = key_of(f * s.a2); keys.a3 = key_of(f * s.a3);
    if GROUP4 > 1u {
        keys.b0 = key_of(f * s.b0); keys.b1 = key_of(f * s.b1); keys.b2 = key_of(f * s.b2); keys.b3 = key_of(f * s.b3);
    }
    return keys;
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
    clear_lists(thread);
    for (var start = span.x; start < span.y; start += 256u) {
        let l = start + thread + vec4<u32>(0u, 64u, 128u, 192u);
        // Behaviours past the end repeat the last one and are not offered.
        let row = min(l, vec4<u32>(span.y - 1u));
        var s = add_feature(Scores(), 0u, params.feature0, row, rows.w);
        if TABLES > 1u { s = add_feature(s, 1u, params.feature1, row, rows.w); }
        if TABLES > 2u { s = add_feature(s, 2u, params.feature2, row, rows.w); }
        let keys = keys_of(s);
        let live = select(
            vec4<u32>(), vec4<u32>(0x000f000fu, 0x00f000f0u, 0x0f000f00u, 0xf000f000u), l < vec4<u32>(span.y));
        var wanted = (live.x | live.y | live.z | live.w) & candidates;
        loop {
            wanted = offer_all(keys, l.x, wanted & reached(keys));
            if !compact(thread, params.top_k, false) {
                break;
            }
        }
    }
    compact(thread, params.top_k, true);
    let place = select(span.z, params.first_whole + rows.w, span.z == NONE);
    for (var list = 0u; list < rows.z; list++) {
        let count = atomicLoad(&list_counts[list]);
        let first = (place * LISTS + list) * params.top_k;
        for (var entry = thread; entry < params.top_k; entry += 64u) {
            let at = list * CAPACITY + min(entry, CAPACITY - 1u);
            lists[first + entry] = select(
                vec2<u32>(0u, NONE), vec2<u32>(list_keys[at], list_rows[at]), entry < count);
        }
    }
}
