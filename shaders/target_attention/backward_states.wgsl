// The softmax states of rows whose log-sum-exp is coarse: the maximum and the sum of exponentials over one span of the history.
//
// exp(score − lse) is as exact as lse, and beyond 256 its rounding loses the number of behaviours (docs/decisions/gradients.md,
// point 5). One workgroup of 64 threads per span of a user's behaviours, key/value head and `split` looks at every `splits`-th
// chunk of the user's rows; most find no such row. Of one, each thread takes every 64th behaviour of the span.
//
// states[first state of the user + row of the user · spans + span] = (maximum, sum). Packed queries and pieces are those of
// target_attention/backward.wgsl.

struct BackwardStatesParams {
    groups: u32,
    grid_width: u32,
    first_piece: u32,
    splits: u32,
    kv_heads: u32,
    group_heads: u32,
    width: u32,
    first_history: u32,
    keys_base: u32,
    // The table of tin/rows.wgsl.
    values_base: u32,
    bias_base: u32,
    lse_base: u32,
    factor: f32,
    tile: u32,
    // Rows that are looked at together; a divisor of the tile.
    chunk: u32,
    shares: u32,
    has_bias: u32,
    // For tin/rows.wgsl: whether positions are given, and the last row of their table.
    has_places: u32,
    last_position: u32,
}
@group(0) @binding(0) var<uniform> params: BackwardStatesParams;

const THREADS: u32 = 64u;

// One bit per row of the chunk that is coarse.
var<workgroup> coarse: atomic<u32>;
var<workgroup> coarse_rows: u32;
// The maximum and the sum of each thread.
var<workgroup> thread_states: array<vec2<f32>, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = group_index(id);
    if group >= params.groups {
        return;
    }
    let kv_head = group % params.kv_heads;
    let split = group / params.kv_heads % params.splits;
    let piece = params.first_piece + group / (params.kv_heads * params.splits);
    // [rows, first tile, first partial result, first candidate], [start, end, span, spans], [_, _, _, _].
    let user = pieces[3u * piece];
    let span = pieces[3u * piece + 1u];
    let step = params.splits * params.chunk;
    for (var first = split * params.chunk; first < user.x; first += step) {
        if thread == 0u {
            atomicStore(&coarse, 0u);
        }
        workgroupBarrier();
        let own_row = first + thread;
        if thread < params.chunk && own_row < user.x {
            if is_coarse(lse_bits[params.lse_base + user.w * params.kv_heads * params.group_heads + query_of(own_row, kv_head)]) {
                atomicOr(&coarse, 1u << thread);
            }
        }
        workgroupBarrier();
        if thread == 0u {
            coarse_rows = atomicLoad(&coarse);
        }
        var rest = workgroupUniformLoad(&coarse_rows);
        while rest != 0u {
            let row = first + firstTrailingBit(rest);
            rest &= rest - 1u;
            let packed = (user.y + row / params.tile) * params.kv_heads + kv_head;
            let state = state_of_row(packed, row, kv_head, user.y, span, thread);
            if thread == 0u {
                let at = user.z / params.shares + query_of(row, kv_head) * span.w + span.z;
                states[2u * at] = state.x;
                states[2u * at + 1u] = state.y;
            }
        }
    }
}

// The number of a row among the user's candidates × heads.
fn query_of(row: u32, kv_head: u32) -> u32 {
    return (row / params.group_heads * params.kv_heads + kv_head) * params.group_heads + row % params.group_heads;
}

// Whether weights must not come from this log-sum-exp: finite, and above 256 in magnitude.
fn is_coarse(lse: u32) -> bool {
    let magnitude = lse & 0x7fffffffu;
    return magnitude > 0x43800000u && magnitude < EXPONENT;
}

// The score of behaviour `l`, of the same bits as in target_attention/backward_scores.wgsl: from products with the same matrices,
// which hold four rows, in the same order. Otherwise a score could exceed the largest one by its rounding error.
fn score_one(l: u32, packed: u32, row: u32, kv_head: u32, tile: u32) -> f32 {
    let width4 = (params.width + 3u) / 4u;
    let key = key_place(l - params.first_history, kv_head, tile);
    let r = row % params.tile;
    var place = packed * width4 * params.tile + r / 4u * 4u;
    var sums = vec4<f32>();
    for (var k = 0u; k < params.width; k += 4u) {
        sums += key_vec4(key, k, params.width - k) * mat4x4<f32>(rows[place], rows[place + 1u], rows[place + 2u], rows[place + 3u]);
        place += params.tile;
    }
    var sum = sums[r % 4u];
    sum *= params.factor;
    if params.has_bias == 1u {
        let history = (l - params.first_history) * params.kv_heads + kv_head;
        sum += bias_at(params.bias_base + history * params.group_heads + row % params.group_heads);
    }
    return sum;
}

// The maximum and the sum of a row over the span.
fn state_of_row(packed: u32, row: u32, kv_head: u32, tile: u32, span: vec4<u32>, thread: u32) -> vec2<f32> {
    var own_max = negative_infinity();
    var own_sum = 0.0;
    for (var l = span.x + thread; l < span.y; l += THREADS) {
        let score = score_one(l, packed, row, kv_head, tile);
        let grown = max(own_max, score);
        own_sum = own_sum * rescale_of(vec4<f32>(own_max), vec4<f32>(grown)).x
            + exp_one(score - shift_of(vec4<f32>(grown)).x);
        own_max = grown;
    }
    thread_states[thread] = vec2<f32>(own_max, own_sum);
    workgroupBarrier();
    var row_max = negative_infinity();
    for (var other = 0u; other < THREADS; other++) {
        row_max = max(row_max, thread_states[other].x);
    }
    var row_sum = 0.0;
    for (var other = 0u; other < THREADS; other++) {
        let part = thread_states[other];
        row_sum += part.y * rescale_of(vec4<f32>(part.x), vec4<f32>(row_max)).x;
    }
    workgroupBarrier();
    return vec2<f32>(row_max, row_sum);
}
