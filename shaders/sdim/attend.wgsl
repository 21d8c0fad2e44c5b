// Bucket sums of one candidate without a table: S[m,g,:] = Σ_{l: sig[l,g] = sig[m,g]} s_l.
//
// For many buckets and few behaviours in each. One workgroup of 64 threads takes one candidate against a piece of the
// history, 32 groups and 64 columns. For 64 behaviours at a time, a thread a behaviour compares all groups and leaves
// a mask of those that agree; then a thread a column adds the few behaviours that have a bit. sdim/query.wgsl adds
// the pieces, normalises and takes the mean. Workgroup memory: 8 KiB + 256 bytes.

struct Params {
    groups: u32,
    grid_width: u32,
    first_piece: u32,
    first_history: u32,
    width: u32,
    hash_groups: u32,
    rows_base: u32,
    codes_base: u32,
    target_codes_base: u32,
    first_whole: u32,
}
@group(0) @binding(0) var<uniform> params: Params;

var<workgroup> sums: array<f32, 2048>;
var<workgroup> masks: array<u32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = group_index(id);
    if group >= params.groups {
        return;
    }
    let column_tiles = (params.width + 63u) / 64u;
    let group_tiles = (params.hash_groups + 31u) / 32u;
    let column = group % column_tiles * 64u + thread;
    let first_group = group / column_tiles % group_tiles * 32u;
    let piece = params.first_piece + group / (column_tiles * group_tiles);
    let rows = pieces[2u * piece];
    let part = pieces[2u * piece + 1u];
    let count = min(32u, params.hash_groups - first_group);
    let target_code = params.target_codes_base + (rows.x + rows.y) * params.hash_groups + first_group;
    for (var g = 0u; g < count; g++) {
        sums[g * 64u + thread] = 0.0;
    }
    for (var start = part.x; start < part.y; start += 64u) {
        var mask = 0u;
        if start + thread < part.y {
            let row = start + thread - params.first_history;
            let code = params.codes_base + row * params.hash_groups + first_group;
            for (var g = 0u; g < count; g++) {
                mask |= select(0u, 1u << g, codes_at(code + g) == target_codes_at(target_code + g));
            }
        }
        masks[thread] = mask;
        workgroupBarrier();
        for (var i = 0u; i < min(64u, part.y - start); i++) {
            var left = masks[i];
            if left != 0u && column < params.width {
                let row = start + i - params.first_history;
                let x = rows_at(params.rows_base + row * params.width + column);
                while left != 0u {
                    let g = firstTrailingBit(left);
                    sums[g * 64u + thread] += x;
                    left &= left - 1u;
                }
            }
        }
        workgroupBarrier();
    }
    if column < params.width {
        let place = select(part.z, params.first_whole + rows.w, part.z == NONE);
        for (var g = 0u; g < count; g++) {
            out[(place * params.hash_groups + first_group + g) * params.width + column] = sums[g * 64u + thread];
        }
    }
}
