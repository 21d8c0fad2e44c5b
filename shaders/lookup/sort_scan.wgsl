// Replaces each row of counts by the sums of those before, and writes the sum of the row: counts [rows, blocks], totals [rows].
//
// One workgroup per row, 256 counts at a time, four of them per thread.

struct SortScanParams {
    groups: u32,
    grid_width: u32,
    blocks: u32,
}
@group(0) @binding(0) var<uniform> params: SortScanParams;

var<workgroup> sums: array<u32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group_index(id);
    let start = row * params.blocks;
    var before = 0u;
    for (var begin = 0u; begin < params.blocks; begin += 256u) {
        let first = begin + thread * 4u;
        var own = 0u;
        for (var i = first; i < min(first + 4u, params.blocks); i++) {
            own += counts[start + i];
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
        var sum = before + sums[thread] - own;
        before += sums[63];
        for (var i = first; i < min(first + 4u, params.blocks); i++) {
            let count = counts[start + i];
            counts[start + i] = sum;
            sum += count;
        }
        workgroupBarrier();
    }
    if thread == 0u && row < params.groups {
        totals[row] = before;
    }
}
