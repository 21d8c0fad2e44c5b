// Reads the candidates' rows of one table by id and packs them for decoupled/search.wgsl: scaled, widened to f32, and
// transposed in blocks of 4 × 4, so that the product of a vec4 of a behaviour with a block gives four scores.
//
//     packed[(tile · width4 + first4 + k) · tile_rows + r] = factor · A_f[ids[m,f], 4k .. 4k + 4]
//
// One thread writes one vec4 of one candidate. Rows that a tile does not have remain zeros. An id outside the table
// counts as a row of zeros; if `check_ids` is set, the lowest position of such an id is reported.
// INT8: value = scale[id]·code + offset[id].

struct SearchQueriesParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    ids_base: u32,
    features: u32,
    feature: u32,
    table_rows: u32,
    width: u32,
    table_base: u32,
    scale_base: u32,
    offset_base: u32,
    factor: f32,
    // vec4s of a packed candidate, and the first of this table.
    width4: u32,
    first4: u32,
    tile_rows: u32,
    check_ids: u32,
}
@group(0) @binding(0) var<uniform> params: SearchQueriesParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let width4 = (params.width + 3u) / 4u;
    let r = index % params.tile_rows;
    let k = index / params.tile_rows % width4;
    let tile = index / (params.tile_rows * width4);
    let rows = tiles[2u * tile];
    if r >= rows.z {
        return;
    }
    let place = (rows.x + rows.y + r) * params.features + params.feature;
    let row = ids[params.ids_base + place];
    if row >= params.table_rows {
        if params.check_ids == 1u {
            atomicMin(&report[0], place);
        }
        return;
    }
    let left = params.width - 4u * k;
    var value = table_data_vec4(params.table_base + row * params.width + 4u * k, left);
    if INT8 == 1u {
        value = scale[params.scale_base + row] * value + offset[params.offset_base + row];
        // The offset must not be added past the end of the row.
        value = select(vec4<f32>(), value, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(left));
    }
    packed[(tile * params.width4 + params.first4 + k) * params.tile_rows + r] = params.factor * value;
}
