// Reads table rows by id: out[i, first_column..] = f · R[ids[i, feature]], optionally summed or averaged over bags of
// ids.
//
// One thread writes four columns of one row of the output; neighbouring threads read neighbouring columns. The rows
// of a bag are added in order, 32 at a time, and then these sums; the host cuts long bags into parts, which
// shared/sum_parts.wgsl adds up. A mean whose sum overflows is taken of scaled rows. An id outside the table reads
// nothing and counts as zeros; if `check_ids` is set, the
// lowest position of such an id is reported (an atomic minimum, so the order of the threads does not matter). Weights of ids, and which
// ids count in a mean: `weighted` and `counted`, in gather_alike.wgsl or gather_weighted.wgsl.
// INT8: value = scale[id]·code + offset[id].

struct GatherParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    ids_base: u32,
    features: u32,
    feature: u32,
    table_rows: u32,
    width: u32,
    table_base: u32,
    scale_base: u32,
    offset_base: u32,
    out_base: u32,
    out_width: u32,
    first_column: u32,
    // EACH, sum or MEAN.
    pooling: u32,
    // MULTIPLY, or overwrite the output.
    store: u32,
    factor: f32,
    // Whether bad ids are reported, and what is added to their position in this binding of the ids.
    check_ids: u32,
    first_place: u32,
    // Of this feature's numbers, where ids have weights or do not all count.
    weights_base: u32,
}
@group(0) @binding(0) var<uniform> params: GatherParams;

const EACH: u32 = 0u;
const MEAN: u32 = 2u;
// Multiplies the output instead of overwriting it.
const MULTIPLY: u32 = 1u;

fn table_vec4(row: u32, column: u32) -> vec4<f32> {
    let place = row * params.features + params.feature;
    let id = ids[params.ids_base + place];
    if id >= params.table_rows {
        if params.check_ids == 1u {
            atomicMin(&report[0], params.first_place + place);
        }
        return vec4<f32>();
    }
    let value = table_data_vec4(params.table_base + id * params.width + column, params.width - column);
    if INT8 == 1u {
        return weighted(scale[params.scale_base + id] * value + offset[params.offset_base + id], place);
    }
    return weighted(value, place);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let width4 = (params.width + 3u) / 4u;
    let row = index / width4;
    let column = index % width4 * 4u;
    var value = vec4<f32>();
    if params.pooling == EACH {
        value = table_vec4(row, column);
    } else {
        let start = offsets[row];
        let end = offsets[row + 1u];
        value = sum_of(start, end, column, 1.0);
        if params.pooling == MEAN {
            let count = counted(row, end - start);
            if any(is_not_finite(value)) {
                // A power of two that is at least the count.
                let scale = bitcast<f32>((95u + countLeadingZeros(end - start)) << 23u);
                value = doubled(sum_of(start, end, column, scale) / (2.0 * scale * count));
            } else {
                value /= count;
            }
        }
    }
    value *= params.factor;
    let place = params.out_base + row * params.out_width + params.first_column + column;
    let left = params.width - column;
    store(place, value.x);
    if left > 1u { store(place + 1u, value.y); }
    if left > 2u { store(place + 2u, value.z); }
    if left > 3u { store(place + 3u, value.w); }
}

// The sum of the scaled rows of a bag.
fn sum_of(start: u32, end: u32, column: u32, scale: f32) -> vec4<f32> {
    var sum = vec4<f32>();
    for (var first = start; first < end; first += 32u) {
        var part = vec4<f32>();
        for (var l = first; l < min(first + 32u, end); l++) {
            part += scale * table_vec4(l, column);
        }
        sum += part;
    }
    return sum;
}

fn store(place: u32, value: f32) {
    if params.store == MULTIPLY {
        out[place] *= value;
    } else {
        out[place] = value;
    }
}
