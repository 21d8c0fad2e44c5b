// The gradients of target attention: of keys, values and bias, and partial results of those of the queries.
//
//     dv[l] = Σ_r P[r,l]·grad_out[r]     dk[l] = scale·Σ_r dS[r,l]·q[r]     dbias[l,h] = Σ dS[r,l] over the rows of head h
//     dq[r] = scale·Σ_l dS[r,l]·k[l]     P and dS from target_attention/backward_scores.wgsl, which is included before
//
// One workgroup of 64 threads owns a span of one user's behaviours for one key/value head, block by block, and goes over all
// rows of the user (candidates, or candidates × heads that share the key/value head) for each block, a tile at a time:
//   1. each thread computes the weights of 4 behaviours for 4 · GROUP4 rows, in registers;
//   2. the weights are in workgroup memory: each thread adds up 4 columns of dv for 8 behaviours over the rows of the tile;
//   3. the same with the gradients of the scores: dbias;
//   4. and, scaled, dk, and 4 columns of dq for 4 · GROUP4 rows over the behaviours of the block.
// So nothing of the size of candidates × behaviours leaves the workgroup. A number of a gradient has one owner, the same thread
// for every tile and block, which stores the first sum and adds the later ones in place. The sums of dq of a span are partial
// results, those of each `share` of the behaviours of its blocks on their own, so that all threads have work;
// target_attention/backward_queries.wgsl adds them up.
//
// `tile` is 4, 8, 16 or 32 rows; a block is 256 behaviours, or 2048 / tile if that is less.
// Variants: GROUP4, vec4s of rows per thread: 1 for a tile of 4 rows, otherwise 2.
// Workgroup memory: 8 KiB of weights or gradients of scores, 1 KiB of flags.
//
// A weight of 0 times infinity or NaN is not 0. Where a sum is not finite it is computed again without the behaviours that are
// removed, and the rows and behaviours past the end.
//
// Precision: f32 throughout. A sum is taken over a tile or a block, then over these in order.

const THREADS: u32 = 64u;
// Bits of `wants`.
const QUERIES: u32 = 1u;
const KEYS: u32 = 2u;
const VALUES: u32 = 4u;
const BIAS: u32 = 8u;

// Weights, then gradients of scores: those of behaviour i for the rows 4q..4q+3 at i · rows4 + q.
var<workgroup> tile_values: array<vec4<f32>, 512>;
// One bit for each row of a thread that a behaviour gives nothing: at i · row groups + row group.
var<workgroup> left_out: array<u32, 256>;

// A block of behaviours and a tile of rows.
struct Place {
    kv_head: u32,
    // The first tile of the user.
    user_tile: u32,
    // The behaviours, and the last of them.
    start: u32,
    count: u32,
    last: u32,
    // The first row of the tile, counted from the user's first, and the rows that the user has from there on.
    first_row: u32,
    rows: u32,
    // Where the tile begins in the queries and in the gradients of the output, in vec4s.
    queries: u32,
    grad_out: u32,
    state: u32,
    // Whether these are the first rows of the behaviours, and the first behaviours of the rows.
    is_first_tile: bool,
    is_first_block: bool,
    // Of the user: the first partial result, those of a row, and the first of this span.
    first_part: u32,
    parts: u32,
    part: u32,
}

// Sums of four columns for 8 behaviours or rows.
struct Sums {
    s0: vec4<f32>, s1: vec4<f32>, s2: vec4<f32>, s3: vec4<f32>,
    s4: vec4<f32>, s5: vec4<f32>, s6: vec4<f32>, s7: vec4<f32>,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = group_index(id);
    if group >= params.groups {
        return;
    }
    let piece = params.first_piece + group / params.kv_heads;
    let kv_head = group % params.kv_heads;
    // [rows, first tile, first partial result, _], [start, end, span, spans], [length of the user's whole history, _, _, _].
    let user = pieces[3u * piece];
    let span = pieces[3u * piece + 1u];
    // 0 stands for that length.
    silu_divisor = select(params.divisor, f32(pieces[3u * piece + 2u].x), bitcast<u32>(params.divisor) == 0u);
    let tiles = (user.x + params.tile - 1u) / params.tile;
    if tiles == 0u {
        write_zeros(span.x, span.y, kv_head, thread);
        return;
    }
    let width4 = (params.width + 3u) / 4u;
    let value_width4 = (params.value_width + 3u) / 4u;
    let step = 4u * THREADS * 4u * GROUP4 / params.tile;
    for (var start = span.x; start < span.y; start += step) {
        for (var tile = params.first_tile; tile < min(tiles, params.last_tile); tile++) {
            let packed = (user.y + tile) * params.kv_heads + kv_head;
            var place: Place;
            place.kv_head = kv_head;
            place.user_tile = user.y;
            place.start = start;
            place.count = min(span.y - start, step);
            place.last = span.y - 1u;
            place.first_row = tile * params.tile;
            place.rows = user.x - place.first_row;
            place.queries = packed * width4 * params.tile;
            place.grad_out = params.first_grad_out + packed * value_width4 * params.tile;
            place.state = params.first_state + packed * 3u * (params.tile / 4u);
            place.is_first_tile = tile == 0u;
            place.is_first_block = start == span.x;
            place.first_part = user.z;
            place.parts = span.w * params.shares;
            place.part = span.z * params.shares;
            add_tile(place, thread);
        }
    }
}

