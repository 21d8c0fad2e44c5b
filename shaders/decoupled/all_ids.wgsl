// The ids of the behaviours that any candidate keeps, and of the candidates that keep any; NONE for others.
//
// One thread per id, of behaviours and then of candidates.

struct AllIdsParams {
    groups: u32,
    grid_width: u32,
    behaviours: u32,
    threads: u32,
    features: u32,
    ids_base: u32,
    target_ids_base: u32,
}
@group(0) @binding(0) var<uniform> params: AllIdsParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    var key = NONE;
    if index < params.behaviours {
        if kept[index / params.features] == 1u {
            key = ids[params.ids_base + index];
        }
        behaviour_ids[index] = key;
        return;
    }
    let own = index - params.behaviours;
    // Not 0: the bits of NaN are not those of 0 either.
    if (bitcast<u32>(states[own / params.features].y) << 1u) != 0u {
        key = target_ids[params.target_ids_base + own];
    }
    candidate_ids[own] = key;
}
