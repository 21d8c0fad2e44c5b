// Histograms of the similarities of the newest behaviours: out[m, i] += the behaviours of a piece whose similarity is in bin i.
//
// One workgroup of 64 threads per piece: a tile of up to 4 · GROUP4 candidates, and a span of one user's newest behaviours. A
// thread scores four behaviours at a time, as a search does (search/row_scores.wgsl). Counts are integers: pieces add theirs in any
// order. Workgroup memory: 8.2 KiB. Variants: GROUP4, vec4s of candidates per thread; COSINE.

struct NewestHistogramParams {
    groups: u32,
    grid_width: u32,
    first_piece: u32,
    // The history row of the first row of the bindings.
    first_history: u32,
    width: u32,
    rows_base: u32,
    scale_base: u32,
    offset_base: u32,
    bias_base: u32,
    has_bias: u32,
    steps: u32,
    bins: u32,
    out_base: u32,
}
@group(0) @binding(0) var<uniform> params: NewestHistogramParams;

var<workgroup> found: array<atomic<u32>, 2049>;

// Counts a behaviour for four candidates from `first` on, of which the tile has `candidates`.
fn count(scores: vec4<f32>, first: u32, candidates: u32) {
    for (var i = 0u; i < 4u; i++) {
        if first + i < candidates && is_counted(scores[i]) {
            atomicAdd(&found[(first + i) * params.bins + bin_of(scores[i])], 1u);
        }
    }
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
    for (var i = thread; i < rows.z * params.bins; i += 64u) {
        atomicStore(&found[i], 0u);
    }
    workgroupBarrier();
    for (var start = span.x; start < span.y; start += 256u) {
        let l = start + thread + vec4<u32>(0u, 64u, 128u, 192u);
        // Behaviours past the end repeat the last one and are not counted.
        let row = min(l, vec4<u32>(span.y - 1u)) - params.first_history;
        let scales = scales_of(row);
        let s = scores_of_rows(row, scales, rows.w);
        var counts = l < vec4<u32>(span.y);
        if COSINE == 1u {
            // A row of zeros has no cosine.
            counts = counts & (scales.powers > vec4<f32>());
        }
        if counts.x { count(s.a0, 0u, rows.z); }
        if counts.y { count(s.a1, 0u, rows.z); }
        if counts.z { count(s.a2, 0u, rows.z); }
        if counts.w { count(s.a3, 0u, rows.z); }
        if GROUP4 > 1u {
            if counts.x { count(s.b0, 4u, rows.z); }
            if counts.y { count(s.b1, 4u, rows.z); }
            if counts.z { count(s.b2, 4u, rows.z); }
            if counts.w { count(s.b3, 4u, rows.z); }
        }
    }
    workgroupBarrier();
    let first = params.out_base + (rows.x + rows.y) * params.bins;
    for (var i = thread; i < rows.z * params.bins; i += 64u) {
        let more = atomicLoad(&found[i]);
        if more > 0u {
            atomicAdd(&out[first + i], more);
        }
    }
}
