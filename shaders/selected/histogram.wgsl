// Histograms of a selection's similarities: out[m, i] = the kept behaviours of candidate m whose score is in bin i.
//
// One workgroup of 64 threads per candidate. A count above K counts nothing; the lowest candidate with one is reported.
// Counts are integers: their order does not matter. Workgroup memory: BINS words.

struct HistogramParams {
    groups: u32,
    grid_width: u32,
    candidates: u32,
    top_k: u32,
    steps: u32,
    bins: u32,
    scores_base: u32,
    counts_base: u32,
    out_base: u32,
}
@group(0) @binding(0) var<uniform> params: HistogramParams;

var<workgroup> found: array<atomic<u32>, BINS>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let m = group_index(id);
    if m >= params.candidates {
        return;
    }
    for (var bin = thread; bin < params.bins; bin += 64u) {
        atomicStore(&found[bin], 0u);
    }
    workgroupBarrier();
    var count = counts[params.counts_base + m];
    if count > params.top_k {
        if thread == 0u {
            atomicMin(&bad_counts[0], m);
        }
        count = 0u;
    }
    for (var k = thread; k < count; k += 64u) {
        let similarity = bitcast<f32>(scores[params.scores_base + m * params.top_k + k]);
        if is_counted(similarity) {
            atomicAdd(&found[bin_of(similarity)], 1u);
        }
    }
    workgroupBarrier();
    for (var bin = thread; bin < params.bins; bin += 64u) {
        out[params.out_base + m * params.bins + bin] = atomicLoad(&found[bin]);
    }
}
