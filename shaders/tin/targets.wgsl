// Rows of candidates with those of their positions: ṽ_m = v_m + p[f(m)], in f32.
//
// One thread per number.

struct TinTargetsParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    width: u32,
    targets_base: u32,
    positions_base: u32,
    places_base: u32,
    // Whether positions are given: otherwise they are 0.
    has_places: u32,
    last_position: u32,
}
@group(0) @binding(0) var<uniform> params: TinTargetsParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    var position = 0u;
    if params.has_places == 1u {
        // A given position may be outside the table; another kernel reports it.
        position = min(places[params.places_base + index / params.width], params.last_position);
    }
    let added = positions_at(params.positions_base + position * params.width + index % params.width);
    out[index] = targets_at(params.targets_base + index) + added;
}
