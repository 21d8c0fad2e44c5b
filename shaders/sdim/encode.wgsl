// Bucket sums of histories: T[b,g,c,:] = Σ_{l of user b, sig[l,g] = c} w_l·s_l; subtracted from what the table holds where
// `subtract` is not 0. Where `weighted` is 0, weights are 1 and are not read.
//
// One workgroup of 64 threads processes one piece of a history, 64 columns and as many groups as fit. Each thread
// owns a column: it reads the behaviours in order and adds each element to the bucket of its signature, without
// synchronisation. One load of a behaviour serves all groups of the workgroup.
// A piece of a longer history writes a table of its own to `partial`; sdim/combine_tables.wgsl adds them up.
// Sums are taken of at most PART behaviours, then of these, so that rounding does not grow with the history.
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
    // Behaviours of each piece that earlier dispatches have added, and that this one adds at most.
    skip: u32,
    most: u32,
    weights_base: u32,
    weighted: u32,
    subtract: u32,
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
    // The row of results of the user.
    let slot = pieces[2u * piece].x;
    let span = pieces[2u * piece + 1u];
    let count = min(params.group_tile, params.hash_groups - first_group);
    // There are no barriers below: a thread accesses its own column only.
    if column >= params.width {
        return;
    }
    // The first bucket of the workgroup: of the table of the piece, or of that in the user's slot.
    let is_piece = span.z != NONE;
    let first_bucket = (select(slot, span.z, is_piece) * params.hash_groups + first_group) * params.buckets;
    // Later parts are added to what earlier ones have written.
    var append = params.skip > 0u || (params.append == 1u && !is_piece);
    var start = span.x + params.skip;
    let last = min(span.y, start + params.most);
    if params.skip > 0u && start >= last {
        return;
    }
    loop {
        let end = min(start + PART, last);
        if IN_MEMORY == 0u {
            for (var i = 0u; i < count * params.buckets; i++) {
                sums[i * 64u + thread] = 0.0;
            }
        }
        // Without workgroup memory: the sum of consecutive behaviours of one bucket.
        var run = 0.0;
        var run_code = NONE;
        for (var l = start; l < end; l++) {
            let row = l - params.first_history;
            var x = rows_at(params.rows_base + row * params.width + column);
            if params.weighted > 0u {
                x *= weights[params.weights_base + row];
            }
            x = select(x, -x, params.subtract > 0u);
            for (var g = 0u; g < count; g++) {
                let code = codes_at(params.codes_base + row * params.hash_groups + first_group + g);
                if IN_MEMORY == 1u {
                    if code != run_code {
                        if run_code < params.buckets {
                            add(first_bucket + run_code, column, run, is_piece, true);
                        }
                        run = 0.0;
                        run_code = code;
                    }
                    run += x;
                } else if code < params.buckets {
                    // A given signature may be out of range; another kernel reports it.
                    sums[(g * params.buckets + code) * 64u + thread] += x;
                }
            }
        }
        if IN_MEMORY == 1u && run_code < params.buckets {
            add(first_bucket + run_code, column, run, is_piece, true);
        }
        if IN_MEMORY == 0u {
            for (var i = 0u; i < count * params.buckets; i++) {
                add(first_bucket + i, column, sums[i * 64u + thread], is_piece, append);
            }
        }
        append = true;
        start = end;
        if start >= last {
            break;
        }
    }
}

// Behaviours of a part.
const PART: u32 = 256u;

// Adds to a bucket of the table of the piece or of the user, or overwrites it.
fn add(bucket: u32, column: u32, x: f32, is_piece: bool, append: bool) {
    let place = bucket * params.width + column;
    if is_piece {
        partial[place] = select(0.0, partial[place], append) + x;
    } else {
        let at = params.table_base + place;
        table[at] = select(0.0, table[at], append) + x;
    }
}
