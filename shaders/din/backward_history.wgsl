// Gradients of behaviours in DIN's backward pass: ds_l = Σ_m (w·grad_out + ((W_k − W_d) + W_p·diag(q))ᵀ·dy) over the candidates of
// the user, in order.
//
// One workgroup of 64 threads computes 64 columns of 16 behaviours (a block); a thread four of both. Blocks of users without
// candidates are zeros. Where the candidates of a user are in several parts, later parts add to what is there.

struct DinBackwardHistoryParams {
    groups: u32,
    grid_width: u32,
    pieces: u32,
    first_piece: u32,
    width: u32,
    column_groups: u32,
    units: u32,
    // Of a tile, and of dy in it; of a candidate.
    tile: u32,
    grads: u32,
    candidate: u32,
    // W_k − W_d and W_p in the network, with a row for each unit.
    keys: u32,
    products: u32,
    adds: u32,
    out_base: u32,
}
@group(0) @binding(0) var<uniform> params: DinBackwardHistoryParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = group_index(id);
    let width4 = (params.width + 3u) / 4u;
    let column4 = group % params.column_groups * 16u + thread % 16u;
    if group >= params.groups || column4 >= width4 {
        return;
    }
    let quad = thread / 16u;
    let block = group / params.column_groups;
    let index = piece_of(block, BLOCK);
    let piece = rows_of_piece(index);
    let places = places_of_piece(index);
    let tiles = tiles_per_run(piece);
    let first = 16u * (block - places[BLOCK]) + 4u * quad;
    var sums = mat4x4<f32>();
    for (var m = 0u; m < piece.w; m++) {
        let tile = places[TILE] + m * tiles + block - places[BLOCK];
        let candidate = (piece.z + m) * params.candidate + column4;
        let q = candidates[candidate];
        let grad_out = candidates[candidate + width4];
        var own = mat4x4<f32>();
        for (var unit = 0u; unit < params.units; unit++) {
            let at = unit * width4 + column4;
            let w = network[params.keys + at] + q * network[params.products + at];
            let dy = work[tile * params.tile + params.grads + ROWS4 * unit + quad];
            own[0] += dy.x * w; own[1] += dy.y * w; own[2] += dy.z * w; own[3] += dy.w * w;
        }
        let weight = pair_numbers[8u * tile + quad];
        let kept = pair_numbers[8u * tile + 4u + quad];
        for (var i = 0u; i < 4u; i++) {
            // Nothing of a pair that is removed, whatever the candidate holds.
            if kept[i] > 0.0 {
                sums[i] += own[i] + weight[i] * grad_out;
            }
        }
    }
    for (var i = 0u; i < 4u; i++) {
        for (var c = 0u; c < 4u; c++) {
            let column = 4u * column4 + c;
            if first + i < piece.y && column < params.width {
                let at = params.out_base + (piece.x + first + i) * params.width + column;
                out[at] = select(0.0, out[at], params.adds == 1u) + sums[i][c];
            }
        }
    }
}
