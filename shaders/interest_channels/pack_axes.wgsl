// Packs the axes of candidates for interest_channels/search.wgsl, as search/pack_rows.wgsl packs candidates: transposed in blocks of
// 4 × 4. A candidate has `blocks` tiles of `tile_rows` axes each:
//
//     packed[(tile · (width4 + 1) + k) · tile_rows + r] = O[m, i, 4k .. 4k + 4]               tile = m · blocks + i / tile_rows
//     packed[(tile · (width4 + 1) + width4) · tile_rows + r] = [1 or 0, 0, 0, 0]             whether there is a channel i
//
// One thread writes one vec4 of one axis. Rows that a tile does not have remain zeros.

struct ChannelPackParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    channels: u32,
    width: u32,
    blocks: u32,
    tile_rows: u32,
}
@group(0) @binding(0) var<uniform> params: ChannelPackParams;

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
    let i = tile % params.blocks * params.tile_rows + r;
    if i >= params.channels {
        return;
    }
    let axis = tile / params.blocks * params.channels + i;
    if k == width4 {
        packed[index] = vec4<f32>(select(0.0, 1.0, states[axis].x == CHANNEL), 0.0, 0.0, 0.0);
        return;
    }
    packed[index] = axes_vec4(axis * params.width + 4u * k, params.width - 4u * k);
}
