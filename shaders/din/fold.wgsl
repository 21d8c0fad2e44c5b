// Folds one hidden layer of DIN's network into the form in which din/attend.wgsl reads it.
//
//     W₁·[q ; s ; q − s ; q ⊙ s] = (W_q + W_d)·q + ((W_k − W_d) + W_p·diag(q))·s
//
// so that a pair costs a quarter of the multiplications of the concatenation. The first layer leaves W_q + W_d apart
// (din/targets.wgsl multiplies it with each candidate once) and W_k − W_d and W_p side by side: din/attend.wgsl puts both
// together for the candidate at hand. The other layers stay as they are.
//
// It runs in the same submission as what follows, on every call: a buffer's content may change between two calls, so
// that nothing can tell whether an older result still holds. It reads each weight once, against once for each tile of
// candidates and step of the history in din/attend.wgsl.
//
// One thread takes four inputs of one unit. Matrices are blocks of 4 × 4 whose columns are units, so that four inputs
// of a pair times a block are four units; zeros where units or inputs are no whole fours. The first threads also leave
// what each unit has beside its weights: bias, gain, shift, alpha and output weight, five vectors for four units.

struct Params {
    groups: u32,
    grid_width: u32,
    threads: u32,
    // Of this layer; a first layer has four times as many columns as inputs.
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
    // 0 where all units share one alpha.
    alpha_stride: u32,
    output_base: u32,
    // Where the blocks begin, and those of W_q + W_d; where the vectors do.
    first_block: u32,
    first_query_block: u32,
    first_vector: u32,
}
@group(0) @binding(0) var<uniform> params: Params;

const PRELU: u32 = 2u;
const DICE: u32 = 3u;

// The vectors of units unit .. unit + 4.
fn write_vectors(unit: u32) {
    var bias_four = vec4<f32>(); var gain_four = vec4<f32>(); var shift_four = vec4<f32>();
    var alpha_four = vec4<f32>(); var output_four = vec4<f32>();
    for (var i = 0u; i < min(4u, params.units - unit); i++) {
        let u = unit + i;
        bias_four[i] = bias[params.bias_base + u];
        if params.activation == DICE {
            gain_four[i] = gain[params.gain_base + u];
            shift_four[i] = shift[params.shift_base + u];
        }
        if params.activation >= PRELU {
            alpha_four[i] = alpha[params.alpha_base + u * params.alpha_stride];
        }
        if params.is_last == 1u {
            output_four[i] = output_weight_at(params.output_base + u);
        }
    }
    let place = params.first_vector + unit / 4u * 5u;
    vectors[place] = bias_four;
    vectors[place + 1u] = gain_four;
    vectors[place + 2u] = shift_four;
    vectors[place + 3u] = alpha_four;
    vectors[place + 4u] = output_four;
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
    // The number of the block, and the unit in it.
    let block = index / 4u;
    let c = index % 4u;
    let unit = block / inputs4 * 4u + c;
    let k = block % inputs4 * 4u;
    let live = unit < params.units;
    let left = params.inputs - k;
    if params.is_first == 0u {
        var four = vec4<f32>();
        if live {
            four = weight_four(params.weight_base + unit * params.inputs + k, left);
        }
        blocks[4u * (params.first_block + block) + c] = four;
        return;
    }
    var query = vec4<f32>(); var key = vec4<f32>(); var product = vec4<f32>();
    if live {
        let place = params.weight_base + unit * 4u * params.inputs + k;
        let difference = weight_four(place + 2u * params.inputs, left);
        query = weight_four(place, left) + difference;
        key = weight_four(place + params.inputs, left) - difference;
        product = weight_four(place + 3u * params.inputs, left);
    }
    blocks[4u * (params.first_block + 2u * block) + c] = key;
    blocks[4u * (params.first_block + 2u * block + 1u) + c] = product;
    blocks[4u * (params.first_query_block + block) + c] = query;
}
