// The gradient of the weights of one feature's ids: out[row, feature] = ⟨R[ids[row, feature]], grad[bag of the row]⟩, or that added to it.
//
// Eight threads per id, each of which multiplies every eighth vec4; 64 of its products are added up before their sum is added to the
// others. An id outside the table has no gradient. INT8: value = scale[id]·code + offset[id].

struct WeightGradientParams {
    groups: u32,
    grid_width: u32,
    rows: u32,
    ids_base: u32,
    features: u32,
    feature: u32,
    table_rows: u32,
    width: u32,
    table_base: u32,
    scale_base: u32,
    offset_base: u32,
    grad_base: u32,
    grad_width: u32,
    first_column: u32,
    out_base: u32,
    // Add to the output instead of overwriting it.
    adds: u32,
}
@group(0) @binding(0) var<uniform> params: WeightGradientParams;

const LANES: u32 = 8u;
// Numbers that the threads of an id multiply before the sums of a block are added to the others.
const BLOCK: u32 = 2048u;

var<workgroup> sums: array<f32, 64>;

fn table_vec4(id: u32, column: u32) -> vec4<f32> {
    let value = table_data_vec4(params.table_base + id * params.width + column, params.width - column);
    if INT8 == 1u {
        return scale[params.scale_base + id] * value + offset[params.offset_base + id];
    }
    return value;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group_index(group) * (64u / LANES) + thread / LANES;
    let lane = thread % LANES;
    let place = row * params.features + params.feature;
    var sum = 0.0;
    if row < params.rows {
        let id = ids[params.ids_base + place];
        if id < params.table_rows {
            let grads = params.grad_base + bags[row].x * params.grad_width + params.first_column;
            for (var block = 0u; block < params.width; block += BLOCK) {
                var of_block = 0.0;
                for (var column = block + 4u * lane; column < min(block + BLOCK, params.width); column += 4u * LANES) {
                    // Past the end of the row both are zeros, but for the offset of an int8 row.
                    of_block += dot(table_vec4(id, column), grad_vec4(grads + column, params.width - column));
                }
                sum += of_block;
            }
        }
    }
    sums[thread] = sum;
    workgroupBarrier();
    if lane == 0u && row < params.rows {
        var total = 0.0;
        for (var other = 0u; other < LANES; other++) {
            total += sums[thread + other];
        }
        if params.adds == 1u {
            total += out[params.out_base + place];
        }
        out[params.out_base + place] = total;
    }
}
