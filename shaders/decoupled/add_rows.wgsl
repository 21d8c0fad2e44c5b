// Adds the rows of ids in order to those of the same id, or clears as many rows as there are ids.
//
// One thread per number.

struct AddRowsParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    width: u32,
    out_base: u32,
    // The place of a row is its id, and not that of the id among `out_ids`.
    dense: u32,
    is_clear: u32,
}
@group(0) @binding(0) var<uniform> params: AddRowsParams;

fn place_of(id: u32) -> u32 {
    if params.dense == 1u {
        return id;
    }
    var low = 0u;
    var high = out_count[0];
    while high - low > 1u {
        let middle = low + (high - low) / 2u;
        if out_ids[middle] <= id {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let row = index / params.width;
    if params.is_clear == 1u {
        if row < out_count[0] {
            out[params.out_base + index] = 0.0;
        }
        return;
    }
    if row >= count[0] {
        return;
    }
    let place = params.out_base + place_of(ids[row]) * params.width + index % params.width;
    out[place] += rows[index];
}
