// Scores behaviours along the axes of one candidate, for a search that keeps the best K of each channel:
//
//     A[l,i] = ⟨e_l, O_i⟩        channel(l) = the first i with the largest A[l,i]
//
// A tile is LISTS channels of one candidate. Every behaviour is scored along all axes of the candidate, tile_rows (4 · GROUP4) at a
// time: that is what its channel depends on. Where LISTS is less than the candidate's channels, other workgroups compute the same scores
// for other channels, with the same bits. Scores that are not finite sort last and go to the first channel.
//
// Pieces, threads and lists: selection/pieces.wgsl. Scores: search/row_scores.wgsl. Variants: those of the lists; ROUTED, whether a
// channel is offered its own behaviours alone, or all of them.

struct ChannelSearchParams {
    groups: u32,
    grid_width: u32,
    first_piece: u32,
    // The history row of the first row of the bindings.
    first_history: u32,
    top_k: u32,
    // The first slot of the tiles with one piece.
    first_whole: u32,
    width: u32,
    rows_base: u32,
    // Of a candidate: packed tiles of axes, and tiles of lists.
    blocks: u32,
    tiles: u32,
}
@group(0) @binding(0) var<uniform> params: ChannelSearchParams;

const TILE_ROWS: u32 = 4u * GROUP4;

// Nothing is added to a product.
fn added(score: vec4<f32>, l: u32) -> vec4<f32> {
    return score;
}

// The best channel so far of each of four behaviours, and the key of its score.
struct Route {
    keys: vec4<u32>,
    channels: vec4<u32>,
}

fn finite_key_of(score: vec4<f32>) -> vec4<u32> {
    return select(key_of(score), vec4<u32>(), is_not_finite(score));
}

fn finite_keys_of(s: Scores) -> Keys {
    var keys = Keys();
    keys.a0 = finite_key_of(s.a0); keys.a1 = finite_key_of(s.a1);
    keys.a2 = finite_key_of(s.a2); keys.a3 = finite_key_of(s.a3);
    if GROUP4 > 1u {
        keys.b0 = finite_key_of(s.b0); keys.b1 = finite_key_of(s.b1);
        keys.b2 = finite_key_of(s.b2); keys.b3 = finite_key_of(s.b3);
    }
    return keys;
}

// Compares the best channels with one more, if there is such a channel.
fn compared(before: Route, keys: vec4<u32>, channel: u32, exists: f32) -> Route {
    let is_first = before.channels == vec4<u32>(NONE);
    let wins = (is_first | (keys > before.keys)) & vec4<bool>(exists > 0.0);
    return Route(select(before.keys, keys, wins), select(before.channels, vec4<u32>(channel), wins));
}

// Compares them with four more, of which keys0 .. keys3 are the keys of four behaviours.
fn compared4(
    before: Route, keys0: vec4<u32>, keys1: vec4<u32>, keys2: vec4<u32>, keys3: vec4<u32>, first: u32, exist: vec4<f32>
) -> Route {
    var route = compared(before, vec4<u32>(keys0.x, keys1.x, keys2.x, keys3.x), first, exist.x);
    route = compared(route, vec4<u32>(keys0.y, keys1.y, keys2.y, keys3.y), first + 1u, exist.y);
    route = compared(route, vec4<u32>(keys0.z, keys1.z, keys2.z, keys3.z), first + 2u, exist.z);
    return compared(route, vec4<u32>(keys0.w, keys1.w, keys2.w, keys3.w), first + 3u, exist.w);
}

// Where the flags of a packed tile are, in matrices.
fn flags_of(block: u32) -> u32 {
    let width4 = (params.width + 3u) / 4u;
    return (block * (width4 + 1u) + width4) * GROUP4;
}

fn channel_exists(first_block: u32, i: u32) -> bool {
    return factors_at(flags_of(first_block + i / TILE_ROWS) + i % TILE_ROWS / 4u)[i % 4u] > 0.0;
}

// Four keys from one of them on.
fn shifted(keys: vec4<u32>, at: u32) -> vec4<u32> {
    let moved = select(keys, keys.yzww, (at & 1u) != 0u);
    return select(moved, moved.zwww, (at & 2u) != 0u);
}

// The keys of the lists of a tile, among those of a packed tile.
fn own_keys_of(keys: Keys, at: u32) -> Keys {
    var own = keys;
    if LISTS < 4u {
        own.a0 = shifted(keys.a0, at); own.a1 = shifted(keys.a1, at);
        own.a2 = shifted(keys.a2, at); own.a3 = shifted(keys.a3, at);
    }
    return own;
}

fn keys_of_rows(row: vec4<u32>, tile: u32) -> Keys {
    let l = row - params.first_history;
    let first_block = tile / params.tiles * params.blocks;
    let first_own = tile % params.tiles * LISTS;
    let scales = Scales(vec4<f32>(1.0), vec4<f32>(1.0));
    var own = Keys();
    var route = Route(vec4<u32>(), vec4<u32>(NONE));
    for (var b = 0u; b < params.blocks; b++) {
        let keys = finite_keys_of(scores_of_rows(l, scales, first_block + b));
        let flags = flags_of(first_block + b);
        let first = b * TILE_ROWS;
        route = compared4(route, keys.a0, keys.a1, keys.a2, keys.a3, first, factors_at(flags));
        if GROUP4 > 1u {
            route = compared4(route, keys.b0, keys.b1, keys.b2, keys.b3, first + 4u, factors_at(flags + 1u));
        }
        if b == first_own / TILE_ROWS {
            own = own_keys_of(keys, first_own % TILE_ROWS);
        }
    }
    own.allowed = 0u;
    for (var r = 0u; r < LISTS; r++) {
        var allowed = select(0x1111u, 0x11110000u, r >= 4u) << (r & 3u);
        if ROUTED == 1u {
            allowed &= bits_of_behaviours(route.channels == vec4<u32>(first_own + r));
        } else if !channel_exists(first_block, first_own + r) {
            allowed = 0u;
        }
        own.allowed |= allowed;
    }
    return own;
}
