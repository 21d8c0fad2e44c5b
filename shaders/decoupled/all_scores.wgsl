// Scores of the pairs of a tile, and products of gradients and values: a thread has two candidates and four behaviours, 16 apart. A score is
// computed by the same operations wherever it is, so that it and its maximum are rounded alike.
//
// Spans are [row, rows, first target, targets] [first pair, first partial result, 0, 0]; tiles [span, first row].

const STAGED: u32 = 32u;
const STRIDE: u32 = 33u;

var<workgroup> staged_behaviours: array<f32, 2112>;
var<workgroup> staged_candidates: array<f32, 528>;

struct PairScores {
    scores: array<vec4<f32>, 2>,
    products: array<vec4<f32>, 2>,
}

// The rows of a tile: the first candidate and their number, the first behaviour and theirs.
struct TileRows {
    target_row: u32,
    targets: u32,
    row: u32,
    rows: u32,
}

fn multiply_staged(thread: u32, columns: u32, before: array<vec4<f32>, 2>) -> array<vec4<f32>, 2> {
    var sums = before;
    let lane = thread % LANES;
    let own = thread / LANES * 2u;
    for (var column = 0u; column < columns; column++) {
        let rows = vec4<f32>(
            staged_behaviours[lane * STRIDE + column], staged_behaviours[(lane + 16u) * STRIDE + column],
            staged_behaviours[(lane + 32u) * STRIDE + column], staged_behaviours[(lane + 48u) * STRIDE + column]);
        sums[0] = fma(vec4<f32>(staged_candidates[own * STRIDE + column]), rows, sums[0]);
        sums[1] = fma(vec4<f32>(staged_candidates[(own + 1u) * STRIDE + column]), rows, sums[1]);
    }
    return sums;
}

fn scores_of(thread: u32, tile: TileRows) -> array<vec4<f32>, 2> {
    let width = params.attention_width;
    var sums = array<vec4<f32>, 2>();
    for (var first = 0u; first < width; first += STAGED) {
        workgroupBarrier();
        for (var i = thread; i < BEHAVIOURS * STAGED; i += ALL_THREADS) {
            let row = i / STAGED;
            let column = first + i % STAGED;
            var value = 0.0;
            if row < tile.rows && column < width {
                value = keys[(tile.row + row) * width + column];
            }
            staged_behaviours[row * STRIDE + i % STAGED] = value;
        }
        for (var i = thread; i < CANDIDATES * STAGED; i += ALL_THREADS) {
            let row = i / STAGED;
            let column = first + i % STAGED;
            var value = 0.0;
            if row < tile.targets && column < width {
                value = queries[(tile.target_row + row) * width + column];
            }
            staged_candidates[row * STRIDE + i % STAGED] = value;
        }
        workgroupBarrier();
        sums = multiply_staged(thread, min(STAGED, width - first), sums);
    }
    // A candidate's row times the whole scale could leave the range of f32.
    sums[0] *= params.score_factor;
    sums[1] *= params.score_factor;
    return sums;
}

fn products_of(thread: u32, tile: TileRows) -> array<vec4<f32>, 2> {
    let width = params.representation_width;
    var sums = array<vec4<f32>, 2>();
    for (var first = 0u; first < width; first += STAGED) {
        workgroupBarrier();
        for (var i = thread; i < BEHAVIOURS * STAGED; i += ALL_THREADS) {
            let row = i / STAGED;
            let column = first + i % STAGED;
            var value = 0.0;
            if row < tile.rows && column < width {
                value = values[(tile.row + row) * width + column];
            }
            staged_behaviours[row * STRIDE + i % STAGED] = value;
        }
        for (var i = thread; i < CANDIDATES * STAGED; i += ALL_THREADS) {
            let row = i / STAGED;
            let column = first + i % STAGED;
            var value = 0.0;
            if row < tile.targets && column < width {
                value = grads[params.grads_base + (tile.target_row + row) * width + column];
            }
            staged_candidates[row * STRIDE + i % STAGED] = value;
        }
        workgroupBarrier();
        sums = multiply_staged(thread, min(STAGED, width - first), sums);
    }
    return sums;
}

// All threads call it together.
fn pair_scores(thread: u32, tile: TileRows) -> PairScores {
    var out = PairScores();
    out.scores = scores_of(thread, tile);
    if params.has_values == 1u {
        out.products = products_of(thread, tile);
    }
    return out;
}
