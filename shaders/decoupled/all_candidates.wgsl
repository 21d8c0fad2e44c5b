// Halves of the partial gradients of the rows of candidates: partial[m] = Σ_l factor/2 · rows[l] over a span, where factors are weights
// or gradients of scores. (A mean of the largest numbers may be beyond them by a rounding error.)
//
// One workgroup of 128 threads takes a tile and 64 columns; a thread has two candidates and four columns, 16 apart.

struct AllCandidatesParams {
    groups: u32,
    grid_width: u32,
    blocks: u32,
    first_tile: u32,
    column_blocks: u32,
    width: u32,
    // Which number of a pair.
    factor: u32,
}
@group(0) @binding(0) var<uniform> params: AllCandidatesParams;

const STAGED: u32 = 32u;
const PAIR_STRIDE: u32 = 33u;
const COLUMNS: u32 = 64u;

var<workgroup> staged_pairs: array<vec2<f32>, 528>;
var<workgroup> staged_rows: array<f32, 2048>;

// The sums of 32 behaviours, for each own candidate.
fn sums_of(thread: u32) -> array<vec4<f32>, 2> {
    var sums = array<vec4<f32>, 2>();
    let lane = thread % LANES;
    let own = thread / LANES * 2u;
    for (var l = 0u; l < STAGED; l++) {
        let place = l * COLUMNS + lane;
        let row = vec4<f32>(
            staged_rows[place], staged_rows[place + 16u], staged_rows[place + 32u], staged_rows[place + 48u]);
        for (var c = 0u; c < 2u; c++) {
            let pair = staged_pairs[(own + c) * PAIR_STRIDE + l];
            if bitcast<u32>(pair.x) != REMOVED_BITS {
                sums[c] = fma(vec4<f32>(pair[params.factor]), row, sums[c]);
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
    let tile = tiles[params.first_tile + block / params.column_blocks];
    let first_column = block % params.column_blocks * COLUMNS;
    let span = spans[2u * tile.x];
    let places = spans[2u * tile.x + 1u];
    var sums = array<vec4<f32>, 2>();
    for (var begin = 0u; begin < span.y; begin += STAGED) {
        workgroupBarrier();
        for (var i = thread; i < CANDIDATES * STAGED; i += ALL_THREADS) {
            let c = tile.y + i / STAGED;
            let l = begin + i % STAGED;
            var pair = vec2<f32>(REMOVED, 0.0);
            if c < span.w && l < span.y {
                pair = pairs[places.x + c * span.y + l];
            }
            if bitcast<u32>(pair.x) != REMOVED_BITS {
                pair *= 0.5;
            }
            staged_pairs[i / STAGED * PAIR_STRIDE + i % STAGED] = pair;
        }
        for (var i = thread; i < STAGED * COLUMNS; i += ALL_THREADS) {
            let l = begin + i / COLUMNS;
            let column = first_column + i % COLUMNS;
            var value = 0.0;
            if l < span.y && column < params.width {
                value = rows[(span.x + l) * params.width + column];
            }
            staged_rows[i] = value;
        }
        workgroupBarrier();
        let some = sums_of(thread);
        sums[0] += some[0];
        sums[1] += some[1];
    }
    for (var c = 0u; c < 2u; c++) {
        let row = tile.y + thread / LANES * 2u + c;
        for (var e = 0u; e < 4u; e++) {
            let column = first_column + thread % LANES + e * LANES;
            if row < span.w && column < params.width {
                partial[(places.y + row) * params.width + column] = sums[c][e];
            }
        }
    }
}
