// The output of channels, from the sums of what they keep: out[list,:] = r, or r / max(‖r‖, 1e-12) with `normalise`. NaN for a candidate
// whose axes are not finite.
//
// One workgroup of 64 threads per list, each of which computes the length (search/row_length.wgsl).

struct ChannelFinishParams {
    groups: u32,
    grid_width: u32,
    width: u32,
    // Of the dispatch, among those of the whole batch.
    first_list: u32,
    out_base: u32,
    normalise: u32,
}
@group(0) @binding(0) var<uniform> params: ChannelFinishParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let list = group_index(id);
    if list >= params.groups {
        return;
    }
    let row = list * params.width;
    var length = vec2<f32>(1.0);
    if params.normalise == 1u {
        length = length_of(row);
    }
    var nan = 0x7fc00000u;
    let is_finite = states[params.first_list + list].x != NOT_FINITE;
    for (var k = thread; k < params.width; k += 64u) {
        let number = length.y * (length.x * rows_at(row + k));
        out[params.out_base + row + k] = select(bitcast<f32>(nan), number, is_finite);
    }
}
