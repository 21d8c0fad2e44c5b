// The products of a list's row with the behaviours that it keeps: products[list,k] = ⟨row, e⟩/L, as bits; NONE where a slot keeps nothing.
// The row is the axis of a channel, or the gradient of its sum.
//
// One workgroup of 64 threads per list and part of its slots (selected/parts.wgsl, with one head). `lanes` threads, a power of two up to
// 16, share a slot: neighbouring threads read neighbouring columns. Then every thread adds up what was found of one slot.

struct ChannelProductsParams {
    groups: u32,
    grid_width: u32,
    heads: u32,
    kv_heads: u32,
    top_k: u32,
    parts: u32,
    part: u32,
    width: u32,
    lanes: u32,
    // Of the dispatch, among those of the whole batch.
    first_list: u32,
    rows_base: u32,
    // The row of the first list of the dispatch, among `vectors`.
    vectors_base: u32,
}
@group(0) @binding(0) var<uniform> params: ChannelProductsParams;

const BLOCK: u32 = 64u;
// Sums of a slot: those of 16 lanes, padded so that threads that add up their own slots use different banks.
const STRIDE: u32 = 17u;

var<workgroup> lane_sums: array<f32, 1088>;

fn multiply_rows(part: Part, block: u32, thread: u32) {
    let lanes = params.lanes;
    let lane = thread % lanes;
    let vector = params.vectors_base + part.candidate * params.width;
    for (var s = thread / lanes; s < BLOCK; s += BLOCK / lanes) {
        var sum = 0.0;
        if block + s < part.count && slot_rows[block + s] != NONE {
            let row = params.rows_base + slot_rows[block + s] * params.width;
            var sums = vec4<f32>();
            for (var c = 4u * lane; c < params.width; c += 4u * lanes) {
                sums += vectors_vec4(vector + c, params.width - c) * rows_vec4(row + c, params.width - c);
            }
            sum = (sums.x + sums.y) + (sums.z + sums.w);
        }
        lane_sums[s * STRIDE + lane] = sum;
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = group_index(id);
    if group >= params.groups {
        return;
    }
    let part = part_of(group);
    load_rows(part, thread);
    let history = tiles[2u * (params.first_list + part.candidate) + 1u].zw;
    let length = f32(max(history.y - history.x, 1u));
    for (var block = 0u; block < params.part; block += BLOCK) {
        multiply_rows(part, block, thread);
        workgroupBarrier();
        let slot = block + thread;
        if slot < part.count {
            var sum = 0.0;
            for (var lane = 0u; lane < params.lanes; lane++) {
                sum += lane_sums[thread * STRIDE + lane];
            }
            products[part.first + slot] = select(bitcast<u32>(sum / length), NONE, slot_rows[slot] == NONE);
        }
        workgroupBarrier();
    }
}
