// The gradients of behaviours without tables: ds_l = Σ_{m,g: sig[m,g] = sig[l,g]} dS[m,g,:].
//
// One workgroup of 64 threads computes 64 columns of one behaviour. 2048 signatures of the user's candidates at a time: each
// thread compares every 64th of them and stores a mask of those that match; then each thread adds one column of the rows whose
// bits are set. Sums are taken of the rows of 2048 signatures, then of these, always in the same order. Workgroup memory: 256 bytes.

struct SdimMatchParams {
    groups: u32,
    grid_width: u32,
    // The first behaviour of the output.
    first_row: u32,
    users: u32,
    width: u32,
    hash_groups: u32,
    codes_base: u32,
    target_codes_base: u32,
    out_base: u32,
    // Signatures of each user's candidates that earlier dispatches have compared, and that this one compares at most.
    skip: u32,
    most: u32,
}
@group(0) @binding(0) var<uniform> params: SdimMatchParams;

// Signatures compared at a time.
const BLOCK: u32 = 2048u;

var<workgroup> masks: array<u32, 64>;

fn user_of(row: u32) -> u32 {
    var low = 0u;
    var high = params.users;
    while high - low > 1u {
        let middle = (low + high) / 2u;
        if offsets[middle] <= row { low = middle; } else { high = middle; }
    }
    return low;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = group_index(id);
    if group >= params.groups {
        return;
    }
    let column_tiles = (params.width + 63u) / 64u;
    let own_row = group / column_tiles;
    let row = params.first_row + own_row;
    let column = group % column_tiles * 64u + thread;
    let user = user_of(row);
    // Candidates times groups.
    let last = target_offsets[user + 1u] * params.hash_groups;
    let first = target_offsets[user] * params.hash_groups + params.skip;
    let end = min(last, first + params.most);
    let own_codes = params.codes_base + row * params.hash_groups;
    var sum = 0.0;
    for (var start = first; start < end; start += BLOCK) {
        var mask = 0u;
        for (var bit = 0u; bit < 32u; bit++) {
            let at = start + bit * 64u + thread;
            if at < end {
                let same = target_codes_at(params.target_codes_base + at) == codes_at(own_codes + at % params.hash_groups);
                mask |= select(0u, 1u << bit, same);
            }
        }
        masks[thread] = mask;
        workgroupBarrier();
        var block = 0.0;
        for (var i = 0u; i < 64u; i++) {
            var left = masks[i];
            while left != 0u && column < params.width {
                block += grads[(start + firstTrailingBit(left) * 64u + i) * params.width + column];
                left &= left - 1u;
            }
        }
        sum += block;
        workgroupBarrier();
    }
    if column < params.width {
        let at = params.out_base + own_row * params.width + column;
        out[at] = select(0.0, out[at], params.skip > 0u) + sum;
    }
}
