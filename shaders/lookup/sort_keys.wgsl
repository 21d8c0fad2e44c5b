// The keys of a column of ids: key[first + i] = ids[i, feature], or `rows` for an id outside the table, which sorts after all others.
//
// One thread per key. If `check_ids` is set, the lowest place of an id outside is reported.

struct SortKeysParams {
    groups: u32,
    grid_width: u32,
    length: u32,
    ids_base: u32,
    features: u32,
    feature: u32,
    rows: u32,
    first: u32,
    check_ids: u32,
}
@group(0) @binding(0) var<uniform> params: SortKeysParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.length {
        return;
    }
    let place = index * params.features + params.feature;
    var key = ids[params.ids_base + place];
    if key >= params.rows {
        if params.check_ids == 1u {
            atomicMin(&report[0], place);
        }
        key = params.rows;
    }
    keys[params.first + index] = key;
}
