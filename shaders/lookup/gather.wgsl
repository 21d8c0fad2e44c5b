// Reads table rows by id: out[i, first_column..] = f · R[ids[i, feature]], summed or averaged over bags of ids.
//
// One thread writes four columns of one row of the output; neighbours read neighbouring columns. A bag's rows are
// added in their order. The bounds check is one comparison: an id outside the table reads nothing and counts as zeros,
// and where that is asked for the lowest place of one is noted (an integer minimum: the order of threads is no matter).
// INT8: value = scale[id]·code + offset[id].

struct Params {
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
    // How rows are pooled.
    pooling: u32,
    // What happens with the result.
    store: u32,
    factor: f32,
    // Whether unknown ids are noted, and what is added to their place among these ids.
    check_ids: u32,
    first_place: u32,
}
@group(0) @binding(0) var<uniform> params: Params;

const EACH: u32 = 0u;
const MEAN: u32 = 2u;
// Instead of overwriting, multiplies what is there.
const MULTIPLY: u32 = 1u;

fn table_four(row: u32, column: u32) -> vec4<f32> {
    let place = row * params.features + params.feature;
    let id = ids[params.ids_base + place];
    if id >= params.table_rows {
        if params.check_ids == 1u {
            atomicMin(&report[0], params.first_place + place);
        }
        return vec4<f32>();
    }
    let four = table_data_four(params.table_base + id * params.width + column, params.width - column);
    if INT8 == 1u {
        return scale[params.scale_base + id] * four + offset[params.offset_base + id];
    }
    return four;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let fours = (params.width + 3u) / 4u;
    let row = index / fours;
    let column = index % fours * 4u;
    var four = vec4<f32>();
    if params.pooling == EACH {
        four = table_four(row, column);
    } else {
        let end = offsets[row + 1u];
        for (var l = offsets[row]; l < end; l++) {
            four += table_four(l, column);
        }
        if params.pooling == MEAN {
            four /= f32(max(end - offsets[row], 1u));
        }
    }
    four *= params.factor;
    let place = params.out_base + row * params.out_width + params.first_column + column;
    let left = params.width - column;
    store(place, four.x);
    if left > 1u { store(place + 1u, four.y); }
    if left > 2u { store(place + 2u, four.z); }
    if left > 3u { store(place + 3u, four.w); }
}

fn store(place: u32, value: f32) {
    if params.store == MULTIPLY {
        out[place] *= value;
    } else {
        out[place] = value;
    }
}
