// The ids of the candidates that keep any behaviour; NONE for others.
//
// One workgroup of 64 threads per candidate.

struct KeptCandidatesParams {
    groups: u32,
    grid_width: u32,
    candidates: u32,
    top_k: u32,
    features: u32,
    target_ids_base: u32,
}
@group(0) @binding(0) var<uniform> params: KeptCandidatesParams;

var<workgroup> any_kept: array<u32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let m = group_index(id);
    if m >= params.candidates {
        return;
    }
    var own = 0u;
    for (var k = thread; k < params.top_k; k += 64u) {
        own |= select(0u, 1u, kept[m * params.top_k + k].y != NONE);
    }
    any_kept[thread] = own;
    workgroupBarrier();
    var keeps = 0u;
    for (var other = 0u; other < 64u; other++) {
        keeps |= any_kept[other];
    }
    for (var f = thread; f < params.features; f += 64u) {
        let place = m * params.features + f;
        var key = NONE;
        if keeps == 1u {
            key = target_ids[params.target_ids_base + place];
        }
        candidate_ids[place] = key;
    }
}