fn wants(which: u32) -> bool {
    return (params.wants & which) != 0u;
}

// Adds what a tile gives to the gradients.
fn add_tile(place: Place, thread: u32) {
    let groups = params.tile / (4u * GROUP4);
    let lanes = THREADS / groups;
    let rows4 = params.tile / 4u;
    let lane = thread % lanes;
    let row_group = thread / lanes;
    // 1. Weights and gradients of scores. Behaviours past the end repeat the last one and are left out.
    let l = vec4<u32>(place.start + lane) + vec4<u32>(0u, lanes, 2u * lanes, 3u * lanes);
    let live = l <= vec4<u32>(place.last);
    let row = min(l, vec4<u32>(place.last)) - params.first_history;
    let r = row_group * GROUP4 * 4u;
    let products = key_products(row, place.kv_head, place.user_tile, place.queries + r);
    let s = scores_of(products, row, place.kv_head, place.first_row + r);
    var value_dots = Block();
    if wants(QUERIES | KEYS | BIAS) {
        value_dots = value_products(row, place.kv_head, place.user_tile, place.grad_out + r);
    }
    let own = vec4<u32>(r) + vec4<u32>(0u, 1u, 2u, 3u);
    let missing_a = own >= vec4<u32>(place.rows);
    let missing_b = own + 4u >= vec4<u32>(place.rows);
    let w = weigh(s, value_dots, states_of(place.state, row_group), live, missing_a, missing_b);
    let flag = lane * groups + row_group;
    left_out[flag] = w.left_out.x;
    left_out[flag + lanes * groups] = w.left_out.y;
    left_out[flag + 2u * lanes * groups] = w.left_out.z;
    left_out[flag + 3u * lanes * groups] = w.left_out.w;
    let own_values = lane * rows4 + row_group * GROUP4;
    let next = lanes * rows4;
    // 2. Values.
    if wants(VALUES) {
        store_block(w.weights, 1.0, own_values, next);
        workgroupBarrier();
        add_values(place, thread);
        workgroupBarrier();
    }
    // 3. Bias.
    if wants(BIAS) {
        store_block(w.grads, 1.0, own_values, next);
        workgroupBarrier();
        add_bias(place, thread);
        workgroupBarrier();
    }
    // 4. Keys and queries.
    if wants(QUERIES | KEYS) {
        store_block(w.grads, params.factor, own_values, next);
        workgroupBarrier();
        if wants(KEYS) {
            add_keys(place, thread);
        }
        if wants(QUERIES) {
            add_queries(place, thread);
        }
        workgroupBarrier();
    }
}

fn store_block(block: Block, factor: f32, place: u32, next: u32) {
    tile_values[place] = factor * block.a0; tile_values[place + next] = factor * block.a1;
    tile_values[place + 2u * next] = factor * block.a2; tile_values[place + 3u * next] = factor * block.a3;
    if GROUP4 > 1u {
        tile_values[place + 1u] = factor * block.b0; tile_values[place + next + 1u] = factor * block.b1;
        tile_values[place + 2u * next + 1u] = factor * block.b2; tile_values[place + 3u * next + 1u] = factor * block.b3;
    }
}

