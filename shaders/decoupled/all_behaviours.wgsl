// Gradients of the rows of behaviours: out[l] (+)= Σ_m factor · rows[m], where factors are weights or gradients of scores.
//
// One workgroup of 128 threads takes 64 behaviours of a span and 32 columns; a thread has four behaviours and four columns.
// Candidates are summed 16 at a time, and then these sums; the host cuts long lists of candidates.

struct AllBehavioursParams {
    groups: u32,
    grid_width: u32,
    blocks: u32,
    first_span: u32,
    column_blocks: u32,
    width: u32,
    rows_base: u32,
    // The first row of the output.
    out_row: u32,
    // Which number of a pair.
    factor: u32,
    // The candidates of each user.
    first_target: u32,
    end_target: u32,
}
@group(0) @binding(0) var<uniform> params: AllBehavioursParams;

const BLOCKS_PER_SPAN: u32 = 4u;
const COLUMNS: u32 = 32u;
const PAIR_STRIDE: u32 = 65u;

var<workgroup> staged_pairs: array<vec2<f32>, 1040>;
var<workgroup> staged_rows: array<f32, 512>;

// The sums of 16 candidates, for each own behaviour.
fn sums_of(thread: u32) -> array<vec4<f32>, 4> {
    var sums = array<vec4<f32>, 4>();
    let lane = thread % LANES;
    let column = thread / LANES * 4u;
    for (var c = 0u; c < CANDIDATES; c++) {
        let place = c * COLUMNS + column;
        let row = vec4<f32>(
            staged_rows[place], staged_rows[place + 1u], staged_rows[place + 2u], staged_rows[place + 3u]);
        for (var l = 0u; l < 4u; l++) {
            let pair = staged_pairs[c * PAIR_STRIDE + lane + l * LANES];
            if bitcast<u32>(pair.x) != REMOVED_BITS {
                sums[l] = fma(vec4<f32>(pair[params.factor]), row, sums[l]);
            }
        }
    }
    return sums;
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let block = group_index(id);
    if block >= params.blocks {
        return;
    }
    let part = block / params.column_blocks;
    let first_column = block % params.column_blocks * COLUMNS;
    let own_span = 2u * (params.first_span + part / BLOCKS_PER_SPAN);
    let span = spans[own_span];
    let first_pair = spans[own_span + 1u].x;
    let begin = part % BLOCKS_PER_SPAN * BEHAVIOURS;
    let end = min(span.w, params.end_target);
    if begin >= span.y || params.first_target >= end {
        return;
    }
    var sums = array<vec4<f32>, 4>();
    for (var first = params.first_target; first < end; first += CANDIDATES) {
        workgroupBarrier();
        for (var i = thread; i < CANDIDATES * BEHAVIOURS; i += ALL_THREADS) {
            let c = first + i / BEHAVIOURS;
            let l = begin + i % BEHAVIOURS;
            var pair = vec2<f32>(REMOVED, 0.0);
            if c < end && l < span.y {
                pair = pairs[first_pair + c * span.y + l];
            }
            staged_pairs[i / BEHAVIOURS * PAIR_STRIDE + i % BEHAVIOURS] = pair;
        }
        for (var i = thread; i < CANDIDATES * COLUMNS; i += ALL_THREADS) {
            let c = first + i / COLUMNS;
            let column = first_column + i % COLUMNS;
            var value = 0.0;
            if c < end && column < params.width {
                value = rows[params.rows_base + (span.z + c) * params.width + column];
            }
            staged_rows[i] = value;
        }
        workgroupBarrier();
        let some = sums_of(thread);
        for (var l = 0u; l < 4u; l++) {
            sums[l] += some[l];
        }
    }
    let column = first_column + thread / LANES * 4u;
    for (var l = 0u; l < 4u; l++) {
        let own = begin + thread % LANES + l * LANES;
        for (var e = 0u; e < 4u; e++) {
            if own < span.y && column + e < params.width {
                let place = (params.out_row + span.x + own) * params.width + column + e;
                if params.first_target > 0u {
                    out[place] += sums[l][e];
                } else {
                    out[place] = sums[l][e];
                }
            }
        }
    }
}
