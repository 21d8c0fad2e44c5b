// Writes the ids, starts and positions of keys in order, and the number of ids.
//
// One workgroup per block of 1024 keys; a thread owns 16 consecutive ones. `counts` has the heads of earlier blocks, `totals` all of
// them. Keys of no row of the table come last and are left out.

struct SortRunsParams {
    groups: u32,
    grid_width: u32,
    length: u32,
    rows: u32,
    ids_base: u32,
    starts_base: u32,
    positions_base: u32,
    count_base: u32,
}
@group(0) @binding(0) var<uniform> params: SortRunsParams;

var<workgroup> sums: array<u32, 64>;

fn is_head(place: u32) -> bool {
    let key = keys[place];
    return key < params.rows && (place == 0u || keys[max(place, 1u) - 1u] != key);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let block = group_index(id);
    let runs = totals[0];
    if block == 0u && thread == 0u {
        count[params.count_base] = runs;
        if runs == 0u {
            starts[params.starts_base] = 0u;
        }
    }
    let first = block * 1024u + thread * 16u;
    let end = min(first + 16u, max(params.length, first));
    var own = 0u;
    for (var place = first; place < end; place++) {
        own += select(0u, 1u, is_head(place));
    }
    sums[thread] = own;
    workgroupBarrier();
    for (var distance = 1u; distance < 64u; distance *= 2u) {
        var sum = sums[thread];
        if thread >= distance {
            sum += sums[thread - distance];
        }
        workgroupBarrier();
        sums[thread] = sum;
        workgroupBarrier();
    }
    var run = sums[thread] - own;
    if first < end {
        run += counts[block];
    }
    for (var place = first; place < end; place++) {
        if is_head(place) {
            ids[params.ids_base + run] = keys[place];
            starts[params.starts_base + run] = place;
            run++;
        }
        let is_row = keys[place] < params.rows;
        let is_last = place + 1u == params.length || keys[min(place + 1u, params.length - 1u)] >= params.rows;
        if is_row && is_last {
            starts[params.starts_base + runs] = place + 1u;
        }
    }
    for (var step = 0u; step < 16u; step++) {
        let place = block * 1024u + step * 64u + thread;
        if place < params.length && keys[min(place, max(params.length, 1u) - 1u)] < params.rows {
            positions[params.positions_base + place] = from_positions[place];
        }
    }
}