// Adds to the gradients of the values.
fn add_values(place: Place, thread: u32) {
    let columns4 = (params.value_width + 3u) / 4u;
    for (var item = thread; item < (place.count + 7u) / 8u * columns4; item += THREADS) {
        let i = item / columns4 * 8u;
        let column4 = item % columns4;
        let sums = sums_over_rows(i, place.grad_out + column4 * params.tile);
        let row = (place.start + i - params.first_history) * params.kv_heads + place.kv_head;
        let at = row * params.value_width + 4u * column4;
        let left = params.value_width - 4u * column4;
        if params.aliased == 1u {
            add_rows_to_keys(sums, params.grad_keys_base + at, place.count - i, left, !place.is_first_tile);
        } else {
            add_rows_to_values(sums, params.grad_values_base + at, place.count - i, left, !place.is_first_tile);
        }
    }
}

// Adds to the gradients of the keys.
fn add_keys(place: Place, thread: u32) {
    let columns4 = (params.width + 3u) / 4u;
    for (var item = thread; item < (place.count + 7u) / 8u * columns4; item += THREADS) {
        let i = item / columns4 * 8u;
        let column4 = item % columns4;
        let sums = sums_over_rows(i, place.queries + column4 * params.tile);
        let row = (place.start + i - params.first_history) * params.kv_heads + place.kv_head;
        let at = params.grad_keys_base + row * params.width + 4u * column4;
        let adds = !place.is_first_tile || params.aliased == 1u;
        add_rows_to_keys(sums, at, place.count - i, params.width - 4u * column4, adds);
    }
}

// Adds to the gradients of the bias.
fn add_bias(place: Place, thread: u32) {
    let rows4 = params.tile / 4u;
    for (var item = thread; item < place.count * params.group_heads; item += THREADS) {
        let i = item / params.group_heads;
        let head = item % params.group_heads;
        var sum = 0.0;
        // The rows of a head are `group_heads` apart.
        let ahead = place.first_row % params.group_heads;
        for (var r = (head + params.group_heads - ahead) % params.group_heads; r < params.tile; r += params.group_heads) {
            sum += tile_values[i * rows4 + r / 4u][r % 4u];
        }
        let row = (place.start + i - params.first_history) * params.kv_heads + place.kv_head;
        let to = params.first_bias + row * params.group_heads + head;
        if place.is_first_tile {
            partial[to] = sum;
        } else {
            partial[to] += sum;
        }
    }
}

// Adds to the partial results of the gradients of the queries.
fn add_queries(place: Place, thread: u32) {
    let groups = params.tile / (4u * GROUP4);
    let columns4 = (params.width + 3u) / 4u;
    for (var item = thread; item < columns4 * groups * params.shares; item += THREADS) {
        let column = 4u * (item % columns4);
        let row_group = item / columns4 % groups;
        let share = item / (columns4 * groups);
        let sums = sums_over_behaviours(place, row_group, share, column, params.width - column);
        let r = row_group * 4u * GROUP4;
        add_to_query(place, r, share, column, sums.s0); add_to_query(place, r + 1u, share, column, sums.s1);
        add_to_query(place, r + 2u, share, column, sums.s2); add_to_query(place, r + 3u, share, column, sums.s3);
        if GROUP4 > 1u {
            add_to_query(place, r + 4u, share, column, sums.s4); add_to_query(place, r + 5u, share, column, sums.s5);
            add_to_query(place, r + 6u, share, column, sums.s6); add_to_query(place, r + 7u, share, column, sums.s7);
        }
    }
}

// Adds four columns to the partial result of row r of the tile.
fn add_to_query(place: Place, r: u32, share: u32, column: u32, sum: vec4<f32>) {
    if r >= place.rows {
        return;
    }
    let row = place.first_row + r;
    let query = (row / params.group_heads * params.kv_heads + place.kv_head) * params.group_heads
        + row % params.group_heads;
    let at = (place.first_part + query * place.parts + place.part + share) * params.width + column;
    let left = params.width - column;
    var total = params.query_factor * sum;
    if !place.is_first_block {
        total.x += partial[at];
        if left > 1u { total.y += partial[at + 1u]; }
        if left > 2u { total.z += partial[at + 2u]; }
        if left > 3u { total.w += partial[at + 3u]; }
    }
    partial[at] = total.x;
    if left > 1u { partial[at + 1u] = total.y; }
    if left > 2u { partial[at + 2u] = total.z; }
    if left > 3u { partial[at + 3u] = total.w; }
}

