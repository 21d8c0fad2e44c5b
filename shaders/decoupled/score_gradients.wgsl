// The gradients of the scores of a selection: ds = w · (dot − Σ w·dot), 0 where a slot keeps nothing.
//
// One workgroup of 64 threads per candidate; the sums of the threads are added in order.

struct ScoreGradientsParams {
    groups: u32,
    grid_width: u32,
    candidates: u32,
    top_k: u32,
    scores_base: u32,
    // Whether `scores` are wanted.
    has_scores: u32,
}
@group(0) @binding(0) var<uniform> params: ScoreGradientsParams;

var<workgroup> sums: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let m = group_index(id);
    if m >= params.candidates {
        return;
    }
    let first = m * params.top_k;
    var own = 0.0;
    for (var k = thread; k < params.top_k; k += 64u) {
        let entry = kept[first + k];
        if entry.y != NONE {
            own += bitcast<f32>(entry.x) * dots[first + k];
        }
    }
    sums[thread] = own;
    workgroupBarrier();
    var mean = 0.0;
    for (var other = 0u; other < 64u; other++) {
        mean += sums[other];
    }
    for (var k = thread; k < params.top_k; k += 64u) {
        let entry = kept[first + k];
        var grad = 0.0;
        if entry.y != NONE {
            grad = bitcast<f32>(entry.x) * (dots[first + k] - mean);
        }
        numbered[first + k] = vec2<u32>(bitcast<u32>(grad), entry.y);
        if params.has_scores == 1u {
            scores[params.scores_base + first + k] = grad;
        }
    }
}
