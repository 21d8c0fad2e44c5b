// Folds one hidden layer of DIN's network into the form that din/attend.wgsl reads.
//
//     W₁·[q ; s ; q − s ; q ⊙ s] = (W_q + W_d)·q + ((W_k − W_d) + W_p·diag(q))·s
//
// so that a pair costs a quarter of the multiplications of the concatenation. The first layer stores W_q + W_d on its
// own (din/targets.wgsl multiplies it with each candidate once), and W_k − W_d and W_p side by side: din/attend.wgsl
// combines the two for the candidate at hand. The other layers keep their weights.
//
// It runs on every call, in the same submission as what follows: the content of a buffer may change between two
// calls, so an earlier result cannot be reused. It reads each weight once; din/attend.wgsl reads each once per tile
// of candidates and step of the history.
//
// One thread processes four inputs of one unit. Matrices are blocks of 4 × 4 whose columns are units, so that the
// product of four inputs of a pair with a block is four units; units and inputs past the end are zeros. The first
// threads also store what each unit has besides its weights: bias, gain, shift, alpha and output weight, five vectors
// per four units.

struct DinFoldParams {
    groups: u32,
    grid_width: u32,
    threads: u32,
    // The units and inputs of this layer; the weights of a first layer have four columns per input.
    units: u32,
    inputs: u32,
    is_first: u32,
    is_last: u32,
    activation: u32,
    weight_base: u32,
    bias_base: u32,
    gain_base: u32,
    shift_base: u32,
    alpha_base: u32,
    // 0 if all units share one alpha, otherwise 1.
    alpha_stride: u32,
    output_base: u32,
    // The first block of this layer, of W_q + W_d, and the first vector of this layer.
    first_block: u32,
    first_query_block: u32,
    first_vector: u32,
}
@group(0) @binding(0) var<uniform> params: DinFoldParams;

const PRELU: u32 = 2u;
const DICE: u32 = 3u;

// Writes the vectors of units unit .. unit + 4.
fn write_vectors(unit: u32) {
    var bias_vec4 = vec4<f32>(); var gain_vec4 = vec4<f32>(); var shift_vec4 = vec4<f32>();
    var alpha_vec4 = vec4<f32>(); var output_vec4 = vec4<f32>();
    for (var i = 0u; i < min(4u, params.units - unit); i++) {
        let u = unit + i;
        bias_vec4[i] = bias[params.bias_base + u];
        if params.activation == DICE {
            gain_vec4[i] = gain[params.gain_base + u];
            shift_vec4[i] = shift[params.shift_base + u];
        }
        if params.activation >= PRELU {
            alpha_vec4[i] = alpha[params.alpha_base + u * params.alpha_stride];
        }
        if params.is_last == 1u {
            output_vec4[i] = output_weight_at(params.output_base + u);
        }
    }
    let place = params.first_vector + unit / 4u * 5u;
    vectors[place] = bias_vec4;
    vectors[place + 1u] = gain_vec4;
    vectors[place + 2u] = shift_vec4;
    vectors[place + 3u] = alpha_vec4;
    vectors[place + 4u] = output_vec4;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = group_index(id) * 64u + thread;
    if index >= params.threads {
        return;
    }
    let inputs4 = (params.inputs + 3u) / 4u;
    let units4 = (params.units + 3u) / 4u;
    if index < units4 {
        write_vectors(4u * index);
    }
    // The block, and the column (unit) in it.
    let block = index / 4u;
    let c = index % 4u;
    let unit = block / inputs4 * 4u + c;
    let k = block % inputs4 * 4u;
    let live = unit < params.units;
    let left = params.inputs - k;
    if params.is_first == 0u {
        var value = vec4<f32>();
        if live {
            value = weight_vec4(params.weight_base + unit * params.inputs + k, left);
        }
        blocks[4u * (params.first_block + block) + c] = value;
        return;
    }
    var query = vec4<f32>(); var key = vec4<f32>(); var product = vec4<f32>();
    if live {
        let place = params.weight_base + unit * 4u * params.inputs + k;
        let difference = weight_vec4(place + 2u * params.inputs, left);
        query = weight_vec4(place, left) + difference;
        key = weight_vec4(place + params.inputs, left) - difference;
        product = weight_vec4(place + 3u * params.inputs, left);
    }
    blocks[4u * (params.first_block + 2u * block) + c] = key;
    blocks[4u * (params.first_block + 2u * block + 1u) + c] = product;
    blocks[4u * (params.first_query_block + block) + c] = query;
}
