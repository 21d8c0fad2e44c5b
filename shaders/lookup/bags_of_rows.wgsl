// The bag of each row of ids, and the weight that it gives its rows, as bits: 1, or 1 over the length of the bag for means.
//
// One thread per row. The bag is the last that begins no later: empty ones come before it.

struct BagsOfRowsParams {
    groups: u32,
    grid_width: u32,
    rows: u32,
    bags: u32,
    mean: u32,
}
@group(0) @binding(0) var<uniform> params: BagsOfRowsParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group_index(id) * 64u + thread;
    if row >= params.rows {
        return;
    }
    var low = 0u;
    var high = params.bags;
    while high - low > 1u {
        let middle = low + (high - low) / 2u;
        if offsets[middle] <= row {
            low = middle;
        } else {
            high = middle;
        }
    }
    var weight = 1.0;
    if params.mean == 1u {
        weight = 1.0 / f32(max(offsets[low + 1u] - offsets[low], 1u));
    }
    out[row] = vec2<u32>(low, bitcast<u32>(weight));
}
