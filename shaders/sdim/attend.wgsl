// Bucket sums of one candidate without a table: S[m,g,:] = Σ_{l: sig[l,g] = sig[m,g]} s_l.
//
// Used where there are many buckets and few behaviours in each. One workgroup of 64 threads computes 32 groups and 64
// columns of one candidate over one piece of the history, 64 behaviours at a time: each thread compares all groups of
// one behaviour and stores a mask of those that match; then each thread adds one column of the behaviours whose mask
// is not zero. shared/sum_parts.wgsl adds up the pieces; sdim/query.wgsl normalises, and averages. Workgroup memory: 8 KiB + 256 bytes.

struct SdimAttendParams {
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
    // Behaviours of each piece that earlier dispatches have added, and that this one adds at most.
    skip: u32,
    most: u32,
}
@group(0) @binding(0) var<uniform> params: SdimAttendParams;

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
    let span = pieces[2u * piece + 1u];
    let count = min(32u, params.hash_groups - first_group);
    let target_code = params.target_codes_base + (rows.x + rows.y) * params.hash_groups + first_group;
    for (var g = 0u; g < count; g++) {
        sums[g * 64u + thread] = 0.0;
    }
    let end = min(span.y, span.x + params.skip + params.most);
    for (var start = span.x + params.skip; start < end; start += 64u) {
        var mask = 0u;
        if start + thread < end {
            let row = start + thread - params.first_history;
            let code = params.codes_base + row * params.hash_groups + first_group;
            for (var g = 0u; g < count; g++) {
                mask |= select(0u, 1u << g, codes_at(code + g) == target_codes_at(target_code + g));
            }
        }
        masks[thread] = mask;
        workgroupBarrier();
        for (var i = 0u; i < min(64u, end - start); i++) {
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
        let place = select(span.z, params.first_whole + rows.w, span.z == NONE);
        for (var g = 0u; g < count; g++) {
            let at = (place * params.hash_groups + first_group + g) * params.width + column;
            out[at] = select(0.0, out[at], params.skip > 0u) + sums[g * 64u + thread];
        }
    }
}