// The sums over the rows of the tile for behaviours i..i + 8, of the four columns of `rows` from `first` on.
fn sums_over_rows(i: u32, first: u32) -> Sums {
    let rows4 = params.tile / 4u;
    var sums = Sums();
    for (var q = 0u; q < rows4; q++) {
        let m = rows_matrix(first + 4u * q);
        let place = i * rows4 + q;
        sums.s0 += m * tile_values[place];
        sums.s1 += m * tile_values[place + rows4];
        sums.s2 += m * tile_values[place + 2u * rows4];
        sums.s3 += m * tile_values[place + 3u * rows4];
        sums.s4 += m * tile_values[place + 4u * rows4];
        sums.s5 += m * tile_values[place + 5u * rows4];
        sums.s6 += m * tile_values[place + 6u * rows4];
        sums.s7 += m * tile_values[place + 7u * rows4];
    }
    if !is_finite(sums) {
        sums = Sums();
        for (var r = 0u; r < params.tile; r++) {
            let row = rows[first + r];
            sums.s0 += product_of(i, r, row); sums.s1 += product_of(i + 1u, r, row);
            sums.s2 += product_of(i + 2u, r, row); sums.s3 += product_of(i + 3u, r, row);
            sums.s4 += product_of(i + 4u, r, row); sums.s5 += product_of(i + 5u, r, row);
            sums.s6 += product_of(i + 6u, r, row); sums.s7 += product_of(i + 7u, r, row);
        }
    }
    return sums;
}

// The sums over a share of the behaviours of the block for 4 · GROUP4 rows, of four columns of the keys.
fn sums_over_behaviours(place: Place, row_group: u32, share: u32, column: u32, left: u32) -> Sums {
    let rows4 = params.tile / 4u;
    var sums = Sums();
    for (var i = 4u * share; i < place.count; i += 4u * params.shares) {
        let l = min(vec4<u32>(place.start + i) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(place.last));
        let row = l - params.first_history;
        let k0 = key_vec4(key_place(row.x, place.kv_head, place.user_tile), column, left);
        let k1 = key_vec4(key_place(row.y, place.kv_head, place.user_tile), column, left);
        let k2 = key_vec4(key_place(row.z, place.kv_head, place.user_tile), column, left);
        let k3 = key_vec4(key_place(row.w, place.kv_head, place.user_tile), column, left);
        let own = i * rows4 + row_group * GROUP4;
        let a0 = tile_values[own]; let a1 = tile_values[own + rows4];
        let a2 = tile_values[own + 2u * rows4]; let a3 = tile_values[own + 3u * rows4];
        sums.s0 += a0.x * k0 + a1.x * k1 + a2.x * k2 + a3.x * k3;
        sums.s1 += a0.y * k0 + a1.y * k1 + a2.y * k2 + a3.y * k3;
        sums.s2 += a0.z * k0 + a1.z * k1 + a2.z * k2 + a3.z * k3;
        sums.s3 += a0.w * k0 + a1.w * k1 + a2.w * k2 + a3.w * k3;
        if GROUP4 > 1u {
            let b0 = tile_values[own + 1u]; let b1 = tile_values[own + rows4 + 1u];
            let b2 = tile_values[own + 2u * rows4 + 1u]; let b3 = tile_values[own + 3u * rows4 + 1u];
            sums.s4 += b0.x * k0 + b1.x * k1 + b2.x * k2 + b3.x * k3;
            sums.s5 += b0.y * k0 + b1.y * k1 + b2.y * k2 + b3.y * k3;
            sums.s6 += b0.z * k0 + b1.z * k1 + b2.z * k2 + b3.z * k3;
            sums.s7 += b0.w * k0 + b1.w * k1 + b2.w * k2 + b3.w * k3;
        }
    }
    if !is_finite(sums) {
        sums = Sums();
        for (var i = 4u * share; i < place.count; i += 4u * params.shares) {
            for (var n = i; n < min(i + 4u, place.count); n++) {
                let row = place.start + n - params.first_history;
                let key = key_vec4(key_place(row, place.kv_head, place.user_tile), column, left);
                let r = row_group * 4u * GROUP4;
                sums.s0 += product_of(n, r, key); sums.s1 += product_of(n, r + 1u, key);
                sums.s2 += product_of(n, r + 2u, key); sums.s3 += product_of(n, r + 3u, key);
                if GROUP4 > 1u {
                    sums.s4 += product_of(n, r + 4u, key); sums.s5 += product_of(n, r + 5u, key);
                    sums.s6 += product_of(n, r + 6u, key); sums.s7 += product_of(n, r + 7u, key);
                }
            }
        }
    }
    return sums;
}

