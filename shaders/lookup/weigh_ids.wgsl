// The bag of each row of ids, and the weight of its id of one feature, as bits: that of the caller, or one over the number of ids that
// count in the bag's mean.
//
// One thread per row.

struct WeighIdsParams {
    groups: u32,
    grid_width: u32,
    rows: u32,
    bags: u32,
    features: u32,
    feature: u32,
    weights_base: u32,
    // `weights` are counts, one for each bag.
    mean: u32,
}
@group(0) @binding(0) var<uniform> params: WeighIdsParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group_index(id) * 64u + thread;
    if row >= params.rows {
        return;
    }
    let bag = bag_of(row);
    var weight = 0.0;
    if params.mean == 1u {
        weight = 1.0 / weights[params.weights_base + bag];
    } else {
        weight = weights[params.weights_base + row * params.features + params.feature];
    }
    out[row] = vec2<u32>(bag, bitcast<u32>(weight));
}
