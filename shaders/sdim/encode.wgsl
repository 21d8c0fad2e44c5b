// Bucket sums of histories: T[b,g,c,:] = Σ_{l of user b, sig[l,g] = c} s_l.
//
// One workgroup of 64 threads processes one piece of a history, 64 columns and as many groups as fit. Each thread
// owns a column: it reads the behaviours in order and adds each element to the bucket of its signature, without
// synchronisation. One load of a behaviour serves all groups of the workgroup.
// A piece of a longer history writes a table of its own to `partial`; sdim/combine_tables.wgsl adds them up in order.
// Variants: IN_MEMORY 0 keeps the buckets in workgroup memory (12 KiB: groups · 2^τ is at most 48); IN_MEMORY 1 adds
// directly to the table (or to the table of the piece), one group per workgroup, for larger tables; these must be
// zero beforehand.

struct SdimEncodeParams {
    groups: u32,
    grid_width: u32,
    first_piece: u32,
    first_history: u32,
    width: u32,
    hash_groups: u32,
    buckets: u32,
    // Groups per workgroup.
    group_tile: u32,
    rows_base: u32,
    codes_base: u32,
    table_base: u32,
    append: u32,
}
@group(0) @binding(0) var<uniform> params: SdimEncodeParams;

var<workgroup> sums: array<f32, 3072>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = group_index(id);
    if group >= params.groups {
        return;
    }
    let column_tiles = (params.width + 63u) / 64u;
    let group_tiles = (params.hash_groups + params.group_tile - 1u) / params.group_tile;
    let column = group % column_tiles * 64u + thread;
    let first_group = group / column_tiles % group_tiles * params.group_tile;
    let piece = params.first_piece + group / (column_tiles * group_tiles);
    let user = pieces[2u * piece].x;
    let span = pieces[2u * piece + 1u];
    let count = min(params.group_tile, params.hash_groups - first_group);
    // There are no barriers below: a thread accesses its own column only.
    if column >= params.width {
        return;
    }
    let table_row = (user * params.hash_groups + first_group) * params.buckets;
    let piece_row = (span.z * params.hash_groups + first_group) * params.buckets;
    if IN_MEMORY == 0u {
        for (var i = 0u; i < count * params.buckets; i++) {
            sums[i * 64u + thread] = 0.0;
        }
    }
    for (var l = span.x; l < span.y; l++) {
        let row = l - params.first_history;
        let x = rows_at(params.rows_base + row * params.width + column);
        for (var g = 0u; g < count; g++) {
            let code = codes_at(params.codes_base + row * params.hash_groups + first_group + g);
            // A given signature may be out of range; another kernel reports it.
            if code < params.buckets {
                let bucket = g * params.buckets + code;
                if IN_MEMORY == 0u {
                    sums[bucket * 64u + thread] += x;
                } else if span.z != NONE {
                    partial[(piece_row + bucket) * params.width + column] += x;
                } else {
                    table[params.table_base + (table_row + bucket) * params.width + column] += x;
                }
            }
        }
    }
    if IN_MEMORY == 0u {
        for (var i = 0u; i < count * params.buckets; i++) {
            let sum = sums[i * 64u + thread];
            if span.z != NONE {
                partial[(piece_row + i) * params.width + column] = sum;
            } else {
                let place = params.table_base + (table_row + i) * params.width + column;
                if params.append == 1u {
                    table[place] += sum;
                } else {
                    table[place] = sum;
                }
            }
        }
    }
}