// What behaviour i and row r of the tile add to a sum: nothing where they are left out.
fn product_of(i: u32, r: u32, columns: vec4<f32>) -> vec4<f32> {
    let group = r / (4u * GROUP4);
    let is_out = extractBits(left_out[i * (params.tile / (4u * GROUP4)) + group], r % (4u * GROUP4), 1u) == 1u;
    return select(tile_values[i * (params.tile / 4u) + r / 4u][r % 4u] * columns, vec4<f32>(), is_out);
}

fn is_finite(sums: Sums) -> bool {
    return !any(is_not_finite(sums.s0) | is_not_finite(sums.s1) | is_not_finite(sums.s2) | is_not_finite(sums.s3)
        | is_not_finite(sums.s4) | is_not_finite(sums.s5) | is_not_finite(sums.s6) | is_not_finite(sums.s7));
}

// Stores four columns of up to 8 behaviours from `at` on, or adds to them.
fn add_rows_to_keys(sums: Sums, at: u32, count: u32, left: u32, adds: bool) {
    let next = params.kv_heads * params.width;
    add_to_keys(at, sums.s0, left, adds);
    if count > 1u { add_to_keys(at + next, sums.s1, left, adds); }
    if count > 2u { add_to_keys(at + 2u * next, sums.s2, left, adds); }
    if count > 3u { add_to_keys(at + 3u * next, sums.s3, left, adds); }
    if count > 4u { add_to_keys(at + 4u * next, sums.s4, left, adds); }
    if count > 5u { add_to_keys(at + 5u * next, sums.s5, left, adds); }
    if count > 6u { add_to_keys(at + 6u * next, sums.s6, left, adds); }
    if count > 7u { add_to_keys(at + 7u * next, sums.s7, left, adds); }
}

fn add_to_keys(at: u32, sum: vec4<f32>, left: u32, adds: bool) {
    var total = sum;
    if adds {
        total.x += grad_keys[at];
        if left > 1u { total.y += grad_keys[at + 1u]; }
        if left > 2u { total.z += grad_keys[at + 2u]; }
        if left > 3u { total.w += grad_keys[at + 3u]; }
    }
    grad_keys[at] = total.x;
    if left > 1u { grad_keys[at + 1u] = total.y; }
    if left > 2u { grad_keys[at + 2u] = total.z; }
    if left > 3u { grad_keys[at + 3u] = total.w; }
}

// Stores four columns of up to 8 behaviours from `at` on, or adds to them.
fn add_rows_to_values(sums: Sums, at: u32, count: u32, left: u32, adds: bool) {
    let next = params.kv_heads * params.value_width;
    add_to_values(at, sums.s0, left, adds);
    if count > 1u { add_to_values(at + next, sums.s1, left, adds); }
    if count > 2u { add_to_values(at + 2u * next, sums.s2, left, adds); }
    if count > 3u { add_to_values(at + 3u * next, sums.s3, left, adds); }
    if count > 4u { add_to_values(at + 4u * next, sums.s4, left, adds); }
    if count > 5u { add_to_values(at + 5u * next, sums.s5, left, adds); }
    if count > 6u { add_to_values(at + 6u * next, sums.s6, left, adds); }
    if count > 7u { add_to_values(at + 7u * next, sums.s7, left, adds); }
}

fn add_to_values(at: u32, sum: vec4<f32>, left: u32, adds: bool) {
    var total = sum;
    if adds {
        total.x += grad_values[at];
        if left > 1u { total.y += grad_values[at + 1u]; }
        if left > 2u { total.z += grad_values[at + 2u]; }
        if left > 3u { total.w += grad_values[at + 3u]; }
    }
    grad_values[at] = total.x;
    if left > 1u { grad_values[at + 1u] = total.y; }
    if left > 2u { grad_values[at + 2u] = total.z; }
    if left > 3u { grad_values[at + 3u] = total.w; }
}

// The gradients of the behaviours of a user without candidates.
fn write_zeros(start: u32, end: u32, kv_head: u32, thread: u32) {
    if params.first_tile > 0u {
        return;
    }
    for (var l = start; l < end; l++) {
        let row = (l - params.first_history) * params.kv_heads + kv_head;
        for (var c = thread; c < params.width && wants(KEYS); c += THREADS) {
            grad_keys[params.grad_keys_base + row * params.width + c] = 0.0;
        }
        for (var c = thread; c < params.value_width && wants(VALUES) && params.aliased == 0u; c += THREADS) {
            grad_values[params.grad_values_base + row * params.value_width + c] = 0.0;
        }
        for (var h = thread; h < params.group_heads && wants(BIAS); h += THREADS) {
            partial[params.first_bias + row * params.group_heads + h] = 0.0;
        }
    }
}
