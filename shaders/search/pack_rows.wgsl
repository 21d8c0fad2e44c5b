// Packs the candidates' rows for search/rows.wgsl: widened to f32, decoded (INT8: value = scale[m]·code + offset[m]), and
// transposed in blocks of 4 × 4, so that the product of a vec4 of a behaviour with a block gives four scores.
//
//     packed[(tile · (width4 + 1) + k) · tile_rows + r] = 2^i · q[m, 4k .. 4k + 4]        2^i with cosines alone
//     packed[(tile · (width4 + 1) + width4) · tile_rows + r] = [factor[m], 0, 0, 0]
//
// One thread writes one vec4 of one candidate. Rows that a tile does not have remain zeros. Powers and factors come from
// search/lengths.wgsl where `has_lengths` is set; otherwise all candidates have the given factor.

struct SearchPackRowsParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    width: u32,
    rows_base: u32,
    scale_base: u32,
    offset_base: u32,
    factor: f32,
    tile_rows: u32,
    has_lengths: u32,
}
@group(0) @binding(0) var<uniform> params: SearchPackRowsParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let width4 = (params.width + 3u) / 4u;
    let r = index % params.tile_rows;
    let k = index / params.tile_rows % (width4 + 1u);
    let tile = index / (params.tile_rows * (width4 + 1u));
    let rows_of_tile = tiles[2u * tile];
    if r >= rows_of_tile.z {
        return;
    }
    let m = rows_of_tile.x + rows_of_tile.y + r;
    var factors = vec2<f32>(1.0, params.factor);
    if params.has_lengths == 1u {
        factors = lengths[m];
    }
    if k == width4 {
        packed[index] = vec4<f32>(factors.y, 0.0, 0.0, 0.0);
        return;
    }
    let left = params.width - 4u * k;
    var value = rows_vec4(params.rows_base + m * params.width + 4u * k, left);
    if INT8 == 1u {
        value = scale[params.scale_base + m] * value + offset[params.offset_base + m];
        // The offset must not be added past the end of the row.
        value = select(vec4<f32>(), value, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(left));
    }
    packed[index] = factors.x * value;
}
