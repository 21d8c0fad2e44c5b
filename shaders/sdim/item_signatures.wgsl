// Signatures of rows from those of their items: out[i,g] = signatures[ids[i],g].
//
// One thread per row and group; neighbouring threads share a row. A dispatch sees a window of the items, and writes the rows whose item
// is in it. The output is zeros before: a row without an item, which another kernel reports, has signatures of zeros. A signature of too
// many bits is reported by its place among those of all items, and is taken for 0.

struct SdimItemSignaturesParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    hash_groups: u32,
    buckets: u32,
    ids_base: u32,
    signatures_base: u32,
    // The items of the window.
    first_item: u32,
    items: u32,
}
@group(0) @binding(0) var<uniform> params: SdimItemSignaturesParams;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let g = index % params.hash_groups;
    let item = ids[params.ids_base + index / params.hash_groups];
    // Items before the window are far after it.
    let place = item - params.first_item;
    if place >= params.items {
        return;
    }
    let signature = signatures_at(params.signatures_base + place * params.hash_groups + g);
    if signature >= params.buckets {
        atomicMin(&report[0], item * params.hash_groups + g);
    } else {
        out[index] = signature;
    }
}
