// Adds up the bucket tables of the pieces of a history, 32 at a time, then these sums. One thread per element of the
// table.

struct SdimCombineTablesParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    // Elements of one user's table.
    size: u32,
    table_base: u32,
    append: u32,
}
@group(0) @binding(0) var<uniform> params: SdimCombineTablesParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let tile = index / params.size;
    let place = index % params.size;
    // The row of results of the user.
    let slot = split_tiles[2u * tile].x;
    let parts = split_tiles[2u * tile + 1u];
    var sum = 0.0;
    for (var first = 0u; first < parts.y; first += 32u) {
        var block = 0.0;
        for (var i = first; i < min(first + 32u, parts.y); i++) {
            block += partial[(parts.x + i) * params.size + place];
        }
        sum += block;
    }
    let at = params.table_base + slot * params.size + place;
    if params.append == 1u {
        table[at] += sum;
    } else {
        table[at] = sum;
    }
}
