// Packs the candidates' words for search/words.wgsl, the same word of all candidates of a tile together:
//
//     packed[(tile · words + w) · tile_rows + r] = q[m, w]
//
// One thread per word. Bits past the width become 0. Rows that a tile does not have remain zeros.

struct SearchPackWordsParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    words: u32,
    last_mask: u32,
    rows_base: u32,
    tile_rows: u32,
}
@group(0) @binding(0) var<uniform> params: SearchPackWordsParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let r = index % params.tile_rows;
    let w = index / params.tile_rows % params.words;
    let tile = index / (params.tile_rows * params.words);
    let rows_of_tile = tiles[2u * tile];
    if r >= rows_of_tile.z {
        return;
    }
    let m = rows_of_tile.x + rows_of_tile.y + r;
    let mask = select(0xffffffffu, params.last_mask, w + 1u == params.words);
    packed[index] = rows_at(params.rows_base + m * params.words + w) & mask;
}
