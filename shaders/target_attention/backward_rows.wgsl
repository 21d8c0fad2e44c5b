// The softmax states of rows (candidates × heads) for target_attention/backward.wgsl: the shift and the factor of the weights
// exp(score − shift) · factor, and D − grad_lse, where D = ⟨grad_out, out⟩.
//
// One thread per row of a tile writes states[((tile · H_kv + head) · 3 + which) · tile_rows + r]; rows that a tile does not have
// get zeros. Where the log-sum-exp is coarse, shift and factor come from the states of the spans, in their order.

struct BackwardRowsParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    kv_heads: u32,
    group_heads: u32,
    value_width: u32,
    out_base: u32,
    grad_out_base: u32,
    lse_base: u32,
    grad_lse_base: u32,
    has_grad_lse: u32,
    tile: u32,
    shares: u32,
}
@group(0) @binding(0) var<uniform> params: BackwardRowsParams;

const NOT_A_NUMBER: u32 = 0x7fc00000u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let r = index % params.tile;
    let packed = index / params.tile;
    let tile = packed / params.kv_heads;
    let kv_head = packed % params.kv_heads;
    // [first candidate, first row, rows, _], [first partial result, spans, _, _].
    let rows = tiles[2u * tile];
    let parts = tiles[2u * tile + 1u];
    let first = packed * 3u * params.tile + r;
    if r >= rows.z {
        states[first] = 0.0;
        states[first + params.tile] = 0.0;
        states[first + 2u * params.tile] = 0.0;
        return;
    }
    let row = rows.y + r;
    let query = (row / params.group_heads * params.kv_heads + kv_head) * params.group_heads + row % params.group_heads;
    let output = rows.x * params.kv_heads * params.group_heads + query;
    let width4 = (params.value_width + 3u) / 4u;
    var subtracted = 0.0;
    for (var k = 0u; k < width4; k++) {
        let at = output * params.value_width + 4u * k;
        let left = params.value_width - 4u * k;
        subtracted += dot(saved_vec4(params.out_base + at, left), grad_out_vec4(params.grad_out_base + at, left));
    }
    if params.has_grad_lse == 1u {
        subtracted -= grad_lse_at(params.grad_lse_base + output);
    }
    let lse = lse_bits[params.lse_base + output];
    let magnitude = lse & 0x7fffffffu;
    var state = vec2<f32>(bitcast<f32>(lse), 1.0);
    if magnitude > 0x43800000u && magnitude < EXPONENT {
        state = combined(parts.x / params.shares + query * parts.y, parts.y);
    }
    let bits = bitcast<u32>(state.x);
    if bits == NEGATIVE_INFINITY {
        // Everything is removed.
        state = vec2<f32>(0.0, 1.0);
    } else if bits == EXPONENT {
        // As in the forward pass, where a score of +∞ makes NaN of all weights.
        var not_a_number = NOT_A_NUMBER;
        state = vec2<f32>(bitcast<f32>(not_a_number), 1.0);
    } else {
        state.y = 1.0 / state.y;
    }
    states[first] = state.x;
    states[first + params.tile] = state.y;
    states[first + 2u * params.tile] = subtracted;
}

// The maximum and the sum over all spans.
fn combined(first: u32, spans: u32) -> vec2<f32> {
    var row_max = negative_infinity();
    for (var span = 0u; span < spans; span++) {
        row_max = max(row_max, span_states[2u * (first + span)]);
    }
    var row_sum = 0.0;
    for (var span = 0u; span < spans; span++) {
        let at = 2u * (first + span);
        row_sum += span_states[at + 1u] * rescale_of(vec4<f32>(span_states[at]), vec4<f32>(row_max)).x;
    }
    return vec2<f32>(row_max, row_sum);
}
